//! Batches: files in which a provider speaks for its own millions with one signature. Users still
//! sign each mapping.
//!
//! The first line is a JWS (`typ` [`BATCH_TYP`]) over the number of lines that follow and their
//! SHA-256. Each line is the claims of a mapping or a withdrawal with the member `typ`. A batch has
//! the number after the one before it, and the SHA-256 of that one's first line, so that none can
//! be dropped, replayed or reordered. Files are read by the caller.

use std::borrow::Cow;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::claims::{self, Kind, Presence};
use super::directory::Directory;
use super::jws::{self, Token};
use super::statement::{
    self, Code, MAPPING_TYP, Mapping, Refusal, Statement, WITHDRAWAL_TYP, Withdrawal,
};
use crate::limits::JWS_BYTES_MAX;

/// The `typ` of the first line of a batch.
pub const BATCH_TYP: &str = "sotto-batch+jwt";

/// The first line of a batch, whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Domain of the issuer, which every line repeats.
    pub iss: String,
    /// Number of lines after the first.
    pub count: u64,
    /// SHA-256 of all bytes after the first line and its line feed.
    pub sha256: [u8; 32],
    /// Its number, from 1.
    pub seq: u64,
    /// SHA-256 of the first line of the batch before, without its line feed; none for number 1.
    pub previous: Option<[u8; 32]>,
    /// When it was signed.
    pub iat: u64,
    /// SHA-256 of this first line.
    pub digest: [u8; 32],
}

/// Counts and hashes the lines of a batch as they are read.
#[derive(Clone, Default)]
pub struct Body {
    hash: Sha256,
    count: u64,
    is_open: bool,
}

#[derive(Serialize, Deserialize)]
struct BatchClaims {
    iss: String,
    count: u64,
    sha256: String,
    seq: u64,
    #[serde(
        default,
        deserialize_with = "claims::present",
        skip_serializing_if = "Option::is_none"
    )]
    previous: Option<String>,
    iat: u64,
}

const BATCH_MEMBERS: &claims::Members = &[
    ("iss", Kind::Text, Presence::Required),
    ("count", Kind::Number, Presence::Required),
    ("sha256", Kind::Text, Presence::Required),
    ("seq", Kind::Number, Presence::Required),
    ("previous", Kind::Text, Presence::Optional),
    ("iat", Kind::Number, Presence::Required),
];

impl Batch {
    /// Whether a file that begins with this line is a batch, or meant to be one.
    pub fn is_first_line(line: &str) -> bool {
        jws::peek_typ(line).is_ok_and(|typ| typ == BATCH_TYP)
    }

    /// Reads the first line of a file, without its line feed, and verifies it.
    ///
    /// # Errors
    /// The reason to refuse the whole batch.
    pub fn open(first_line: &str, directory: &Directory, now: u64) -> Result<Self, Refusal> {
        let (token, batch) = Self::read(first_line)?;
        let issuer = statement::issuer_of(directory, &batch.iss)?;
        statement::check_not_future("iat", batch.iat, now)?;
        statement::verify(&token, issuer, batch.iat)?;
        Ok(batch)
    }

    /// Reads the first line of a batch of one's own, to sign the next one. Nothing is verified.
    ///
    /// # Errors
    /// What about its form is wrong.
    pub fn of_own(first_line: &str) -> Result<Self, Refusal> {
        Self::read(first_line).map(|(_, batch)| batch)
    }

    fn read(first_line: &str) -> Result<(Token, Self), Refusal> {
        let token = jws::parse(first_line, BATCH_TYP, JWS_BYTES_MAX)?;
        let claims: BatchClaims = claims::read_object(&token.payload, BATCH_MEMBERS)?;
        let previous = claims.previous.map(|text| claims::read_bytes("previous", &text));
        let previous = previous.transpose()?;
        if claims.seq == 0 || (claims.seq == 1) != previous.is_none() {
            let with = if previous.is_some() { "with" } else { "without" };
            return Err(Refusal::new(
                Code::BatchSequence,
                format!("seq {} {with} previous", claims.seq),
                "seq 1 without previous, or a higher one with it",
            ));
        }
        let batch = Self {
            iss: claims.iss,
            count: claims.count,
            sha256: claims::read_bytes("sha256", &claims.sha256)?,
            seq: claims.seq,
            previous,
            iat: claims.iat,
            digest: Sha256::digest(first_line).into(),
        };
        Ok((token, batch))
    }

