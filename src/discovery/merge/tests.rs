//! Whole runs, on statements that are signed here and on a sample.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use tempfile::TempDir;

use super::work::fault::STEPS_LEFT;
use super::*;
use crate::discovery::batch::{Batch, Body};
use crate::discovery::blind::BlindKey;
use crate::discovery::directory::{Directory, Pins, Proof, RistrettoKey};
use crate::discovery::filter::Filter;
use crate::discovery::identifier::Identifier;
use crate::discovery::open::{Contact, Preferred, open_sealed};
use crate::discovery::sample;
use crate::discovery::ssi::Ssi;
use crate::discovery::statement::{
    Consent, Mapping, Preference, Purpose, Withdrawal, WithdrawnBy, preference_text,
};
use crate::limits::{FILTER_DEVICE_BYTES_MAX, RECORD_VALUE_BYTES_MIN};

/// The start of a minute.
const NOW: u64 = 1_796_000_040;
const DAY: u64 = 86_400;
const FILTER_EPOCH: u64 = 7;
const ISSUER: &str = "discovery.example";
const SELF_ISSUER: &str = "alpha.example";
const AUTHORITY: &str = "numbers.example";

/// A sample, and what a run needs beside it.
struct World {
    folder: TempDir,
    directory: Directory,
    record_key: SigningKey,
    blind: Option<BlindKey>,
}

impl World {
    fn new(statements: u64) -> Self {
        Self::with(statements, Some(BlindKey::generate().unwrap()))
    }

    fn with(statements: u64, blind: Option<BlindKey>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blinding_key = blind.as_ref().map(|blind| RistrettoKey(blind.public_key()));
        let path = folder.path().join("sample");
        let options = sample::Options { statements, now: NOW, blinding_key };
        sample::write(&options, &path).unwrap();
        let read = |name: &str| fs::read(path.join(name)).unwrap();
        let pins: Pins = serde_json::from_slice(&read(sample::PINS)).unwrap();
        let directory = Directory::open(&read(sample::DIRECTORY), &pins, NOW).unwrap();
        let record_key = pem(&path.join(sample::RECORD_KEY));
        Self { folder, directory, record_key, blind }
    }

    fn key(&self, name: &str) -> SigningKey {
        pem(&self.folder.path().join("sample").join(format!("{name}.pem")))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, lines: &[String]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        path
    }

    fn sample_files(&self) -> Vec<PathBuf> {
        let names = [sample::STATEMENTS, sample::BATCHES[0], sample::BATCHES[1]];
        names.iter().map(|name| self.path("sample").join(name)).collect()
    }

    fn run(&self, work: &str, time: Time, files: &[PathBuf]) -> Result<Made, MergeError> {
        let [work, out, report, path] =
            ["", ".csv", ".report", ".filter"].map(|end| self.path(&(work.to_owned() + end)));
        let operator = self.key("operator");
        let filter = FilterOptions { path: &path, key: &operator, epoch: FILTER_EPOCH };
        let options = Options {
            directory: &self.directory,
            database: sample::DATABASE,
            record_key: &self.record_key,
            blind: self.blind.as_ref(),
            value_bytes: VALUE_BYTES_DEFAULT,
            time,
            work: &work,
            out: &out,
            report: Some(&report),
            filter: self.blind.as_ref().map(|_| filter),
            files,
        };
        let summary = super::run(&options, &ProgressBar::hidden())?;
        let [out, report] = [out, report].map(|path| fs::read_to_string(path).unwrap());
        let filter = summary.filter.map(|_| fs::read(path).unwrap());
        Ok(Made { summary, out, report, filter })
    }

    /// The routing filter of a run, as a device opens it.
    fn filter(&self, made: &Made) -> Filter {
        let key = self.key("operator").verifying_key();
        let file = made.filter.clone().unwrap();
        Filter::open(file, sample::DATABASE, &key, None, FILTER_DEVICE_BYTES_MAX).unwrap()
    }

    /// Opens the record of an identifier.
    fn contact(&self, made: &Made, sii: &Identifier) -> Option<Contact> {
        let derived = self.blind.as_ref().unwrap().derive(sii);
        let value = made.value(&derived.lookup_key())?;
        Some(open_sealed(sii, &derived, &value, &self.directory, NOW).unwrap())
    }
}

fn pem(path: &Path) -> SigningKey {
    SigningKey::from_pkcs8_pem(&fs::read_to_string(path).unwrap()).unwrap()
}

