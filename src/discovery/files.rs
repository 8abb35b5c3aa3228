//! Files of statements as people handle them: signed one by one or as a batch, verified, and shown.
//! Merging reads files on its own terms; see `merge`.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Seek, Write};

use ed25519_dalek::SigningKey;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::batch::{Batch, Body};
use super::claims;
use super::directory::Directory;
use super::jws;
use super::statement::{
    Code, Consent, MAPPING_TYP, Mapping, Refusal, Statement, WITHDRAWAL_TYP, Withdrawal,
    WithdrawnBy,
};
use crate::limits::JWS_BYTES_MAX;

/// Validity of a mapping that is signed without `exp`.
const VALIDITY_SECONDS: u64 = 365 * 86_400;

/// What verifying a file found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Statements that were accepted.
    pub accepted: u64,
    /// Lines that were refused, by code.
    pub refused: BTreeMap<Code, u64>,
    /// The first line, if the file is a batch and this line was accepted.
    pub batch: Option<Batch>,
}

/// Verifies each line of a file, which is a batch if its first line is one. Hands on each refusal
/// with the number of its line. What a batch as a whole is refused for counts for line 1.
///
/// # Errors
/// The file cannot be read.
pub fn verify(
    mut file: impl BufRead,
    directory: &Directory,
    now: u64,
    mut on_refusal: impl FnMut(u64, &Refusal),
) -> io::Result<Verified> {
    let mut verified = Verified::default();
    let mut refuse = |verified: &mut Verified, number, refusal: Refusal| {
        on_refusal(number, &refusal);
        *verified.refused.entry(refusal.code).or_default() += 1;
    };
    let mut line = Vec::new();
    let mut body = Body::default();
    for number in 1_u64.. {
        let is_after_first = number > 1;
        let mut hash = |bytes: &[u8]| {
            if is_after_first {
                body.update(bytes)
            }
        };
        if !next_line(&mut file, &mut line, &mut hash)? {
            break;
        }
        let text = match read_text(&line) {
            Ok(text) => text,
            Err(refusal) => {
                refuse(&mut verified, number, refusal);
                continue;
            }
        };
        if number == 1 && Batch::is_first_line(text) {
            match Batch::open(text, directory, now) {
                Ok(batch) => verified.batch = Some(batch),
                Err(refusal) => {
                    // Its lines have no other signature.
                    refuse(&mut verified, number, refusal);
                    return Ok(verified);
                }
            }
            continue;
        }
        let read = match &verified.batch {
            Some(batch) => batch.read_line(text, directory, now),
            None => Statement::read(text, directory, now),
        };
        match read {
            Ok(_) => verified.accepted += 1,
            Err(refusal) => refuse(&mut verified, number, refusal),
        }
    }
    if let Some(Err(refusal)) = verified.batch.as_ref().map(|batch| batch.check_body(&body)) {
        refuse(&mut verified, 1, refusal);
        verified.accepted = 0;
    }
    Ok(verified)
}

