//! `sotto build` fed with what people have: pipes, compressed files, exports of spreadsheets, files
//! that were cut. And files and folders that may not be read.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::program::{Made, program, program_as, run, sotto};
use sotto::shard::Manifest;

const RECORDS: u64 = 300;

fn records() -> String {
    let lines = (100..100 + RECORDS).map(|n| format!("+12015550{n},value {n}\n"));
    format!("sii,value\n{}", lines.collect::<String>())
}

fn gzip(text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(text.as_ref()).unwrap();
    out.finish().unwrap()
}

/// A folder to build in.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn text(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.0.path().join(name), bytes).unwrap();
        self.text(name)
    }

    fn command(&self, input: &str, out: &str, more: &[&str]) -> Command {
        let out = self.text(out);
        let seed = "5e".repeat(32);
        let mut command = sotto(&["build", "--input", input, "--out", &out, "--seed", &seed]);
        command.args(["--shards", "1", "--signing-key", &self.text("key.pem")]).args(more);
        command
    }

    fn build(&self, input: &str, out: &str, more: &[&str]) -> (i32, String) {
        let (code, out, err) = run(&mut self.command(input, out, more));
        (code, err + &out)
    }

    /// The build is refused with these words, and leaves nothing.
    fn refuses(&self, input: &str, expected: &str) -> String {
        let (code, said) = self.build(input, "none", &[]);
        assert!(code == 2 && said.contains(expected), "{expected}: {said}");
        assert!(!self.exists("none"), "{expected}");
        said
    }

    /// The same of standard input.
    fn refuses_piped(&self, input: impl Into<Stdio>, expected: &str) {
        let (code, _, said) = run(self.command("-", "none", &[]).stdin(input));
        assert!(code == 2 && said.contains(expected), "piped, {expected}: {said}");
        assert!(!self.exists("none"), "piped, {expected}");
    }

    fn exists(&self, name: &str) -> bool {
        self.0.path().join(name).exists()
    }

    /// What makes a database's content.
    fn content(&self, out: &str) -> String {
        let manifest = self.0.path().join(out).join("manifest.json");
        let manifest = Manifest::read(&manifest).unwrap();
        assert_eq!(manifest.records, RECORDS, "{out}");
        manifest.shards[0].file.clone()
    }
}

#[test]
fn files_and_streams_plain_and_compressed_make_the_same_database() {
    let place = Place::new();
    let text = records();
    let plain = place.write("plain.csv", &text);
    let (code, said) = place.build(&plain, "db", &[]);
    assert_eq!(code, 0, "{said}");
    let expected = place.content("db");
    let zstd = zstd::stream::encode_all(text.as_bytes(), 3).unwrap();
    let marked = text.replace('\n', "\r\n");
    let files = [
        place.write("x.csv.gz", gzip(&text)),
        place.write("x.csv.zst", zstd),
        place.write("without-end", gzip(&text)),
        place.write("windows.csv", format!("\u{feff}{marked}")),
        place.write("mac.csv", text.replace('\n', "\r")),
    ];
    for (n, file) in files.iter().enumerate() {
        let (named, piped) = (format!("file{n}"), format!("stdin{n}"));
        let (code, said) = place.build(file, &named, &[]);
        assert_eq!(code, 0, "{file}: {said}");
        // By all the ways in which a shell hands over what can be read once.
        let mut command = place.command("/dev/stdin", &piped, &[]);
        let (code, _, said) = run(command.stdin(File::open(file).unwrap()));
        assert_eq!(code, 0, "{file}: {said}");
        assert_eq!([place.content(&named), place.content(&piped)], [&*expected; 2], "{file}");
    }
    let gz = &files[0];
    let sotto = program();
    let arguments = "--shards 1 --signing-key key.pem --seed $(printf '5e%.0s' {1..32}) --quiet";
    for (n, script) in [
        format!("{sotto} build --input <(zcat {gz}) --out OUT {arguments}"),
        format!("zcat {gz} | {sotto} build --input - --out OUT {arguments}"),
        format!("cat {gz} | {sotto} build --input /dev/stdin --out OUT {arguments}"),
        format!(
            "mkfifo fifo && (cat {plain} > fifo &) && \
             {sotto} build --input fifo --out OUT {arguments}"
        ),
        format!("{sotto} build --input <(cat {gz}) --out OUT {arguments} --plan > /dev/null"),
    ]
    .iter()
    .enumerate()
    {
        let out = format!("script{n}");
        let script = script.replace("OUT", &out);
        let mut bash = Command::new("bash");
        let (code, _, said) = run(bash.args(["-c", &script]).current_dir(place.0.path()));
        assert_eq!(code, 0, "{script}: {said}");
        match script.contains("--plan") {
            true => assert!(!place.exists(&out)),
            false => assert_eq!(place.content(&out), expected, "{script}"),
        }
    }
}

