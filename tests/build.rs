//! `sotto build` from outside: what comes out, that it is the same bytes again, what it says when
//! it cannot, and that it goes on after being killed.

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use harness::program::sotto;
use sotto::builder::{
    BuildError, BuildOptions, BuildReport, DATABASE_NAME_DEFAULT, Input, Silent, keys, renew,
    rollback, run, sample,
};
use sotto::keyword::{Outcome, band, extract, locate};
use sotto::scheme::{KeyBundle, SecretPool, Sharing, reference};
use sotto::shard::manifest::{MANIFEST_NAME, MANIFEST_PREVIOUS_NAME};
use sotto::shard::verify::verify;
use sotto::shard::{Database, Manifest};

const SEED: [u8; 32] = [0x5e; 32];

/// A folder with a sample in it, and options for a small database from it.
struct Bench {
    directory: tempfile::TempDir,
    shards: u32,
}

impl Bench {
    fn new(records: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bench = Self { directory, shards: 4 };
        sample::write(records, fs::File::create(bench.path("in.csv")).unwrap()).unwrap();
        bench
    }

    /// One whose builds take long enough to be killed in the middle.
    fn to_be_killed() -> Self {
        Self { shards: 16, ..Self::new(3_000) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("in.csv")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn write_input(&self, lines: &[String]) {
        fs::write(self.path("in.csv"), lines.join("\n")).unwrap();
    }

    fn options(&self, out: &str) -> BuildOptions {
        BuildOptions {
            shards: Some(self.shards),
            seed: Some(SEED),
            signing_key: Some(self.path("key.pem")),
            created: Some(1_700_000_000),
            ..BuildOptions::new(Input::File(self.path("in.csv")), self.path(out))
        }
    }

    fn build(&self, out: &str) -> BuildReport {
        run(&self.options(out), &Silent).unwrap()
    }

    /// The `sotto build` command with the same options.
    fn command(&self, out: &str) -> Command {
        self.command_from(&self.path("in.csv"), out)
    }

    fn command_from(&self, input: &Path, out: &str) -> Command {
        let (shards, seed) = (self.shards.to_string(), "5e".repeat(32));
        let mut command = sotto(&["build", "--shards", &shards, "--seed", &seed]);
        command.env("SOURCE_DATE_EPOCH", "1700000000");
        command.arg("--input").arg(input).arg("--out").arg(self.path(out));
        command.arg("--signing-key").arg(self.path("key.pem"));
        command
    }

    fn error(&self, options: &BuildOptions) -> BuildError {
        run(options, &Silent).unwrap_err()
    }

    /// The build fails with such a message.
    fn refuses(&self, options: &BuildOptions, parts: &[&str]) {
        let error = self.error(options).to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{parts:?}: {error}");
    }

    /// Replaces the value of a record, and returns its key.
    fn change(&self, line: usize, value: &str) -> String {
        let mut lines = self.lines();
        let key = lines[line].split_once(',').unwrap().0.to_owned();
        lines[line] = format!("{key},{value}");
        self.write_input(&lines);
        key
    }

    /// Starts a build on one thread and kills it once so many shards are finished.
    fn kill_after(&self, shards: usize) -> PathBuf {
        let out = self.path("db");
        let child = self.command("db").args(["--jobs", "1"]).spawn();
        kill_once(child, || finished(&out) >= shards);
        out
    }

    /// Nothing is left of a database or of work on one.
    fn assert_nothing_left(&self, out: &str) {
        assert!(!self.path(out).exists(), "{:?}", contents(&self.path(out)));
    }
}

/// Every file below a folder, by its path within.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (contents(a), contents(b));
    let names = |of: &BTreeMap<PathBuf, Vec<u8>>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b));
    for (name, bytes) in &a {
        assert!(b[name] == *bytes, "{} differs", name.display());
    }
}