#[derive(Debug)]
struct Made {
    summary: Summary,
    out: String,
    report: String,
    filter: Option<Vec<u8>>,
}

impl Made {
    fn value(&self, key: &str) -> Option<Vec<u8>> {
        use base64::Engine as _;
        let line = self.out.lines().find(|line| line.split(',').next() == Some(key))?;
        let text = line.split_once(",base64:").unwrap().1;
        Some(base64::engine::general_purpose::STANDARD.decode(text).unwrap())
    }

    /// File name, line and code of each finding, sorted.
    fn findings(&self) -> Vec<(String, u64, String)> {
        let finding = |line| {
            let finding: report::Finding = serde_json::from_str(line).unwrap();
            let file = finding.file.rsplit('/').next().unwrap().to_owned();
            assert!(!finding.found.is_empty() && !finding.expected.is_empty());
            (file, finding.line, finding.code)
        };
        let mut found: Vec<_> = self.report.lines().map(finding).collect();
        found.sort();
        found
    }

    fn codes(&self) -> BTreeMap<String, usize> {
        let mut codes = BTreeMap::new();
        self.findings().into_iter().for_each(|(_, _, code)| *codes.entry(code).or_default() += 1);
        codes
    }
}

fn number(last: u64) -> Identifier {
    Identifier::parse(&format!("+1555010{last:04}"), None).unwrap()
}