    /// Checks that this is the next batch of its issuer after `previous`, or the first one.
    ///
    /// # Errors
    /// [`Code::BatchSequence`]: a batch was dropped, repeated, reordered or replaced.
    pub fn follows(&self, previous: Option<&Self>) -> Result<(), Refusal> {
        let next = previous.map_or(1, |previous| previous.seq.saturating_add(1));
        let expected = format!("batch {next} of {}, in its place after the one before", self.iss);
        let refused = |found| Err(Refusal::new(Code::BatchSequence, found, expected));
        if previous.is_some_and(|previous| previous.iss != self.iss) {
            return refused("a batch of another issuer before it".into());
        }
        if self.seq != next {
            return refused(format!("batch {}", self.seq));
        }
        if self.previous != previous.map(|previous| previous.digest) {
            return refused(format!("batch {} after another batch than the one before", self.seq));
        }
        Ok(())
    }

    /// Checks that the lines of the file are those that were signed.
    ///
    /// # Errors
    /// [`Code::BatchBody`].
    pub fn check_body(&self, body: &Body) -> Result<(), Refusal> {
        let refused =
            |found: String, expected: String| Err(Refusal::new(Code::BatchBody, found, expected));
        if body.count() != self.count {
            return refused(
                format!("{} lines after the first", body.count()),
                format!("{} lines; send the whole file again", self.count),
            );
        }
        if body.sha256() != self.sha256 {
            let found = "lines with another SHA-256 than the first line signs";
            return refused(
                found.into(),
                "the lines as they were signed; send the file again".into(),
            );
        }
        Ok(())
    }

    /// Reads a line after the first, without its line feed, as [`Statement::read`] would if the
    /// issuer had signed it.
    ///
    /// # Errors
    /// The first reason to refuse the line.
    pub fn read_line(
        &self,
        line: &str,
        directory: &Directory,
        now: u64,
    ) -> Result<Statement, Refusal> {
        let statement = Self::read_form(&self.iss, self.iat, line)?;
        match &statement {
            Statement::Mapping(mapping) => {
                mapping.check(directory, now)?;
                mapping.verify_consent()?;
            }
            Statement::Withdrawal(withdrawal) => withdrawal.check(directory, now)?,
            Statement::Preference(_) => {} // No line of a batch is one.
        }
        Ok(statement)
    }

    /// Reads a line of a batch by `iss` that was signed at `iat`, and checks no more than that it
    /// may be in it.
    ///
    /// # Errors
    /// The first reason why it may not.
    pub fn read_form(iss: &str, iat: u64, line: &str) -> Result<Statement, Refusal> {
        statement::check_length(line)?;
        match &*Typ::of(line)? {
            MAPPING_TYP => {
                let mapping = Mapping::from_claims(line.as_bytes())?;
                check_line(iss, iat, Some(&mapping.iss), mapping.iat)?;
                Ok(Statement::Mapping(mapping))
            }
            WITHDRAWAL_TYP => {
                let withdrawal = Withdrawal::from_claims(line.as_bytes())?;
                check_line(iss, iat, withdrawal.by.issuer(), withdrawal.iat)?;
                Ok(Statement::Withdrawal(withdrawal))
            }
            _ => {
                let expected = format!("{MAPPING_TYP} or {WITHDRAWAL_TYP} as typ");
                Err(Refusal::new(Code::Header, "a line of another typ", expected))
            }
        }
    }