/// Looks keys up through the scheme, as a client and a server would.
fn look_up(database: &Database, keys: &[&str]) -> Vec<Outcome> {
    let (shape, seed) = (database.shape(), database.seed());
    let mut pool = SecretPool::new(*seed, *shape);
    let (mut aims, mut selections) = (Vec::new(), Vec::new());
    for key in keys {
        let place = locate(seed, key.as_bytes(), database.shard_count(), shape.groups() as u32);
        let shard = database.shard(place.shard).unwrap();
        let band = band(&place.identity, shard.header().ribbon_seed, shape);
        selections.push((place.shard, band));
        aims.push((place, shard));
    }
    let made = pool.encrypt(&selections, Sharing::Shared).unwrap();
    let mut queries = Vec::new();
    for (query, (place, shard)) in made.into_iter().zip(aims) {
        let bundle = KeyBundle::decode(&pool.bundle(query).unwrap().1, shape).unwrap();
        queries.push((query, pool.vector(query).unwrap(), bundle, place, shard));
    }
    let decoder = pool.seal();
    queries
        .into_iter()
        .map(|(query, vector, bundle, place, shard)| {
            let view = shard.view();
            let response = reference::answer(shape, view.matrix, view.tables, &vector, &bundle);
            let decoded = decoder.decode(query, shape, &response, shard.hints()).unwrap();
            extract(&decoded, &place, shape).outcome()
        })
        .collect()
}

/// What a command says that succeeds.
fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    said
}