fn user(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// A mapping of `discovery.example` that is right but for the user's signature.
fn draft(sub: &Identifier, ssi: &str, iat: u64) -> Mapping {
    Mapping {
        iss: ISSUER.into(),
        sub: sub.clone(),
        ssi: Ssi::parse(ssi).unwrap(),
        jti: "1".into(),
        iat,
        exp: NOW + 200 * DAY,
        proof: Proof::Sms,
        proof_at: iat,
        region: None,
        new_holder: false,
        tags: vec![],
        user: None,
        purpose: Purpose::Register,
    }
}

fn agreed(mut mapping: Mapping, user: &SigningKey) -> Mapping {
    mapping.user = Some(Consent::new(&mapping.consent_text(), user));
    mapping
}

fn withdrawal(by: WithdrawnBy, sub: &Identifier, iat: u64) -> Withdrawal {
    Withdrawal { by, sub: sub.clone(), ssi: None, jti: "w".into(), iat }
}

fn preference(sub: &Identifier, ssi: &str, time: u64, user: &SigningKey) -> Preference {
    let text = preference_text(sub.as_str(), Some(ssi), time);
    let ssi = Some(Ssi::parse(ssi).unwrap());
    Preference { sub: sub.clone(), ssi, time, user: Consent::new(&text, user) }
}

fn hosts(contact: &Contact) -> Vec<&str> {
    contact.services.iter().map(|service| &service.provider[..]).collect()
}

fn people() -> [Identifier; 6] {
    [1, 2, 3, 4, 5, 6].map(number)
}

fn mail() -> Identifier {
    Identifier::parse("ann@bücher.example", None).unwrap()
}

/// Each kind of statement with its attack.
fn story(world: &World) -> Vec<String> {
    let (issuer, authority) = (world.key("issuer-2"), world.key("authority"));
    let [ann, bob, carol, dave, eve, frank] = people();
    let abroad = Identifier::parse("+447700900123", None).unwrap();
    let mail = mail();
    let sign = |mapping: Mapping, key: u8| agreed(mapping, &user(key)).sign(&issuer);
    let early = NOW - 10 * DAY;
    let (bravo, charlie) = ("mimi://bravo.example/u/", "mimi://charlie.example/u/");
    let at = |base: &str, name: &str| format!("{base}{name}");
    let new_holder = |mapping| Mapping { new_holder: true, ..mapping };
    let expired = |mapping: Mapping| Mapping { exp: NOW - DAY, ..mapping };
    let forged = sign(draft(&ann, &at(bravo, "mallory"), NOW - DAY), 9);
    let forged = format!("{}{}", &forged[..forged.len() - 4], "AAAA");
    vec![
        // Ann: two services and a preference; an app just installed and a stolen preference.
        sign(draft(&ann, &at(bravo, "ann"), early), 1),
        sign(draft(&ann, &at(charlie, "ann.c"), early), 2),
        preference(&ann, &at(charlie, "ann.c"), early + 60, &user(2)).to_line(),
        preference(&ann, &at(bravo, "ann"), early + 120, &user(1)).to_line(),
        preference(&ann, &at(bravo, "ann"), early + 120, &user(7)).to_line(),
        forged,
        // One SSI for two identifiers.
        sign(Mapping { proof: Proof::Email, ..draft(&mail, &at(bravo, "ann"), early) }, 1),
        // Bob has withdrawn, Carol's number was withdrawn by the authority.
        sign(draft(&bob, &at(bravo, "bob"), early), 3),
        withdrawal(WithdrawnBy::User(user(3).verifying_key().to_bytes()), &bob, NOW - 60)
            .sign(&user(3)),
        sign(draft(&carol, &at(bravo, "carol"), early), 4),
        withdrawal(WithdrawnBy::Authority(AUTHORITY.into()), &carol, NOW - 60).sign(&authority),
        // Out of remit: a withdrawal by an issuer that is no authority, or of a number elsewhere.
        withdrawal(WithdrawnBy::Authority(ISSUER.into()), &ann, NOW - 60).sign(&issuer),
        withdrawal(WithdrawnBy::Authority(AUTHORITY.into()), &abroad, NOW - 60).sign(&authority),
        // Dave's number is Eve's now; the statement that says so has expired since.
        sign(draft(&dave, &at(bravo, "dave"), early), 5),
        sign(expired(new_holder(draft(&dave, &at(charlie, "eve"), early + DAY))), 6),
        // Refused alone: expired, future, another provider's, without consent.
        sign(expired(draft(&eve, &at(bravo, "eve"), early)), 6),
        sign(draft(&eve, &at(bravo, "eve"), NOW + 301), 6),
        sign(draft(&eve, "mimi://alpha.example/u/eve", early), 6),
        draft(&eve, &at(bravo, "eve"), early).sign(&issuer),
        // Frank only ever prefers; a preference for another number under the same signature.
        preference(&frank, &at(bravo, "frank"), early, &user(8)).to_line(),
        Preference {
            sub: bob.clone(),
            ..preference(&ann, &at(charlie, "ann.c"), early + 60, &user(2))
        }
        .to_line(),
        String::new(),
        "no statement".into(),
    ]
}

/// Lines of [`story`] without effect.
const TOLD: [(u64, &str); 16] = [
    (4, "preference_taken"),
    (5, "preference_key"),
    (6, "forged"),
    (8, "withdrawn"),
    (10, "withdrawn"),
    (12, "out_of_remit"),
    (13, "out_of_remit"),
    (14, "new_holder"),
    (15, "expired"),
    (16, "expired"),
    (17, "future"),
    (18, "out_of_remit"),
    (19, "no_consent"),
    (20, "preference_key"),
    (21, "user_forged"),
    (23, "malformed"),
];

#[test]
fn statements_become_records_that_open_and_every_refusal_is_told() {
    let world = World::new(0);
    let [ann, bob, carol, dave, eve, frank] = people();
    let (bravo, charlie) = ("mimi://bravo.example/u/", "mimi://charlie.example/u/");
    let at = |base: &str, name: &str| format!("{base}{name}");
    let file = world.file("lines", &story(&world));
    let made = world.run("work", Time::Given(NOW + 59), &[file]).unwrap();

    let contact = world.contact(&made, &ann).unwrap();
    assert_eq!(hosts(&contact), ["charlie.example", "bravo.example"]);
    assert!(matches!(contact.preferred, Preferred::Verified { .. }));
    assert_eq!((contact.issued, contact.expires), (NOW, NOW + 30 * DAY));
    let ssi = |index: usize| contact.services[index].ssi.as_ref().unwrap().as_str().to_owned();
    assert_eq!([ssi(0), ssi(1)], [at(charlie, "ann.c"), at(bravo, "ann")]);
    assert_eq!(hosts(&world.contact(&made, &mail()).unwrap()), ["bravo.example"]);
    for absent in [&bob, &carol, &dave, &eve, &frank] {
        assert!(world.contact(&made, absent).is_none());
    }
    assert_eq!(made.out.lines().count(), 3);

    let codes: Vec<(u64, String)> =
        made.findings().into_iter().map(|(_, line, code)| (line, code)).collect();
    let expected: Vec<_> = TOLD.map(|(line, code)| (line, code.to_owned())).into();
    assert_eq!(codes, expected);
    for secret in ["+1555", "+4477", "ann", "bob", "mallory", "5550"] {
        assert!(!made.report.replace(world.folder.path().to_str().unwrap(), "").contains(secret));
    }
    let tally = &made.summary.tally;
    assert_eq!((tally.lines, tally.records, tally.records_with_preference), (22, 2, 1));
    // Every line has one fate.
    let refused: u64 = tally.refused.values().sum();
    assert_eq!(tally.accepted + refused + tally.elsewhere, tally.lines);
}

#[test]
fn an_expired_line_of_a_batch_still_names_a_new_holder() {
    let world = World::new(0);
    let key = world.key("self-issuer");
    let sub = number(1);
    let old = agreed(draft(&sub, "mimi://bravo.example/u/old", NOW - 10 * DAY), &user(1));
    let file = world.file("lines", &[old.sign(&world.key("issuer-2"))]);
    let batch = |new_holder, name: &str| {
        let draft = draft(&sub, "mimi://alpha.example/u/new", NOW - 9 * DAY);
        let mapping = Mapping { iss: SELF_ISSUER.into(), exp: NOW - 1, new_holder, ..draft };
        let line = Batch::line_of(&agreed(mapping, &user(2)));
        world.file(name, &batch_lines(&[line], None, NOW - DAY, &key).0)
    };
    let files = [file, batch(false, "same")];
    let made = world.run("w1", Time::Given(NOW), &files).unwrap();
    assert!(world.contact(&made, &sub).is_some());
    let files = [files[0].clone(), batch(true, "new")];
    let made = world.run("w2", Time::Given(NOW), &files).unwrap();
    assert!(world.contact(&made, &sub).is_none());
    assert_eq!(made.codes(), BTreeMap::from([("expired".into(), 1), ("new_holder".into(), 1)]));
}

/// The lines of a batch file.
fn batch_lines(
    lines: &[String],
    previous: Option<&Batch>,
    iat: u64,
    key: &SigningKey,
) -> (Vec<String>, Batch) {
    let mut body = Body::default();
    lines.iter().for_each(|line| body.update(format!("{line}\n").as_bytes()));
    let (first, batch) = Batch::sign(SELF_ISSUER, &body, previous, iat, key);
    ([&[first], lines].concat(), batch)
}

#[test]
fn batches_count_in_their_chain_only() {
    let world = World::new(0);
    let key = world.key("self-issuer");
    let line = |index: u64| {
        let draft = draft(&number(index), "mimi://alpha.example/u/x", NOW - 5 * DAY);
        Batch::line_of(&agreed(Mapping { iss: SELF_ISSUER.into(), ..draft }, &user(1)))
    };
    let mut previous: Option<Batch> = None;
    let mut contents = Vec::new();
    for index in 1..=4 {
        let (lines, batch) = batch_lines(&[line(index)], previous.as_ref(), NOW - DAY, &key);
        contents.push(lines);
        previous = Some(batch);
    }
    let [b1, b2, b3, b4] =
        [1, 2, 3, 4].map(|n: usize| world.file(&format!("b{n}"), &contents[n - 1]));
    // Broken, a copy, and another one with the same number.
    let broken = world.file("broken2", &[&contents[1][..1], &[line(9)]].concat());
    let cut = world.file("cut2", &contents[1][..1]);
    let copy = world.file("copy2", &contents[1]);
    let (first, _) = (&contents[0], ());
    let one = Batch::open(&first[0], &world.directory, NOW).unwrap();
    let fork = world.file("fork2", &batch_lines(&[line(8)], Some(&one), NOW - DAY, &key).0);
    let sequence = "batch_sequence";
    for (number, (files, found, codes)) in [
        (vec![&b1, &b2, &b3, &b4], vec![1, 2, 3, 4], vec![]),
        (vec![&b4, &b2, &b3, &b1], vec![1, 2, 3, 4], vec![]),
        // One dropped: those after it do not count.
        (vec![&b2, &b3], vec![], vec![("b2", sequence), ("b3", "batch_before")]),
        (vec![&b1, &b3, &b4], vec![1], vec![("b3", sequence), ("b4", "batch_before")]),
        // Replayed.
        (vec![&b1, &b2, &copy], vec![1, 2], vec![("copy2", sequence)]),
        // Broken, alone and beside a good copy.
        (vec![&b1, &broken, &b3], vec![1], vec![("b3", "batch_before"), ("broken2", "batch_body")]),
        (vec![&b1, &cut, &b3], vec![1], vec![("b3", "batch_before"), ("cut2", "batch_body")]),
        (vec![&cut, &b1, &b2, &b3], vec![1, 2, 3], vec![("cut2", "batch_body")]),
        // Two with one number: neither counts.
        (
            vec![&b1, &b2, &fork, &b3],
            vec![1],
            vec![("b2", sequence), ("b3", "batch_before"), ("fork2", sequence)],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let files: Vec<PathBuf> = files.into_iter().cloned().collect();
        let made = world.run(&format!("w{number}"), Time::Given(NOW), &files).unwrap();
        let is_there = |&index: &u64| world.contact(&made, &super::tests::number(index)).is_some();
        let there: Vec<u64> = (1..10).filter(is_there).collect();
        let told: Vec<_> = made.findings();
        let told: Vec<_> =
            told.iter().map(|(file, line, code)| (&file[..], *line, &code[..])).collect();
        let codes: Vec<_> = codes.into_iter().map(|(file, code)| (file, 1, code)).collect();
        assert_eq!((there, told), (found, codes), "case {number}");
    }
}

fn shuffled(lines: &mut [String], mut seed: u64) {
    for index in (1..lines.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        lines.swap(index, (seed >> 33) as usize % (index + 1));
    }
}

#[test]
fn records_depend_neither_on_order_nor_on_threads() {
    let world = World::new(2_000);
    let files = world.sample_files();
    let first = world.run("first", Time::Given(NOW), &files).unwrap();
    assert!(first.summary.tally.records > 1_000, "{:?}", first.summary.tally);
    assert!(first.out.lines().skip(1).is_sorted());
    let text = fs::read_to_string(&files[0]).unwrap();
    for (seed, threads) in [(1, 1), (2, 2), (3, 5)] {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        shuffled(&mut lines, seed);
        // In three files, of which one stands before and one after the batches.
        let third = lines.len() / 3;
        let parts = [&lines[..third], &lines[third..2 * third], &lines[2 * third..]];
        let parts: Vec<PathBuf> =
            (0..3).map(|i| world.file(&format!("part{seed}{i}"), parts[i])).collect();
        let order =
            [&parts[..1], &[files[2].clone()], &parts[1..2], &[files[1].clone()], &parts[2..]];
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let work = format!("work{seed}");
        let made = pool.install(|| world.run(&work, Time::Given(NOW), &order.concat())).unwrap();
        assert!(made.out == first.out, "seed {seed}, {threads} threads");
        assert_eq!(made.summary.merkle_root, first.summary.merkle_root);
        assert_eq!(made.codes(), first.codes());
        assert_eq!(made.summary.tally, first.summary.tally);
    }
}

#[test]
fn a_run_that_is_killed_after_any_write_gives_the_same_bytes() {
    let world = World::new(400);
    let files = world.sample_files();
    let whole = world.run("whole", Time::Given(NOW), &files).unwrap();
    let mut kills = 0;
    for steps in 0.. {
        let work = format!("kill{steps}");
        STEPS_LEFT.set(steps);
        let killed = world.run(&work, Time::Clock(NOW + 10), &files);
        STEPS_LEFT.set(u32::MAX);
        if let Ok(made) = killed {
            assert!(made.out == whole.out && !made.summary.resumed);
            break;
        }
        kills += 1;
        // Some minutes later, and killed a second time on the way.
        STEPS_LEFT.set(5);
        let _ = world.run(&work, Time::Clock(NOW + 600), &files);
        STEPS_LEFT.set(u32::MAX);
        let made = world.run(&work, Time::Clock(NOW + 1_200), &files).unwrap();
        // Killed before anything was decided, it begins at its own time.
        if made.summary.issued == NOW {
            assert!(made.out == whole.out, "killed after {steps} steps");
            assert!(made.report == whole.report && made.filter == whole.filter);
            // Keys may have been derived before the kill.
            let tally = Tally { keys_from_cache: 0, ..made.summary.tally };
            assert_eq!(tally, whole.summary.tally);
            assert_eq!(made.summary.merkle_root, whole.summary.merkle_root);
        } else {
            assert!(steps < 2 || made.summary.issued == NOW + 1_200, "{steps}");
        }
    }
    assert!(kills > 20, "{kills}");
}

#[test]
fn a_minute_seals_one_thing_only() {
    let world = World::new(300);
    let files = world.sample_files();
    let work = |time, files: &[PathBuf]| world.run("work", time, files);
    let first = work(Time::Given(NOW), &files).unwrap();
    // The same again, within the minute.
    let again = work(Time::Clock(NOW + 59), &files).unwrap();
    assert!(again.out == first.out);
    assert_eq!(again.summary.tally.keys_from_cache, again.summary.tally.records);
    // Other input in the same minute, and whatever in an earlier one.
    let other = work(Time::Given(NOW + 1), &files[..1]);
    assert!(matches!(other, Err(MergeError::SameMinute)), "{other:?}");
    for time in [NOW - 1, NOW - 60] {
        let early = work(Time::Given(time), &files);
        assert!(matches!(early, Err(MergeError::OlderMinute { .. })), "{early:?}");
    }
    let text = fs::read_to_string(&files[0]).unwrap();
    let (fewer, _) = text.trim_end().rsplit_once('\n').unwrap();
    let fewer = [world.file("fewer", &[fewer.to_owned()]), files[1].clone(), files[2].clone()];
    // Whoever waits a minute and runs it again is not refused again.
    let waited = |name: &str, refused_at, later| {
        assert!(world.run(name, Time::Given(NOW), &files).is_ok());
        assert!(world.run(name, Time::Clock(refused_at), &fewer).is_err());
        let made = world.run(name, Time::Clock(later), &fewer).unwrap();
        assert_eq!(made.summary.issued, later);
    };
    waited("same", NOW + 20, NOW + 60);
    waited("older", NOW - 60, NOW + 60);
    let next = work(Time::Given(NOW + 60), &fewer).unwrap();
    assert!(next.summary.tally.records < first.summary.tally.records);
    assert_eq!(next.summary.tally.keys_from_cache, next.summary.tally.records);
    // Whoever leaves batches out would leave out what was withdrawn in them.
    let without = work(Time::Given(NOW + 120), &files[..2]);
    let expected = |found: &MergeError| {
        matches!(found, MergeError::BatchesMissing { found: 1, expected: 2, .. })
    };
    assert!(without.as_ref().is_err_and(expected), "{without:?}");
    // Not one key has sealed two texts under one minute.
    let mut values = BTreeMap::new();
    for made in [&first, &again, &next] {
        for line in made.out.lines().skip(1) {
            let key = line.split(',').next().unwrap();
            let value = made.value(key).unwrap();
            let issued: [u8; 4] = *value.first_chunk().unwrap();
            let known = values.entry((key.to_owned(), issued)).or_insert_with(|| value.clone());
            assert!(*known == value);
        }
    }
}

#[test]
fn a_minute_that_was_decided_stays_so_after_a_kill() {
    let world = World::new(300);
    let files = world.sample_files();
    // Steps: the run is noted (2), the statements are checked (2), the minute is noted (2).
    STEPS_LEFT.set(6);
    assert!(world.run("work", Time::Given(NOW), &files).is_err());
    STEPS_LEFT.set(u32::MAX);
    let state = fs::read_to_string(world.path("work").join("state.json")).unwrap();
    assert!(state.contains("\"issued\""), "{state}");
    assert!(!world.path("work.csv").exists());
    let other = world.run("work", Time::Given(NOW), &files[..1]);
    assert!(matches!(other, Err(MergeError::SameMinute)), "{other:?}");
    assert!(world.run("work", Time::Given(NOW), &files).is_ok());
}

#[test]
fn an_interrupted_run_goes_on_only_with_its_own_arguments_and_files() {
    let world = World::new(300);
    let files = world.sample_files();
    let killed = |work: &str| {
        STEPS_LEFT.set(9);
        assert!(world.run(work, Time::Clock(NOW), &files).is_err());
        STEPS_LEFT.set(u32::MAX);
    };
    killed("same");
    let made = world.run("same", Time::Clock(NOW + DAY - 1), &files).unwrap();
    assert!(made.summary.resumed && made.summary.issued == NOW);
    killed("late");
    let made = world.run("late", Time::Clock(NOW + DAY), &files).unwrap();
    assert!(!made.summary.resumed && made.summary.issued == NOW + DAY);
    killed("time");
    let made = world.run("time", Time::Given(NOW + 60), &files).unwrap();
    assert!(!made.summary.resumed && made.summary.issued == NOW + 60);
    killed("fewer");
    let made = world.run("fewer", Time::Clock(NOW + 60), &files[1..]).unwrap();
    assert!(!made.summary.resumed);
    // A file that changed, even to the same length.
    killed("changed");
    let mut bytes = fs::read(&files[0]).unwrap();
    bytes.swap(10, 11);
    fs::write(&files[0], bytes).unwrap();
    let made = world.run("changed", Time::Clock(NOW + 60), &files).unwrap();
    assert!(!made.summary.resumed);
}

#[test]
fn the_work_folder_is_the_owners_and_of_one_database_and_key() {
    let world = World::new(200);
    let files = world.sample_files();
    world.run("work", Time::Given(NOW), &files).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let work = world.path("work");
    let mut pending = vec![work.clone()];
    let mut seen = 0;
    while let Some(folder) = pending.pop() {
        assert_eq!(mode(&folder), 0o700);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            seen += 1;
            if path.is_dir() {
                pending.push(path);
            } else {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
            }
        }
    }
    assert!(seen > 3);
    // Nothing of the run is left but what the next one needs.
    assert!(!work.join("run.json").exists() && !work.join("buckets").exists());
    let other = World { folder: world.folder, ..World::with(0, None) };
    let refused = other.run("work", Time::Given(NOW + 60), &files);
    assert!(matches!(refused, Err(MergeError::OtherWork { .. })), "{refused:?}");
}

#[test]
fn derived_keys_of_another_blinding_key_or_damaged_ones_are_not_used() {
    let world = World::new(200);
    let files = world.sample_files();
    let first = world.run("work", Time::Given(NOW), &files).unwrap();
    assert_eq!(first.summary.tally.keys_from_cache, 0);
    let keys: Vec<PathBuf> = fs::read_dir(world.path("work").join("keys"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for (at, path) in keys.iter().enumerate() {
        let mut bytes = fs::read(path).unwrap();
        let position = [20, bytes.len() / 2, bytes.len() - 1][at % 3];
        bytes[position] ^= 1;
        fs::write(path, &bytes[..]).unwrap();
    }
    let made = world.run("work", Time::Given(NOW), &files).unwrap();
    assert!(made.out == first.out);
    assert_eq!(made.summary.tally.keys_from_cache, 0);
    // Whole files, and of a folder that another key has written.
    let other = World::new(200);
    other.run("work", Time::Given(NOW), &other.sample_files()).unwrap();
    let (from, to) = (other.path("work").join("keys"), world.path("work").join("keys"));
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let made = world.run("work", Time::Given(NOW), &files).unwrap();
    assert!(made.out == first.out);
    assert_eq!(made.summary.tally.keys_from_cache, 0);
}

#[test]
fn without_a_blinding_key_values_are_records_under_identifiers() {
    let world = World::with(300, None);
    let made = world.run("work", Time::Given(NOW), &world.sample_files()).unwrap();
    assert!(made.summary.tally.records > 100);
    let mut before = "";
    for line in made.out.lines().skip(1) {
        let sii = line.split(',').next().unwrap();
        assert!(before < sii);
        before = sii;
        let sii = Identifier::parse(sii, None).unwrap();
        let value = made.value(sii.as_str()).unwrap();
        crate::discovery::open::open(&sii, &value, &world.directory, NOW).unwrap();
    }
}

#[test]
fn a_sample_opens_in_every_record_and_refuses_what_it_says() {
    let world = World::new(1_000);
    let files = world.sample_files();
    let made = world.run("work", Time::Given(NOW), &files).unwrap();
    let tally = &made.summary.tally;
    assert_eq!(tally.lines, 1_000);
    let refused: u64 = tally.refused.values().sum();
    assert_eq!(tally.accepted + refused + tally.elsewhere, tally.lines);
    assert_eq!(
        made.report.lines().count() as u64,
        refused + tally.without_effect.values().sum::<u64>()
    );
    for code in ["withdrawn", "new_holder", "replaced", "region"] {
        assert!(tally.without_effect.contains_key(code), "{code}: {:?}", tally.without_effect);
    }
    for code in ["expired", "out_of_remit", "forged", "user_forged", "future", "preference_key"] {
        assert!(tally.refused.contains_key(code), "{code}: {:?}", tally.refused);
    }
    assert!(tally.records_with_preference > 0);
    assert!(tally.value_bytes_longest < VALUE_BYTES_DEFAULT as u64);
    assert_eq!(made.out.lines().count() as u64, tally.records + 1);
}

#[test]
fn a_filter_covers_the_records_and_few_others() {
    let world = World::new(1_000);
    let made = world.run("work", Time::Given(NOW), &world.sample_files()).unwrap();
    let filter = world.filter(&made);
    let (count, written) = (made.summary.tally.records, made.summary.filter.unwrap().count);
    assert_eq!((filter.epoch(), filter.count(), written), (FILTER_EPOCH, count, count));
    let mut keys = made.out.lines().skip(1).map(|line| line.split(',').next().unwrap());
    assert!(count > 100 && keys.all(|key| filter.covers(key)));
    // About one in 256 of what is not there, and nothing of identifiers.
    assert!((0..1_000).filter(|&last| filter.covers(number(last).as_str())).count() < 50);
}

#[test]
fn records_end_with_the_first_of_their_mappings() {
    let world = World::new(0);
    let issuer = world.key("issuer-2");
    let (bravo, charlie) = ("mimi://bravo.example/u/a", "mimi://charlie.example/u/a");
    let lines: Vec<String> = [(1, 3600), (2, DAY), (3, 3 * DAY + 7), (4, 30 * DAY), (5, 90 * DAY)]
        .into_iter()
        .flat_map(|(index, left)| {
            let exp = NOW + left;
            let mapping = |ssi| draft(&number(index), ssi, NOW - DAY);
            let short = Mapping { exp, ..mapping(bravo) };
            [short, mapping(charlie)].map(|mapping| agreed(mapping, &user(1)).sign(&issuer))
        })
        .collect();
    let made = world.run("work", Time::Given(NOW), &[world.file("lines", &lines)]).unwrap();
    for (index, days) in [(1, 1), (2, 1), (3, 3), (4, 30), (5, 30)] {
        let contact = world.contact(&made, &number(index)).unwrap();
        assert_eq!(contact.expires, NOW + days * DAY, "{index}");
    }
}

#[test]
fn what_does_not_fit_is_counted() {
    let world = World::new(0);
    let issuer = world.key("issuer-2");
    let sub = number(1);
    let long = "h".repeat(90);
    let lines: Vec<String> = ["bravo", "charlie", "delta"]
        .iter()
        .map(|name| draft(&sub, &format!("mimi://{name}.example/u/{long}"), NOW - DAY))
        .map(|mapping| agreed(mapping, &user(1)).sign(&issuer))
        .collect();
    let made = world.run("work", Time::Given(NOW), &[world.file("lines", &lines)]).unwrap();
    let tally = &made.summary.tally;
    assert_eq!((tally.dropped_key_hashes, tally.dropped_handles), (3, 2));
    assert!(tally.value_bytes_longest < 248);
    let contact = world.contact(&made, &sub).unwrap();
    let with_ssi = contact.services.iter().filter(|service| service.ssi.is_some()).count();
    assert_eq!((contact.services.len(), with_ssi), (3, 1));
}

#[test]
fn options_that_cannot_be_are_refused() {
    let world = World::new(0);
    let plain = World::with(0, None);
    let other = BlindKey::generate().unwrap();
    let wrong_key = user(1);
    let file = world.file("lines", &[]);
    let files = [file];
    let (work, out) = (world.path("work"), world.path("out"));
    let options = || Options {
        directory: &world.directory,
        database: sample::DATABASE,
        record_key: &world.record_key,
        blind: world.blind.as_ref(),
        value_bytes: VALUE_BYTES_DEFAULT,
        time: Time::Given(NOW),
        work: &work,
        out: &out,
        report: None,
        filter: None,
        files: &files,
    };
    let missing = [world.path("missing")];
    let filter = Some(FilterOptions { path: &out, key: &wrong_key, epoch: 1 });
    let unsealed = Options { directory: &plain.directory, blind: None, filter, ..options() };
    for (options, expected) in [
        (Options { files: &[], ..options() }, "no input"),
        (Options { files: &missing, ..options() }, "cannot read"),
        (Options { database: "other", ..options() }, "has no database \"other\""),
        (Options { record_key: &wrong_key, ..options() }, "the record key is none"),
        (Options { blind: Some(&other), ..options() }, "the blinding key is not"),
        (Options { blind: None, ..options() }, "give it (--blind)"),
        (Options { filter, ..options() }, "is not the operator key"),
        (unsealed, "a filter is over blinded keys only"),
        (Options { directory: &plain.directory, ..options() }, "the blinding key is not"),
        (Options { value_bytes: RECORD_VALUE_BYTES_MIN - 1, ..options() }, "expected at least"),
        (Options { time: Time::Given(10), ..options() }, "is before 2020"),
        (Options { time: Time::Given(NOW + 5 * 365 * DAY), ..options() }, "the record key is none"),
    ] {
        let error = super::run(&options, &ProgressBar::hidden()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let _held = WorkDir::enter(&work).unwrap();
    let error = super::run(&options(), &ProgressBar::hidden()).unwrap_err();
    assert!(matches!(error, MergeError::Locked { .. }));
    drop(_held);
    assert_eq!(super::run(&options(), &ProgressBar::hidden()).unwrap().tally, Tally::default());
    assert_eq!(fs::read_to_string(&out).unwrap(), "sii,value\n");
}