    /// Signs a batch with this body, to follow `previous`: its first line, and what it says.
    pub fn sign(
        iss: &str,
        body: &Body,
        previous: Option<&Self>,
        iat: u64,
        key: &SigningKey,
    ) -> (String, Self) {
        let mut batch = Self {
            iss: iss.to_owned(),
            count: body.count(),
            sha256: body.sha256(),
            seq: previous.map_or(1, |previous| previous.seq.saturating_add(1)),
            previous: previous.map(|previous| previous.digest),
            iat,
            digest: [0; 32],
        };
        let claims = BatchClaims {
            iss: batch.iss.clone(),
            count: batch.count,
            sha256: jws::base64url(&batch.sha256),
            seq: batch.seq,
            previous: batch.previous.map(|digest| jws::base64url(&digest)),
            iat,
        };
        let first_line = jws::sign(BATCH_TYP, claims::to_json(&claims).as_bytes(), key);
        batch.digest = Sha256::digest(&first_line).into();
        (first_line, batch)
    }

    /// The line of a mapping.
    pub fn line_of(mapping: &Mapping) -> String {
        with_typ(MAPPING_TYP, &mapping.to_claims())
    }

    /// The line of a withdrawal.
    pub fn line_of_withdrawal(withdrawal: &Withdrawal) -> String {
        with_typ(WITHDRAWAL_TYP, &withdrawal.to_claims())
    }
}

/// Whether a line by this issuer, if by one, and from this time may be in a batch of `iss` from
/// `iat`.
fn check_line(iss: &str, iat: u64, by: Option<&str>, at: u64) -> Result<(), Refusal> {
    if by != Some(iss) {
        let found = if by.is_some() { "a line of another issuer" } else { "a user's withdrawal" };
        let expected = format!("lines of {iss}, who signs the batch; send others apart");
        return Err(Refusal::new(Code::BatchIssuer, found, expected));
    }
    if at > iat {
        let expected = format!("iat no later than that of the batch ({iat})");
        return Err(Refusal::new(Code::Future, format!("a line with iat {at}"), expected));
    }
    Ok(())
}

/// Claims with a first member `typ`. They are an object with other members.
fn with_typ(typ: &str, claims: &str) -> String {
    format!("{{\"typ\":\"{typ}\",{}", &claims[1..])
}

#[derive(Deserialize)]
struct Typ<'a> {
    #[serde(borrow)]
    typ: Cow<'a, str>,
}

impl<'a> Typ<'a> {
    fn of(line: &'a str) -> Result<Cow<'a, str>, Refusal> {
        const MEMBERS: &claims::Members = &[("typ", Kind::Text, Presence::Required)];
        let read: Result<Self, _> = serde_json::from_str(line);
        read.map(|read| read.typ).map_err(|_| claims::explain(line.as_bytes(), MEMBERS))
    }
}

impl Body {
    /// Adds the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        self.hash.update(bytes);
        self.count += bytes.iter().filter(|&&b| b == b'\n').count() as u64;
        self.is_open = *last != b'\n';
    }

    /// Number of lines so far. The last one may lack its line feed.
    pub fn count(&self) -> u64 {
        self.count + u64::from(self.is_open)
    }