/// What a build says that is refused, or fails.
fn fails(output: &Output) -> String {
    let said = text(output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

fn text(output: &Output) -> String {
    let of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    of(&output.stdout) + &of(&output.stderr)
}

#[test]
fn records_come_back_and_absent_keys_do_not() {
    let bench = Bench::new(3_000);
    let report = bench.build("db");
    assert_eq!((report.shard_count, report.built, report.epoch), (4, 4, 1));
    let database = Database::open(&bench.path("db")).unwrap();
    assert_eq!((database.manifest().records, database.epoch()), (3_000, 1));
    assert!(verify(&database, &|_| ()).is_empty());
    let lines = bench.lines();
    for line in lines[1..].iter().step_by(611) {
        let (key, value) = line.split_once(',').unwrap();
        let found = look_up(&database, &[key, "nobody@example.com", key]);
        let expected = Outcome::Found(value.as_bytes().to_vec());
        assert!(found[0] == expected && found[2] == expected, "{key}");
        assert!(found[1] == Outcome::Absent);
    }
    assert_eq!(fs::read_dir(bench.path("db")).unwrap().count(), 3);
    assert_eq!(fs::read_dir(bench.path("db/shards")).unwrap().count(), 4);
}

#[test]
fn values_of_bytes_and_empty_values_come_back() {
    let bench = Bench::new(0);
    let mut lines: Vec<String> =
        (0..200).map(|i| format!("{{\"sii\":\"k{i}\",\"value\":\"{i}\"}}")).collect();
    lines.push("{\"sii\":\"é\",\"value\":\"base64:/wCA\"}".into());
    lines.push("{\"sii\":\"empty\",\"value\":\"\"}".into());
    bench.write_input(&lines);
    fs::rename(bench.path("in.csv"), bench.path("in.jsonl")).unwrap();
    let input = Input::File(bench.path("in.jsonl"));
    run(&BuildOptions { input, shards: Some(1), ..bench.options("db") }, &Silent).unwrap();
    let database = Database::open(&bench.path("db")).unwrap();
    let found = look_up(&database, &["é", "empty", "k7", "k200"]);
    let there = |value: &[u8]| Outcome::Found(value.to_vec());
    assert!(found == [there(&[255, 0, 128]), there(b""), there(b"7"), Outcome::Absent]);
}

#[test]
fn the_same_records_make_the_same_bytes_in_any_order_on_any_threads() {
    let bench = Bench::new(2_000);
    let one = BuildOptions { jobs: Some(1), ..bench.options("one") };
    run(&one, &Silent).unwrap();
    let mut lines = bench.lines();
    lines[1..].reverse();
    lines[1..].rotate_left(777);
    bench.write_input(&lines);
    for jobs in [2, 5] {
        let out = format!("many{jobs}");
        let many = BuildOptions { jobs: Some(jobs), ..bench.options(&out) };
        run(&many, &Silent).unwrap();
        assert_same(&bench.path("one"), &bench.path(&out));
    }
}

#[test]
fn a_rebuild_builds_what_changed_and_raises_the_epoch() {
    let bench = Bench::new(2_000);
    bench.build("db");
    let before = contents(&bench.path("db"));
    let unchanged = BuildOptions { seed: None, shards: None, ..bench.options("db") };
    let report = run(&unchanged, &Silent).unwrap();
    assert_eq!((report.built, report.reused, report.epoch), (0, 4, 1));
    assert!(contents(&bench.path("db")) == before);

    let key = bench.change(5, "im:moved@provider.example");
    let old = Database::open(&bench.path("db")).unwrap(); // as a running server has it
    let report = run(&unchanged, &Silent).unwrap();
    assert_eq!((report.built, report.reused, report.epoch), (1, 3, 2));
    let new = Database::open(&bench.path("db")).unwrap();
    assert_eq!(new.epoch(), 2);
    let moved = Outcome::Found(b"im:moved@provider.example".to_vec());
    assert!(look_up(&new, &[&key])[0] == moved);
    assert!(
        matches!(&look_up(&old, &[&key])[0], Outcome::Found(value) if value.starts_with(b"im:u"))
    );
    // The file of the epoch before is kept, and goes with the epoch after.
    assert_eq!(fs::read_dir(bench.path("db/shards")).unwrap().count(), 5);
    bench.change(5, "im:again@provider.example");
    assert_eq!(run(&unchanged, &Silent).unwrap().epoch, 3);
    assert_eq!(fs::read_dir(bench.path("db/shards")).unwrap().count(), 5);
    assert!(look_up(&old, &[&key])[0] != Outcome::Invalid, "an unlinked file is still mapped");
    // The records of the epoch before need no new file.
    bench.change(5, "im:moved@provider.example");
    let report = run(&unchanged, &Silent).unwrap();
    assert_eq!((report.built, report.resumed, report.reused, report.epoch), (0, 1, 3, 4));
}

#[test]
fn unchanged_records_are_signed_again_once_half_of_their_time_is_over() {
    const DAY: u64 = 86_400;
    let bench = Bench::new(1_000);
    let (out, key) = (bench.path("db"), bench.path("key.pem"));
    let at = |day: u64, seconds: u64| BuildOptions {
        created: Some(1_700_000_000 + day * DAY + seconds),
        expires_days: 20,
        ..bench.options("db")
    };
    let manifest = || Manifest::read(&out.join(MANIFEST_NAME)).unwrap();
    let previous = || Manifest::read(&out.join(MANIFEST_PREVIOUS_NAME)).ok().map(|m| m.epoch);
    let epoch = |options: BuildOptions| {
        let report = run(&options, &Silent).unwrap();
        assert_eq!(report.built, report.shard_count - report.reused);
        assert_eq!(manifest().epoch, report.epoch);
        (report.epoch, report.renewed)
    };
    assert_eq!(epoch(at(0, 0)), (1, false));
    let first = manifest();
    assert_eq!((first.created, first.expires), (1_700_000_000, 1_700_000_000 + 20 * DAY));
    assert_eq!((epoch(at(9, DAY - 1)), manifest()), ((1, false), first.clone()));
    assert_eq!(epoch(at(10, 0)), (2, true));
    let second = manifest();
    assert_eq!((&second.shards, &second.database), (&first.shards, &first.database));
    let (created, expires) = (first.created + 10 * DAY, first.expires + 10 * DAY);
    assert_eq!((second.created, second.expires), (created, expires));
    Database::open(&out).unwrap();
    // What a rollback goes back to is other content, not an older signature.
    assert_eq!(previous(), None);
    bench.change(5, "im:moved@provider.example");
    assert_eq!((epoch(at(11, 0)), previous()), ((3, false), Some(2)));
    // Also long after it has expired.
    assert_eq!((epoch(at(100, 0)), previous()), ((4, true), Some(2)));
    let rolled = rollback(&out, Some(&key), 5, &Silent).unwrap();
    assert_eq!((rolled.content_of, rolled.epoch, previous()), (2, 5, Some(4)));
    let fifth = manifest();
    assert_eq!((&fifth.shards, fifth.expires), (&second.shards, fifth.created + 5 * DAY));
    // And without the records.
    let renewed = renew(&out, Some(&key), 7).unwrap();
    let sixth = manifest();
    assert_eq!((renewed.epoch, renewed.lifetime(), previous()), (6, sixth.lifetime(), Some(4)));
    assert_eq!((&sixth.shards, sixth.expires), (&second.shards, sixth.created + 7 * DAY));
    for days in [0, 367] {
        for error in [
            renew(&out, Some(&key), days).unwrap_err(),
            rollback(&out, Some(&key), days, &Silent).unwrap_err(),
            bench.error(&BuildOptions { expires_days: days, ..at(200, 0) }),
        ] {
            assert!(error.to_string().contains("expected 1 to 366"), "{error}");
        }
    }
    let stranger = bench.path("stranger.pem");
    keys::create(&stranger).unwrap();
    let error = renew(&out, Some(&stranger), 7).unwrap_err();
    assert!(matches!(error, BuildError::OtherOperator { .. }), "{error}");
    fs::remove_file(out.join("shards").join(&sixth.shards[1].file)).unwrap();
    let error = renew(&out, Some(&key), 7).unwrap_err();
    assert!(matches!(error, BuildError::NotResigned { .. }), "{error}");
    assert_eq!(manifest(), sixth);
}

#[test]
fn a_database_keeps_its_name() {
    let bench = Bench::new(500);
    let named = |name: &str| BuildOptions { database: Some(name.into()), ..bench.options("db") };
    for bad in ["", "a b", "-x", "a/b", &"x".repeat(65)] {
        bench.refuses(&named(bad), &["--database is"]);
        bench.assert_nothing_left("db");
    }
    let name = |out| Database::open(&bench.path(out)).unwrap().manifest().database.clone();
    run(&named("phones"), &Silent).unwrap();
    assert_eq!(name("db"), "phones");
    let before = contents(&bench.path("db"));
    for reshape in [false, true] {
        bench.refuses(&BuildOptions { reshape, ..named("mails") }, &["name is phones"]);
        assert!(contents(&bench.path("db")) == before);
    }
    // It need not be told again.
    bench.change(5, "im:moved@provider.example");
    assert_eq!((bench.build("db").epoch, name("db")), (2, "phones".into()));
    bench.build("unnamed");
    assert_eq!(name("unnamed"), DATABASE_NAME_DEFAULT);
}

#[test]
fn a_rebuild_keeps_seed_and_shape_unless_told_to_reshape() {
    let bench = Bench::new(1_000);
    bench.build("db");
    let base = BuildOptions { shards: None, seed: None, ..bench.options("db") };
    let before = contents(&bench.path("db"));
    for (options, reason) in [
        (BuildOptions { shards: Some(5), ..base.clone() }, "--shards asks for 5"),
        (BuildOptions { seed: Some([1; 32]), ..base.clone() }, "--seed asks for 0101"),
        (BuildOptions { value_bytes: Some(200), ..base.clone() }, "--value-bytes asks for 200"),
    ] {
        bench.refuses(&options, &[reason, "--reshape"]);
    }
    let other = BuildOptions { signing_key: Some(bench.path("other.pem")), ..base.clone() };
    assert!(matches!(bench.error(&other), BuildError::OtherOperator { .. }));
    // Ten times the records do not fit the shape.
    sample::write(10_000, fs::File::create(bench.path("in.csv")).unwrap()).unwrap();
    assert!(matches!(bench.error(&base), BuildError::Outgrown { .. }));
    bench.refuses(&base, &["--reshape"]);
    let reshape = BuildOptions { reshape: true, shards: Some(8), ..base };
    let other = BuildOptions { seed: Some([1; 32]), ..reshape.clone() };
    bench.refuses(&other, &["keeps its seed for life"]);
    assert!(contents(&bench.path("db")) == before);
    let report = run(&reshape, &Silent).unwrap();
    assert_eq!((report.shard_count, report.built, report.epoch), (8, 8, 2));
    assert_eq!(Database::open(&bench.path("db")).unwrap().seed(), &SEED);
}

#[test]
fn wrong_lines_and_repeated_keys_are_named_and_nothing_is_left() {
    let bench = Bench::new(500);
    let (good, options) = (bench.lines(), bench.options("db"));
    let mut lines = good.clone();
    (10..40).step_by(2).for_each(|at| lines[at] = "only one field".into());
    bench.write_input(&lines);
    bench.refuses(&options, &["15 lines", "line 11:", "line 29:", "and 5 more"]);
    bench.assert_nothing_left("db");
    assert!(!bench.error(&options).to_string().contains("line 31:"));
    bench.write_input(&[&good[..], &good[1..13]].concat());
    // They lie in several shards: the first ten of all are named.
    bench
        .refuses(&options, &["12 lines", "line 502: the key of line 2", "line 511:", "and 2 more"]);
    assert!(!bench.error(&options).to_string().contains("line 512:"));
    bench.assert_nothing_left("db");
    bench.write_input(&[good[0].clone(), format!("long,{}", "v".repeat(41))]);
    let short = BuildOptions { value_bytes: Some(41), ..options.clone() };
    bench.refuses(&short, &["line 2: the value has 41 bytes, expected at most 40"]);
    bench.write_input(&good[..1]);
    assert!(matches!(bench.error(&options), BuildError::NoRecords { .. }));
    bench.assert_nothing_left("db");
    assert!(!bench.path("key.pem").exists(), "a key for nothing");
    // A database that is there stays as it is.
    bench.write_input(&good);
    bench.build("db");
    let before = contents(&bench.path("db"));
    bench.write_input(&[&good[..], &good[1..2]].concat());
    assert!(matches!(bench.error(&options), BuildError::Duplicates { .. }));
    assert!(contents(&bench.path("db")) == before);
}

#[test]
fn options_that_cannot_work_are_refused_before_the_input_is_read() {
    let bench = Bench::new(500);
    let output = bench.command("db").env("SOURCE_DATE_EPOCH", "yesterday").output().unwrap();
    let said = fails(&output);
    assert!(said.contains("SOURCE_DATE_EPOCH is \"yesterday\""), "{said}");
    let signing_key = Some(bench.path("no-such-folder/key.pem"));
    bench.refuses(&BuildOptions { signing_key, ..bench.options("db") }, &["no-such-folder"]);
    bench.assert_nothing_left("db");
}

/// Kills a real build at its n-th line of output, for several n, then lets it finish.
#[test]
fn a_build_killed_at_any_moment_goes_on_to_the_same_bytes() {
    let bench = Bench::to_be_killed();
    bench.build("whole");
    // Moments are states of the disk: what has to be there before the process is killed.
    type Moment = fn(&Path) -> bool;
    let moments: [(&str, Moment); 5] = [
        ("begun", |out| out.join("work").exists()),
        ("counted", |out| out.join("work/work.json").exists()),
        ("partitioned", |out| out.join("work/partitions/00015").exists()),
        ("one shard", |out| finished(out) >= 1),
        ("five shards", |out| finished(out) >= 5),
    ];
    for (name, reached) in moments {
        let out = bench.path(name);
        // Several kills on the way to the end, each at or after the moment.
        for round in 0..2 {
            let child = bench.command(name).args(["--jobs", "1"]).stderr(Stdio::piped()).spawn();
            kill_once(child, || reached(&out));
            let whole = out.join("manifest.json").exists();
            assert!(whole || Database::open(&out).is_err(), "{name} {round}: opens unfinished");
        }
        succeeds(&mut bench.command(name));
        assert_same(&bench.path("whole"), &out);
    }
}

/// Kills (SIGKILL) a program once a moment is reached; it may have ended before.
fn kill_once(child: std::io::Result<Child>, reached: impl Fn() -> bool) {
    let mut child = child.unwrap();
    while !reached() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Shards that are finished.
fn finished(out: &Path) -> usize {
    let files = fs::read_dir(out.join("shards")).into_iter().flatten().flatten();
    files.filter(|file| file.path().extension().is_some_and(|end| end == "shard")).count()
}

/// Killed between the manifest's rename and the end: the work folder is still there.
#[test]
fn work_left_beside_a_finished_database_is_cleared_away() {
    let bench = Bench::to_be_killed();
    let (aside, again) = (bench.path("aside"), bench.path("again"));
    let out = bench.kill_after(1);
    for copy in [&aside, &again] {
        let copied = Command::new("cp").arg("-r").arg(out.join("work")).arg(copy).status();
        assert!(copied.unwrap().success());
    }
    bench.build("db");
    let whole = contents(&out);
    fs::rename(&aside, out.join("work")).unwrap();
    fs::write(out.join("shards/left.shard.tmp"), "half").unwrap();
    let report = bench.build("db");
    assert_eq!((report.built, report.reused, report.epoch), (0, 16, 1));
    assert!(contents(&out) == whole);
    // With a shard lost as well, the database is published again: under an epoch of its own.
    fs::rename(&again, out.join("work")).unwrap();
    let shards = Database::open(&out).unwrap().manifest().shards.clone();
    fs::remove_file(out.join("shards").join(&shards[15].file)).unwrap();
    let report = bench.build("db");
    assert_eq!((report.reused, report.epoch), (15, 2));
    assert_eq!(Database::open(&out).unwrap().manifest().shards, shards);
}

#[test]
fn finished_shards_are_not_built_again() {
    let bench = Bench::to_be_killed();
    let out = bench.kill_after(2);
    assert!(!out.join("manifest.json").exists(), "too fast for this test");
    let before = finished(&out) as u32;
    let report = bench.build("db");
    assert!(before >= 2 && report.resumed == before, "{before} {report:?}");
    assert_eq!(report.built, 16 - before);
}

#[test]
fn an_interrupted_build_refuses_other_arguments_and_another_input() {
    let bench = Bench::to_be_killed();
    let out = bench.kill_after(1);
    let other = BuildOptions { value_bytes: Some(56), ..bench.options("db") };
    bench.refuses(&other, &["--value-bytes was not given, is 56", "--restart", "same arguments"]);
    let lines = bench.lines();
    // Of the same size and time: a value is another.
    let input = bench.path("in.csv");
    let modified = input.metadata().unwrap().modified().unwrap();
    let other_text = fs::read_to_string(&input).unwrap().replacen("im:u7@", "im:v7@", 1);
    fs::write(&input, other_text).unwrap();
    fs::File::options().write(true).open(&input).unwrap().set_modified(modified).unwrap();
    let changed = || {
        let error = bench.error(&bench.options("db"));
        assert!(matches!(error, BuildError::InputChanged { .. }), "{error}");
    };
    changed();
    bench.write_input(&lines[..lines.len() - 1]);
    changed();
    succeeds(bench.command("db").arg("--restart"));
    assert_eq!(Database::open(&out).unwrap().manifest().records, 2_999);
}

#[test]
fn one_builder_at_a_time() {
    let bench = Bench::new(500);
    fs::create_dir(bench.path("db")).unwrap();
    let lock = fs::File::open(bench.path("db")).unwrap();
    lock.lock().unwrap();
    let error = bench.error(&bench.options("db"));
    assert!(matches!(error, BuildError::Locked { .. }), "{error}");
    lock.unlock().unwrap();
    bench.build("db");
}

#[test]
fn standard_input_is_read_and_kept_over_a_kill() {
    let bench = Bench::to_be_killed();
    bench.build("whole");
    let input = fs::read(bench.path("in.csv")).unwrap();
    let out = bench.path("db");
    let stdin = Path::new("-");
    let mut child = bench.command_from(stdin, "db");
    let mut child = child.args(["--jobs", "1"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&input).unwrap();
    kill_once(Ok(child), || finished(&out) >= 1);
    let said = succeeds(&mut bench.command_from(stdin, "db"));
    assert!(said.contains("copy it kept of standard input"), "{said}");
    assert_same(&bench.path("whole"), &out);
}

#[test]
fn a_plan_says_everything_and_writes_nothing_and_quiet_is_quiet() {
    let bench = Bench::new(3_000);
    let said = succeeds(bench.command("db").arg("--plan"));
    for part in ["4 of about 750", "128 rows", "on disk", "a query", "once in 2^", "WARNING"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    bench.assert_nothing_left("db");
    assert!(!bench.path("key.pem").exists());
    assert_eq!(succeeds(bench.command("db").arg("--quiet")), "");
    // Without a terminal progress is lines.
    let output = bench.command("loud").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.lines().any(|line| line.starts_with("3000 records in")), "{said}");
    assert!(!output.stderr.contains(&0x1b), "escape sequences for no terminal");
    assert!(String::from_utf8_lossy(&output.stdout).contains("epoch 1, 3000 records in 4 shards"));
}

/// A small file system of its own where this process may mount one; else `None`.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(&path);
        let mounted = mount.stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self { path })
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount").args(["-o", options]).arg(&self.path).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
    }
}

#[test]
fn too_little_room_is_found_before_anything_is_written() {
    let bench = Bench::new(3_000);
    let Some(disk) = SmallDisk::mount(bench.path("disk"), "2m") else {
        harness::skip("this process may not mount a file system");
        return;
    };
    let error = bench.error(&bench.options("disk/db"));
    assert!(matches!(error, BuildError::DiskSpace { .. }), "{error}");
    assert!(error.to_string().contains("needed, 2.1 MB free"), "{error}");
    bench.assert_nothing_left("disk/db");
    // Room made: it builds, and goes on as if nothing had been.
    disk.remount("remount,size=20m");
    bench.build("disk/db");
    // Read-only: said, and left alone.
    disk.remount("remount,ro");
    let before = contents(&bench.path("disk/db"));
    sample::write(2_000, fs::File::create(bench.path("in.csv")).unwrap()).unwrap();
    bench.refuses(&bench.options("disk/db"), &["Read-only", "--out"]);
    bench.refuses(&bench.options("disk/db2"), &["Read-only"]);
    assert!(contents(&bench.path("disk/db")) == before);
}

/// A full disk in the middle: the shell limits the size of files, which needs no rights.
#[test]
fn a_disk_that_fills_up_leaves_what_can_be_continued() {
    let bench = Bench::new(3_000);
    bench.build("whole");
    let input = fs::read(bench.path("in.csv")).unwrap();
    let limited = |command: Command, blocks: u32| {
        let mut shell = Command::new("bash");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        shell.arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
        shell.env("SOURCE_DATE_EPOCH", "1700000000").stdin(Stdio::piped());
        let mut child = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(&input); // it may stop reading
        child.wait_with_output().unwrap()
    };
    // Blocks of 1 KiB: partition files fit, shard files of 1.7 MB do not.
    let said = fails(&limited(bench.command("db"), 1_000));
    assert!(said.contains("make room and run the same command again"), "{said}");
    let out = bench.path("db");
    assert!(Database::open(&out).is_err());
    let left: Vec<_> = fs::read_dir(out.join("shards")).unwrap().collect();
    assert!(left.is_empty(), "half-written: {left:?}");
    let said = succeeds(&mut bench.command("db"));
    assert!(said.contains("Going on"), "{said}");
    assert_same(&bench.path("whole"), &out);
    // Not even the copy of standard input fits: there is nothing to continue, nothing is left.
    let said = fails(&limited(bench.command_from(Path::new("-"), "none"), 4));
    assert!(said.contains("work/input"), "{said}");
    bench.assert_nothing_left("none");
}

/// Input lines whose keys fall on shards as told: `loads[i]` on shard i.
fn lines_with_loads(loads: &[usize]) -> Vec<String> {
    let mut left = loads.to_vec();
    let mut lines = vec!["sii,value".to_owned()];
    let mut index = 0u32;
    while lines.len() <= loads.iter().sum() {
        let key = format!("u{index}@example.com");
        let place = locate(&SEED, key.as_bytes(), loads.len() as u32, 1);
        let left = &mut left[place.shard as usize];
        if *left > 0 {
            *left -= 1;
            lines.push(format!("{key},v{index}"));
        }
        index += 1;
    }
    lines
}

#[test]
fn a_shard_that_is_too_full_widens_the_shape_of_all() {
    let bench = Bench { shards: 2, ..Bench::new(0) };
    let lines = lines_with_loads(&[230, 40]);
    bench.write_input(&lines);
    let options = BuildOptions { value_bytes: Some(120), ..bench.options("db") };
    // By the rule for 135 records a shard it would be 192 columns.
    let report = run(&options, &Silent).unwrap();
    assert_eq!(report.shape.columns(), 256);
    let database = Database::open(&bench.path("db")).unwrap();
    for line in lines[1..].iter().step_by(90) {
        let (key, value) = line.split_once(',').unwrap();
        assert!(look_up(&database, &[key])[0] == Outcome::Found(value.as_bytes().to_vec()));
    }
    // Eight steps are not enough here.
    let bench = Bench { shards: 3, ..Bench::new(0) };
    bench.write_input(&lines_with_loads(&[1_400, 0, 0]));
    let options = BuildOptions { value_bytes: Some(120), ..bench.options("db") };
    let error = bench.error(&options);
    assert!(matches!(error, BuildError::Unsolvable { shard: 0, columns: 1088 }), "{error}");
    bench.assert_nothing_left("db");
}

/// A shard without records is a shard like the others: absent keys are absent.
#[test]
fn a_shard_may_be_empty() {
    let bench = Bench { shards: 2, ..Bench::new(0) };
    bench.write_input(&lines_with_loads(&[100, 0]));
    bench.build("db");
    let database = Database::open(&bench.path("db")).unwrap();
    assert_eq!(database.shard(1).unwrap().header().records, 0);
    let keys = ["a@example.net", "b@example.net", "c@example.net", "d@example.net"];
    assert!(look_up(&database, &keys).iter().all(|outcome| *outcome == Outcome::Absent));
}