/// Neither a quote nor a line has to end for it to be refused.
#[test]
fn a_stream_without_end_is_refused_within_bounds() {
    let place = Place::new();
    let endless = "tr '\\0' x < /dev/zero";
    for (first, rest, expected) in [
        ("sii,value\na,b\n\"c,", endless, "line 3: a line of more than"),
        ("sii,value\na,b\nc,\"\n\n", "yes", "line 3: the quote that begins here"),
        ("sii,value\nc", endless, "line 2: a line of more than"),
    ] {
        let script = format!("(printf '{first}'; {rest}) 2> /dev/null");
        let mut endless = Command::new("bash");
        let mut endless = endless.args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        place.refuses_piped(endless.stdout.take().unwrap(), expected);
        let _ = endless.kill();
        let _ = endless.wait();
    }
}

#[test]
fn a_first_line_that_is_none_is_named_for_what_it_is() {
    let place = Place::new();
    let utf16: Vec<u8> = records().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: [(&[u8], &str); 23] = [
        (b"sii\tvalue\na\tb\n", "tabs"),
        (b"sii;value\na;b\n", "semicolons"),
        (b"+12015550100;im:a\n", "semicolons"),
        (b"sii|value\n", "vertical bars"),
        (b"value,sii\n", "other order"),
        (b"sii\n", "one column"),
        (b"phone,address\n", "other names"),
        (b"sep=;\n", "`sep=`"),
        (b"SII,VALUE\na,b\n", "capitals"),
        (b"sii, value\na,b\n", "spaces"),
        (b"sii,value,seen\na,b,c\n", "3 columns"),
        (b"+12015550100,b\n", "no header"),
        (b"", "an empty file"),
        (b"{\"sii\":\"a\",\"value\":\"b\"}\n", "JSON"),
        (b"BZh91AY&SY", "bzip2"),
        (b"PK\x03\x04", "spreadsheet"),
        (b"<html>", "web page"),
        (&utf16, "UTF-16"),
        (b"\xfd7zXZ\0\0", "found xz"),
        (b"PAR1", "Parquet"),
        (&gzip("BZh91AY&SY"), "found within gzip bzip2"),
        (&gzip(gzip("sii,value\n")), "found within gzip compressed data"),
        (b"sii,value\n\0\0\0", "zeros"),
    ];
    for (bytes, expected) in cases {
        let said = place.refuses(&place.write("x.csv", bytes), expected);
        assert!(said.contains("x.csv, line 1: ") && !said.contains("12015550100"), "{said}");
    }
}

#[test]
fn an_input_that_lacks_records_is_refused_unless_that_is_meant() {
    let place = Place::new();
    let whole = place.write("whole.csv", records());
    assert_eq!(place.build(&whole, "db", &[]).0, 0);
    let manifest = || fs::read(place.text("db/manifest.json")).unwrap();
    let before = manifest();
    let first =
        |lines: u64| records().lines().take(lines as usize + 1).collect::<Vec<_>>().join("\n");
    let fewer = place.write("fewer.csv", first(RECORDS * 95 / 100 - 1));
    for more in [&[][..], &["--plan"], &["--shrink-percent", "0"], &["--reshape"]] {
        let (code, said) = place.build(&fewer, "db", more);
        assert!(code == 2 && said.contains("has 284 records"), "{more:?}: {said}");
        assert!(said.contains("has 300") && said.contains("--allow-shrink"), "{said}");
        assert!(manifest() == before && !place.exists("db/work"), "{more:?}");
    }
    let (code, said) = place.build(&fewer, "db", &["--shrink-percent", "6"]);
    assert!(code == 0 && said.contains("284 records (before: 300)"), "{said}");
    let one = place.write("one.csv", first(1));
    assert_eq!(place.build(&one, "db", &["--shrink-percent", "99"]).0, 2);
    let (code, said) = place.build(&one, "db", &["--allow-shrink"]);
    assert!(code == 0 && said.contains("1 records (before: 284)"), "{said}");
    // Five percent and no more.
    assert_eq!(place.build(&whole, "other", &[]).0, 0);
    let just = place.write("just.csv", first(RECORDS * 95 / 100));
    assert_eq!(place.build(&just, "other", &[]).0, 0);
}