    /// SHA-256 of the bytes so far.
    pub fn sha256(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::discovery::sample::fixture::*;
    use crate::discovery::statement::{Consent, WithdrawnBy};

    fn body(lines: &[String]) -> Body {
        let mut body = Body::default();
        lines.iter().for_each(|line| body.update(format!("{line}\n").as_bytes()));
        body
    }

    /// A mapping by the provider for itself.
    fn own() -> Mapping {
        agreed(Mapping {
            iss: SELF_ISSUER.into(),
            ssi: statement::Ssi::new(SELF_ISSUER, "alice").unwrap(),
            ..unsigned()
        })
    }

    fn sign(lines: &[String], previous: Option<&Batch>) -> (String, Batch) {
        Batch::sign(SELF_ISSUER, &body(lines), previous, NOW, &signers().self_issuer)
    }

    fn code<T>(result: Result<T, Refusal>) -> Option<Code> {
        result.err().map(|refusal| refusal.code)
    }

    fn withdrawal(by: WithdrawnBy) -> Withdrawal {
        Withdrawal { by, sub: unsigned().sub, ssi: None, jti: "1".into(), iat: NOW }
    }

    #[test]
    fn a_batch_is_opened_as_it_was_signed() {
        let lines = [
            Batch::line_of(&own()),
            Batch::line_of_withdrawal(&withdrawal(WithdrawnBy::Issuer(SELF_ISSUER.into()))),
        ];
        let (line, signed) = sign(&lines, None);
        assert!(Batch::is_first_line(&line));
        assert!(!Batch::is_first_line(&lines[0]));
        assert!(!Batch::is_first_line(&own().sign(&signers().self_issuer)));
        let batch = Batch::open(&line, directory(), NOW).unwrap();
        assert_eq!(batch, signed);
        assert_eq!((batch.count, batch.seq, batch.previous), (2, 1, None));
        batch.check_body(&body(&lines)).unwrap();
        let read = |line: &String| batch.read_line(line, directory(), NOW);
        assert_eq!(read(&lines[0]), Ok(Statement::Mapping(own())));
        assert!(matches!(read(&lines[1]), Ok(Statement::Withdrawal(_))));
        // A batch is not a statement.
        assert_eq!(code(Statement::read(&line, directory(), NOW)), Some(Code::Header));
    }

    #[test]
    fn the_first_line_is_checked() {
        let digest = jws::base64url(&[7; 32]);
        let good =
            json!({ "iss": SELF_ISSUER, "count": 0, "sha256": digest, "seq": 1, "iat": NOW });
        let open = |claims: &Value, key: &SigningKey| {
            let line = jws::sign(BATCH_TYP, claims.to_string().as_bytes(), key);
            code(Batch::open(&line, directory(), NOW))
        };
        let key = &signers().self_issuer;
        assert_eq!(open(&good, key), None);
        assert_eq!(open(&good, &signers().issuer), Some(Code::UnknownKey));
        let cases = [
            ("iss", json!("other.example"), Some(Code::UnknownIssuer)),
            ("iss", json!(ISSUER), Some(Code::UnknownKey)),
            ("iss", json!(1), Some(Code::Claim)),
            ("count", json!(-1), Some(Code::Claim)),
            ("count", json!(u64::MAX), None),
            ("sha256", json!("AA"), Some(Code::Claim)),
            ("sha256", json!(null), Some(Code::Claim)),
            ("seq", json!(0), Some(Code::BatchSequence)),
            ("seq", json!(2), Some(Code::BatchSequence)),
            ("seq", json!(1.5), Some(Code::Claim)),
            ("previous", json!(digest), Some(Code::BatchSequence)),
            ("previous", json!(null), Some(Code::Claim)),
            ("previous", json!("AA"), Some(Code::Claim)),
            ("iat", json!(NOW + 300), None),
            ("iat", json!(NOW + 301), Some(Code::Future)),
            ("iat", json!(NOW - 3 * 365 * DAY), Some(Code::UnknownKey)),
            ("later", json!({}), None),
        ];
        for (name, value, expected) in cases {
            let mut claims = good.clone();
            claims[name] = value.clone();
            assert_eq!(open(&claims, key), expected, "{name} {value}");
        }
        for name in ["iss", "count", "sha256", "seq", "iat"] {
            let mut claims = good.clone();
            claims.as_object_mut().unwrap().remove(name);
            assert_eq!(open(&claims, key), Some(Code::Claim), "{name}");
        }
        // The claims under another type, cut, and changed.
        let text = good.to_string();
        for typ in [MAPPING_TYP, WITHDRAWAL_TYP, "JWT"] {
            let line = jws::sign(typ, text.as_bytes(), key);
            assert_eq!(code(Batch::open(&line, directory(), NOW)), Some(Code::Header));
        }
        let line = jws::sign(BATCH_TYP, text.as_bytes(), key);
        for end in 0..line.len() {
            assert!(Batch::open(&line[..end], directory(), NOW).is_err(), "cut at {end}");
            let mut bytes = line.clone().into_bytes();
            bytes[end] = if bytes[end] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(Batch::open(&changed, directory(), NOW).is_err(), "changed at {end}");
        }
    }

    #[test]
    fn batches_cannot_be_dropped_replayed_reordered_or_replaced() {
        let lines = |n: u8| [format!("{{\"n\":{n}}}")];
        let (_, first) = sign(&lines(1), None);
        let (_, second) = sign(&lines(2), Some(&first));
        let (_, third) = sign(&lines(3), Some(&second));
        first.follows(None).unwrap();
        second.follows(Some(&first)).unwrap();
        third.follows(Some(&second)).unwrap();
        let (_, other_first) = sign(&lines(9), None);
        let (_, other_second) = sign(&lines(2), Some(&other_first));
        let (_, of_other_issuer) =
            Batch::sign(ISSUER, &body(&lines(1)), None, NOW, &signers().issuer);
        let last = Batch { seq: u64::MAX, ..first.clone() };
        for (name, batch, previous) in [
            ("the first is dropped", &second, None),
            ("the second is dropped", &third, Some(&first)),
            ("replayed at once", &first, Some(&first)),
            ("replayed", &second, Some(&second)),
            ("replayed later", &first, Some(&second)),
            ("reordered", &second, Some(&third)),
            ("another one before", &second, Some(&other_first)),
            ("of another chain", &other_second, Some(&first)),
            ("of another issuer", &second, Some(&of_other_issuer)),
            ("after the last number", &first, Some(&last)),
            ("after the last number again", &last, Some(&last)),
        ] {
            assert_eq!(code(batch.follows(previous)), Some(Code::BatchSequence), "{name}");
        }
    }

    #[test]
    fn no_other_body_is_accepted() {
        let lines = ["{\"a\":1}", "{\"b\":2}"].map(str::to_owned);
        let (_, batch) = sign(&lines, None);
        let check = |text: &str| {
            let mut body = Body::default();
            body.update(text.as_bytes());
            code(batch.check_body(&body))
        };
        let text = "{\"a\":1}\n{\"b\":2}\n";
        assert_eq!(check(text), None);
        for end in 0..text.len() {
            assert_eq!(check(&text[..end]), Some(Code::BatchBody), "cut at {end}");
            let mut bytes = text.to_owned().into_bytes();
            bytes[end] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(check(&changed), Some(Code::BatchBody), "changed at {end}");
        }
        for other in
            ["{\"b\":2}\n{\"a\":1}\n", "{\"a\":1}\n{\"b\":2}\n\n", "{\"a\":1}\r\n{\"b\":2}\r\n"]
        {
            assert_eq!(check(other), Some(Code::BatchBody));
        }
    }

    #[test]
    fn a_body_is_the_same_in_any_pieces() {
        let text = b"one\ntwo\n\nthree";
        let mut whole = Body::default();
        whole.update(text);
        assert_eq!(whole.count(), 4);
        assert_eq!(whole.sha256(), <[u8; 32]>::from(Sha256::digest(text)));
        for size in 1..text.len() {
            let mut pieces = Body::default();
            text.chunks(size).for_each(|piece| pieces.update(piece));
            pieces.update(b"");
            assert_eq!((pieces.count(), pieces.sha256()), (whole.count(), whole.sha256()));
        }
        assert_eq!(Body::default().count(), 0);
        assert_eq!(Body::default().sha256(), <[u8; 32]>::from(Sha256::digest(b"")));
    }

    #[test]
    fn each_line_is_checked_as_if_it_were_signed() {
        let (_, batch) = sign(&[], None);
        let early = Batch { iat: NOW - 2 * DAY, ..batch.clone() };
        let read = |batch: &Batch, line: &str| code(batch.read_line(line, directory(), NOW));
        let line = |change: fn(&mut Mapping)| {
            let mut mapping = own();
            change(&mut mapping);
            Batch::line_of(&mapping)
        };
        let withdrawn = |by| Batch::line_of_withdrawal(&withdrawal(by));
        let cases = [
            ("as it is", line(|_| {}), None),
            ("another's word", line(|m| m.iss = ISSUER.into()), Some(Code::BatchIssuer)),
            ("no consent", line(|m| m.user = None), Some(Code::NoConsent)),
            ("copied consent", line(|m| m.iat -= 1), Some(Code::WeakProof)),
            (
                "copied consent, old proof",
                line(|m| (m.iat, m.proof_at) = (m.iat - 1, 0)),
                Some(Code::UserForged),
            ),
            ("expired", line(|m| m.exp = NOW), Some(Code::Expired)),
            (
                "out of remit",
                line(|m| m.ssi = statement::Ssi::new(PROVIDERS[1], "alice").unwrap()),
                Some(Code::OutOfRemit),
            ),
            (
                "another key's signature",
                line(|m| m.user = Some(Consent::new(b"", &user(1)))),
                Some(Code::UserForged),
            ),
            ("later than the batch", line(|m| m.iat = NOW + 1), Some(Code::Future)),
            ("withdrawal", withdrawn(WithdrawnBy::Issuer(SELF_ISSUER.into())), None),
            (
                "another's withdrawal",
                withdrawn(WithdrawnBy::Issuer(ISSUER.into())),
                Some(Code::BatchIssuer),
            ),
            (
                "a user's withdrawal, which has no signature here",
                withdrawn(WithdrawnBy::User(user(1).verifying_key().to_bytes())),
                Some(Code::BatchIssuer),
            ),
            (
                "no authority",
                withdrawn(WithdrawnBy::Authority(SELF_ISSUER.into())),
                Some(Code::OutOfRemit),
            ),
            ("no typ", own().to_claims(), Some(Code::Claim)),
            ("another typ", with_typ(BATCH_TYP, &own().to_claims()), Some(Code::Header)),
            (
                "the typ of the other",
                with_typ(WITHDRAWAL_TYP, &own().to_claims()),
                Some(Code::Claim),
            ),
            ("two typs", with_typ(MAPPING_TYP, &line(|_| {})), Some(Code::Claim)),
            ("a token", own().sign(&signers().self_issuer), Some(Code::Malformed)),
            ("nothing", String::new(), Some(Code::Malformed)),
            ("a carriage return", line(|_| {}) + "\rx", Some(Code::Malformed)),
            ("too long", " ".repeat(JWS_BYTES_MAX + 1), Some(Code::TooLong)),
        ];
        for (name, line, expected) in cases {
            assert_eq!(read(&batch, &line), expected, "{name}");
        }
        // A batch that was signed before.
        assert_eq!(read(&early, &Batch::line_of(&own())), Some(Code::Future));
        let line = withdrawn(WithdrawnBy::Issuer(SELF_ISSUER.into()));
        assert_eq!(read(&early, &line), Some(Code::Future));
        let line = Batch::line_of(&own());
        for end in 0..line.len() {
            assert!(read(&batch, &line[..end]).is_some(), "cut at {end}");
        }
    }

    #[test]
    fn a_batch_of_the_authority_withdraws_within_its_prefixes() {
        let (_, batch) = Batch::sign(AUTHORITY, &body(&[]), None, NOW, &signers().authority);
        for (sub, expected) in [
            ("+15550000001", None),
            ("+447700900000", Some(Code::OutOfRemit)),
            ("a@example.com", Some(Code::OutOfRemit)),
        ] {
            let sub = crate::discovery::identifier::Identifier::parse(sub, None).unwrap();
            let by = WithdrawnBy::Authority(AUTHORITY.into());
            let line = Batch::line_of_withdrawal(&Withdrawal { sub, ..withdrawal(by) });
            assert_eq!(code(batch.read_line(&line, directory(), NOW)), expected);
        }
    }
}