/// Reads the next line without its line feed; false at the end. Of a line that is longer than any
/// statement it keeps one byte more than that. Hands on all bytes as they were read.
///
/// # Errors
/// The file cannot be read.
pub fn next_line(
    file: &mut impl BufRead,
    line: &mut Vec<u8>,
    mut on_bytes: impl FnMut(&[u8]),
) -> io::Result<bool> {
    line.clear();
    let mut is_there = false;
    loop {
        let bytes = match file.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = bytes.iter().position(|&b| b == b'\n');
        let (text, taken) = match end {
            Some(end) => (&bytes[..end], end + 1),
            None => (bytes, bytes.len()),
        };
        if taken == 0 {
            return Ok(is_there);
        }
        is_there = true;
        let room = (JWS_BYTES_MAX + 1).saturating_sub(line.len());
        line.extend_from_slice(&text[..text.len().min(room)]);
        on_bytes(&bytes[..taken]);
        file.consume(taken);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// The text of a line that [`next_line`] read.
///
/// # Errors
/// It is too long, or no UTF-8.
pub fn read_text(line: &[u8]) -> Result<&str, Refusal> {
    if line.len() > JWS_BYTES_MAX {
        let expected = format!("at most {JWS_BYTES_MAX} bytes a line");
        return Err(Refusal::new(Code::TooLong, "a longer line", expected));
    }
    std::str::from_utf8(line).map_err(|_| {
        Refusal::new(
            Code::Malformed,
            "bytes that are no UTF-8",
            "text in UTF-8, without compression",
        )
    })
}

/// Claims of a mapping or withdrawal that an issuer or a user may sign.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Draft {
    Mapping(Mapping),
    Withdrawal(Withdrawal),
}

impl Draft {
    /// Reads claims; their member `typ` says which. Those that are missing are added: `iat` is now,
    /// a mapping is valid for a year, its proof is as old as it, and `jti` follows from the claims.
    /// With the user's key the user agrees.
    ///
    /// # Errors
    /// What is wrong about the claims.
    pub fn read(claims: &str, user: Option<&SigningKey>, now: u64) -> Result<Self, Refusal> {
        let object: Result<Map<String, Value>, _> = serde_json::from_str(claims);
        let mut object = object.map_err(|_| claims::explain(claims.as_bytes(), &[]))?;
        let typ = object.remove("typ");
        let id = jws::base64url(&Sha256::digest(claims)[..16]);
        let mut add = |name: &str, value: Value| {
            object.entry(name).or_insert(value).as_u64().unwrap_or_default()
        };
        let iat = add("iat", json!(now));
        add("jti", json!(id));
        match typ.as_ref().and_then(Value::as_str) {
            Some(MAPPING_TYP) => {
                add("exp", json!(iat.saturating_add(VALIDITY_SECONDS)));
                add("proof_at", json!(iat));
                let mut mapping = Mapping::from_claims(claims::to_json(&object).as_bytes())?;
                if let Some(key) = user {
                    mapping.user = Some(Consent::new(&mapping.consent_text(), key));
                }
                Ok(Self::Mapping(mapping))
            }
            Some(WITHDRAWAL_TYP) => {
                let json = claims::to_json(&object);
                Ok(Self::Withdrawal(Withdrawal::from_claims(json.as_bytes())?))
            }
            _ => Err(Refusal::new(
                Code::Claim,
                "claims without typ, or with another",
                format!("{MAPPING_TYP} or {WITHDRAWAL_TYP} as typ"),
            )),
        }
    }

    /// The line with the signature of the issuer, or of the user who withdraws.
    ///
    /// # Errors
    /// A user withdraws with another key than `uk`.
    pub fn sign(&self, key: &SigningKey) -> Result<String, Refusal> {
        match self {
            Self::Mapping(mapping) => Ok(mapping.sign(key)),
            Self::Withdrawal(withdrawal) => match withdrawal.by {
                WithdrawnBy::User(user) if user != key.verifying_key().to_bytes() => {
                    let found = "a withdrawal by a user with another key than uk";
                    Err(Refusal::new(Code::UserForged, found, "the private key of uk"))
                }
                _ => Ok(withdrawal.sign(key)),
            },
        }
    }

    /// The line of a batch.
    pub fn to_batch_line(&self) -> String {
        match self {
            Self::Mapping(mapping) => Batch::line_of(mapping),
            Self::Withdrawal(withdrawal) => Batch::line_of_withdrawal(withdrawal),
        }
    }
}

/// Why a batch was not signed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // Names say it.
pub enum SignBatchError {
    #[error("line {number}: {refusal}")]
    Line { number: u64, refusal: Refusal },
    #[error("the batch before is of {found}, and this one of {expected}: they have a chain each")]
    Previous { found: String, expected: String },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes a batch with these lines, which have to be claims of mappings and withdrawals by `iss`
/// with the users' signatures in them. The file of lines is read twice.
///
/// # Errors
/// The first line that cannot be in it, or a file that cannot be read or written.
pub fn sign_batch(
    mut lines: impl BufRead + Seek,
    iss: &str,
    previous: Option<&Batch>,
    now: u64,
    key: &SigningKey,
    mut out: impl Write,
) -> Result<Batch, SignBatchError> {
    if let Some(previous) = previous.filter(|previous| previous.iss != iss) {
        let (found, expected) = (previous.iss.clone(), iss.to_owned());
        return Err(SignBatchError::Previous { found, expected });
    }
    let mut line = Vec::new();
    let mut body = Body::default();
    for number in 1.. {
        if !next_line(&mut lines, &mut line, |bytes| body.update(bytes))? {
            break;
        }
        let read = read_text(&line).and_then(|text| Batch::read_form(iss, now, text));
        read.map_err(|refusal| SignBatchError::Line { number, refusal })?;
    }
    let (first_line, batch) = Batch::sign(iss, &body, previous, now, key);
    writeln!(out, "{first_line}")?;
    lines.rewind()?;
    io::copy(&mut lines, &mut out)?;
    out.flush()?;
    Ok(batch)
}

/// What a line says, for people. Nothing is verified, and it names a person.
///
/// # Errors
/// Why it cannot be read.
pub fn show(line: &str) -> Result<String, Refusal> {
    let pretty = |json: &[u8]| {
        let value: Result<Value, _> = serde_json::from_slice(json);
        let value = value.map_err(|_| claims::explain(json, &[]))?;
        Ok(format!("{value:#}"))
    };
    if line.starts_with('{') {
        return pretty(line.as_bytes());
    }
    let token = jws::parse(line, &jws::peek_typ(line)?, JWS_BYTES_MAX)?;
    let kid = token.kid.as_deref().unwrap_or("none");
    Ok(format!("typ {}, kid {kid}\n{}", token.typ, pretty(&token.payload)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::sample::fixture::*;
    use crate::discovery::statement::Preference;

    /// The refusals of a file by line, and what was found.
    fn check(file: &[u8]) -> (Vec<(u64, Code)>, Verified) {
        let mut refusals = Vec::new();
        let found = verify(file, directory(), NOW, |line, refusal| {
            refusals.push((line, refusal.code));
        });
        (refusals, found.unwrap())
    }

    #[test]
    fn a_file_is_verified_line_by_line() {
        let good = mapping().sign(&signers().issuer);
        let preference = Preference::new(unsigned().sub, None, NOW, &user(1)).to_line();
        let long = "x".repeat(100_000);
        let mut file = format!("{good}\n{long}\n\n{preference}\n{good}\r\n").into_bytes();
        file.extend(b"\xff\n");
        file.extend(good.as_bytes());
        let (refusals, found) = check(&file);
        let expected =
            [(2, Code::TooLong), (3, Code::Malformed), (5, Code::Malformed), (6, Code::Malformed)];
        assert_eq!(refusals, expected);
        assert_eq!((found.accepted, found.batch), (3, None));
        assert_eq!(found.refused, BTreeMap::from([(Code::TooLong, 1), (Code::Malformed, 3)]));
        assert_eq!(check(b""), (Vec::new(), Verified::default()));
    }

    #[test]
    fn a_batch_is_verified_as_a_whole() {
        let own = agreed(Mapping {
            iss: SELF_ISSUER.into(),
            ssi: crate::discovery::ssi::Ssi::new(SELF_ISSUER, "alice").unwrap(),
            ..unsigned()
        });
        let lines = format!("{}\nwrong\n{}\n", Batch::line_of(&own), Batch::line_of(&own));
        let mut body = Body::default();
        body.update(lines.as_bytes());
        let (first, batch) = Batch::sign(SELF_ISSUER, &body, None, NOW, &signers().self_issuer);
        let (refusals, found) = check(format!("{first}\n{lines}").as_bytes());
        assert_eq!(refusals, [(3, Code::Malformed)]);
        assert_eq!((found.accepted, found.batch), (2, Some(batch)));
        // A line changed, though it is right in itself; a line dropped; no lines; lines without it.
        let (refusals, found) =
            check(format!("{first}\n{}", lines.replace("wrong", "Wrong")).as_bytes());
        assert_eq!(refusals, [(3, Code::Malformed), (1, Code::BatchBody)]);
        assert_eq!(found.accepted, 0);
        let (refusals, _) = check(format!("{first}\n{}\n", Batch::line_of(&own)).as_bytes());
        assert_eq!(refusals, [(1, Code::BatchBody)]);
        assert_eq!(check(first.as_bytes()).0, [(1, Code::BatchBody)]);
        assert_eq!(check(lines.as_bytes()).0.len(), 3);
        // Nothing under a first line that is forged.
        let (forged, _) = Batch::sign(SELF_ISSUER, &body, None, NOW, &signers().issuer);
        let (refusals, found) = check(format!("{forged}\n{lines}").as_bytes());
        assert_eq!((refusals, found.accepted), (vec![(1, Code::UnknownKey)], 0));
    }

    #[test]
    fn lines_are_the_same_through_any_buffer() {
        let long = "y".repeat(JWS_BYTES_MAX + 7);
        let text = format!("one\n\ntwo\r\n{long}\nlast");
        for capacity in [1, 2, 3, 4_096, 1 << 16] {
            let mut file = io::BufReader::with_capacity(capacity, text.as_bytes());
            let (mut line, mut lines, mut seen) = (Vec::new(), Vec::new(), Vec::new());
            while next_line(&mut file, &mut line, |bytes| seen.extend_from_slice(bytes)).unwrap() {
                lines.push(String::from_utf8(line.clone()).unwrap());
            }
            let cut = &long[..=JWS_BYTES_MAX];
            assert_eq!(lines, ["one", "", "two\r", cut, "last"], "{capacity}");
            assert_eq!(seen, text.as_bytes());
        }
    }

    #[test]
    fn drafts_are_completed_and_signed() {
        let claims = |typ: &str, more: &str| {
            format!(r#"{{"typ":"{typ}","sub":"tel:+15550000001","iss":"{ISSUER}"{more}}}"#)
        };
        let mapping = r#","ssi":"mimi://bravo.example/u/alice","proof":"sms""#;
        let draft = Draft::read(&claims(MAPPING_TYP, mapping), Some(&user(1)), NOW).unwrap();
        let Draft::Mapping(read) = &draft else { panic!("{draft:?}") };
        assert_eq!((read.iat, read.proof_at, read.exp), (NOW, NOW, NOW + VALIDITY_SECONDS));
        let line = draft.sign(&signers().issuer).unwrap();
        assert_eq!(Statement::read(&line, directory(), NOW), Ok(Statement::Mapping(read.clone())));
        assert_eq!(draft.to_batch_line(), Batch::line_of(read));
        // The same claims have the same name, and what is there stays.
        let again = Draft::read(&claims(MAPPING_TYP, mapping), Some(&user(1)), NOW).unwrap();
        assert_eq!(again, draft);
        let given = format!(r#"{mapping},"iat":5,"exp":7,"jti":"own""#);
        let Draft::Mapping(read) = Draft::read(&claims(MAPPING_TYP, &given), None, NOW).unwrap()
        else {
            panic!("no mapping")
        };
        assert_eq!((read.iat, read.proof_at, read.exp, &*read.jti), (5, 5, 7, "own"));
        assert_eq!(read.user, None);

        let withdrawal = claims(WITHDRAWAL_TYP, r#","by":"issuer""#);
        let line = Draft::read(&withdrawal, None, NOW).unwrap().sign(&signers().issuer).unwrap();
        Statement::read(&line, directory(), NOW).unwrap();
        let uk = jws::base64url(user(1).verifying_key().as_bytes());
        let by_user = format!(
            r#"{{"typ":"{WITHDRAWAL_TYP}","by":"user","uk":"{uk}","sub":"tel:+15550000001"}}"#
        );
        let draft = Draft::read(&by_user, None, NOW).unwrap();
        Statement::read(&draft.sign(&user(1)).unwrap(), directory(), NOW).unwrap();
        assert_eq!(draft.sign(&user(2)).unwrap_err().code, Code::UserForged);

        for (text, code) in [
            ("", Code::Malformed),
            ("[]", Code::Malformed),
            ("{}", Code::Claim),
            (r#"{"typ":1}"#, Code::Claim),
            (&claims("JWT", mapping), Code::Claim),
            (&claims(MAPPING_TYP, ""), Code::Claim),
            (&claims(MAPPING_TYP, r#","iat":"now""#), Code::Claim),
        ] {
            assert_eq!(Draft::read(text, None, NOW).unwrap_err().code, code, "{text}");
        }
    }

    #[test]
    fn a_signed_batch_is_accepted_and_a_wrong_line_is_not_signed() {
        let own = |iat| {
            Batch::line_of(&agreed(Mapping {
                iss: SELF_ISSUER.into(),
                ssi: crate::discovery::ssi::Ssi::new(SELF_ISSUER, "alice").unwrap(),
                iat,
                proof_at: iat,
                ..unsigned()
            }))
        };
        let sign = |lines: &str, previous: Option<&Batch>| {
            let mut out = Vec::new();
            let key = &signers().self_issuer;
            sign_batch(io::Cursor::new(lines), SELF_ISSUER, previous, NOW, key, &mut out)
                .map(|batch| (batch, out))
        };
        let (first, file) = sign(&format!("{}\n", own(NOW)), None).unwrap();
        let (refusals, found) = check(&file);
        assert_eq!((refusals, found.accepted), (Vec::new(), 1));
        assert_eq!(found.batch.as_ref(), Some(&first));
        let first_line = std::str::from_utf8(&file).unwrap().lines().next().unwrap();
        assert_eq!(Batch::of_own(first_line), Ok(first.clone()));
        // The last line may lack its line feed; a batch may be empty.
        let (second, file) = sign(&own(NOW - 1), Some(&first)).unwrap();
        second.follows(Some(&first)).unwrap();
        assert_eq!(check(&file).1.accepted, 1);
        assert_eq!(check(&sign("", None).unwrap().1).1.accepted, 0);

        let of_other = Batch::line_of(&mapping());
        for (line, expected) in [
            (own(NOW + 1), Code::Future),
            (of_other, Code::BatchIssuer),
            ("{}".into(), Code::Claim),
            (mapping().sign(&signers().issuer), Code::Malformed),
        ] {
            match sign(&format!("{}\n{line}\n", own(NOW)), None) {
                Err(SignBatchError::Line { number: 2, refusal }) => {
                    assert_eq!(refusal.code, expected);
                }
                other => panic!("{other:?}"),
            }
        }
        let other = Batch { iss: ISSUER.into(), ..first };
        assert!(matches!(sign("", Some(&other)), Err(SignBatchError::Previous { .. })));
    }

    #[test]
    fn a_line_is_shown_as_it_is() {
        let shown = show(&mapping().sign(&signers().issuer)).unwrap();
        let kid = jws::key_id(&signers().issuer.verifying_key());
        assert!(shown.starts_with(&format!("typ {MAPPING_TYP}, kid {kid}\n{{\n")), "{shown}");
        assert!(shown.contains("\"ssi\": \"mimi://bravo.example/u/alice-smith\""), "{shown}");
        let line = Preference::new(unsigned().sub, None, NOW, &user(1)).to_line();
        assert!(show(&line).unwrap().contains("\"preference\": {"));
        for line in ["", "{", "a.b.c", "x"] {
            show(line).unwrap_err();
        }
    }
}