#[test]
fn advice_names_the_option_that_helps() {
    let place = Place::new();
    let whole = place.write("whole.csv", records());
    let (code, said) = place.build(&whole, "db", &[]);
    assert!(code == 0 && !said.contains("fewer shards"), "one shard: {said}");
    let long = records() + "+1,a value that is longer than all others\n";
    let (code, said) = place.build(&place.write("long.csv", long), "db", &[]);
    assert!(code == 2 && said.contains("line 302: the value has"), "{said}");
    assert!(said.contains("--reshape"), "{said}");
    let missing = place.text("missing.csv");
    let [gz, zst] = [gzip(records()), zstd::stream::encode_all(records().as_bytes(), 3).unwrap()];
    let cut_gz = place.write("cut.csv.gz", &gz[..gz.len() - 9]);
    let cut_zst = place.write("cut.csv.zst", &zst[..zst.len() - 1]);
    let (early_gz, early_zst) = ("gzip data end too early", "zstd data end too early");
    place.refuses_piped(File::open(&cut_gz).unwrap(), early_gz);
    place.refuses_piped(File::open(&cut_zst).unwrap(), early_zst);
    for (input, expected) in [
        (&*missing, "No such file"),
        ("/", "Is a directory"),
        (&*cut_gz, early_gz),
        (&*cut_zst, early_zst),
    ] {
        let said = place.refuses(input, expected);
        assert!(said.contains("cannot read") && !said.contains("--out"), "{said}");
    }
    let odd = "sii,value\n+1,a\n\u{200e}+2,b\n=3,c\n1.2E+11,d\n";
    let (code, said) = place.build(&place.write("odd.csv", odd), "odd", &[]);
    assert!(code == 0 && said.contains("3 lines used, but hardly meant"), "{said}");
    for line in ["line 3: ", "line 4: ", "line 5: "] {
        assert!(said.contains(line), "{said}");
    }
}

/// Has a command run as a user who owns nothing here, where this one may do everything.
fn as_nobody(command: &mut Command) -> &mut Command {
    match is_root() {
        true => command.uid(65_534).gid(65_534),
        false => command,
    }
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

#[test]
fn what_may_not_be_read_is_said_to_be_forbidden() {
    let made = Made::new();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    // Everything else can be read by anyone.
    mode(made.folder(), 0o755);
    let records = made.path("records.csv");
    let (manifest, db) = (made.path("db/manifest.json"), made.text("db"));
    // The folder of the program may be one that others cannot enter.
    let program = made.text("sotto");
    fs::copy(env!("CARGO_BIN_EXE_sotto"), &program).unwrap();
    let certs = [made.text("certs/server.pem"), made.text("certs/server.key")];
    mode(Path::new(&certs[1]), 0o644);
    let commands: [&[&str]; 5] = [
        &["inspect", &db],
        &["verify", &db],
        &["doctor", "--db", &db],
        &["serve", "--db", &db, "--listen", "127.0.0.1:0", "--admin", "off", "--engine", "cpu"],
        &["rollback", "--db", &db],
    ];
    for hide in [&manifest, &made.path("db"), &made.path("db/shards")] {
        let shown = fs::metadata(hide).unwrap().permissions();
        mode(hide, 0o000);
        for arguments in commands {
            // Without an epoch before it looks at no shard.
            if arguments[0] == "rollback" && hide.ends_with("shards") {
                continue;
            }
            let mut command = program_as(&program, arguments);
            if arguments[0] == "serve" {
                command.args(["--cert", &certs[0], "--key", &certs[1]]);
            }
            let (code, out, err) = run(as_nobody(&mut command));
            let said = out + &err;
            assert!(code == 1 || code == 2, "{arguments:?}: {said}");
            assert!(said.contains("Permission denied"), "{arguments:?} {hide:?}: {said}");
            assert!(!said.contains("not a finished database"), "{arguments:?}: {said}");
        }
        fs::set_permissions(hide, shown).unwrap();
    }
    mode(&records, 0o000);
    let out = std::env::temp_dir().join(format!("sotto-input-test-{}", std::process::id()));
    let input = records.to_str().unwrap();
    let build = ["build", "--input", input, "--out", out.to_str().unwrap()];
    let (code, _, said) = run(as_nobody(&mut program_as(&program, &build)));
    assert!(code == 2 && said.contains("cannot read"), "{said}");
    assert!(said.contains("Permission denied") && !said.contains("--out"), "{said}");
    assert!(!out.exists());
}
