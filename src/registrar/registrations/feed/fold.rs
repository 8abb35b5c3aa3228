//! Reading the feed: batches in order, each verified before it counts, folded into the statements
//! that are in force. The result is input for `sotto records make`.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _};

use crate::discovery::directory::IssuerKey;
use crate::discovery::jws::{self, JwsError, base64url, from_base64url};
use crate::discovery::statement::{MAPPING_TYP, Mapping};
use crate::limits::JWS_BYTES_MAX;
use sha2::{Digest as _, Sha256};

use super::{Claims, FEED_TYP, Line, sha256};
use crate::limits::registrar::{FEED_LINE_BYTES_MAX, FEED_LINES_MAX};

/// Why a batch does not count. No message has anything of a statement.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // Names and messages say it.
pub enum FeedError {
    #[error("the batch cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("the batch ends within a line; copy it again")]
    Cut,
    #[error("a line of the batch has more than {0} bytes; copy it again")]
    Long(usize),
    #[error("the first line of the batch is not one: {0}")]
    Header(#[from] JwsError),
    #[error("the first line of the batch has other claims than one has; copy it again")]
    Claims,
    #[error("the batch is of another issuer; expected {0}")]
    Issuer(String),
    #[error(
        "the first line of the batch names a key that the directory did not give its issuer then; \
         use a newer directory"
    )]
    Key,
    #[error(
        "the batch has number {found}, expected {expected}; read all from number 1 on, in order"
    )]
    Sequence { found: u64, expected: u64 },
    #[error(
        "the batch before is not the one that was signed before this one; ask the issuer which \
         chain counts"
    )]
    Previous,
    #[error("the batch has {found} lines, expected {expected}; copy it again")]
    Count { found: u64, expected: u64 },
    #[error("the lines of the batch are not those that were signed; copy it again")]
    Digest,
    #[error("line {0} of the batch is none of a feed; the issuer has to correct it")]
    Line(u64),
}

/// The statements that are in force after so many batches. All of them are in memory.
pub struct Fold {
    iss: String,
    keys: Vec<IssuerKey>,
    seq: u64,
    previous: Option<[u8; 32]>,
    statements: BTreeMap<String, String>,
}

impl Fold {
    /// Before the first batch of an issuer, with its keys by the directory.
    pub fn new(iss: &str, keys: Vec<IssuerKey>) -> Self {
        let (seq, previous, statements) = (0, None, BTreeMap::new());
        Self { iss: iss.to_owned(), keys, seq, previous, statements }
    }

    /// Reads the next batch. A batch that is refused changes nothing.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn read(&mut self, mut batch: impl BufRead) -> Result<(), FeedError> {
        let header = next_line(&mut batch, JWS_BYTES_MAX)?.ok_or(FeedError::Cut)?;
        let claims = self.check_header(&header)?;
        let mut lines = Vec::new();
        let mut digest = Sha256::new();
        while let Some(text) = next_line(&mut batch, FEED_LINE_BYTES_MAX)? {
            let number = lines.len() as u64 + 2;
            let line: Line = serde_json::from_str(&text).map_err(|_| FeedError::Line(number))?;
            digest.update(digest_of(&line, &text).ok_or(FeedError::Line(number))?);
            lines.push(line);
            if lines.len() as u64 > claims.count {
                break;
            }
        }
        let found = lines.len() as u64;
        if found != claims.count {
            return Err(FeedError::Count { found, expected: claims.count });
        }
        if base64url(&digest.finalize()) != claims.sha256 {
            return Err(FeedError::Digest);
        }
        self.apply(lines)?;
        (self.seq, self.previous) = (claims.seq, Some(sha256(&header)));
        Ok(())
    }

    /// The number of the last batch that was read; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The statements in force, a line each, in an order that depends on nothing else.
    pub fn statements(&self) -> impl Iterator<Item = &str> {
        self.statements.values().map(String::as_str)
    }

    fn check_header(&self, header: &str) -> Result<Claims, FeedError> {
        let token = jws::parse(header, FEED_TYP, JWS_BYTES_MAX)?;
        let is_object = token.payload.starts_with(b"{");
        let claims: Option<Claims> = serde_json::from_slice(&token.payload).ok();
        let claims = claims.filter(|_| is_object).ok_or(FeedError::Claims)?;
        if claims.iss != self.iss {
            return Err(FeedError::Issuer(self.iss.clone()));
        }
        let is_key =
            |key: &&IssuerKey| key.validity.contains(claims.iat) && token.kid == Some(key.key.id());
        let key = self.keys.iter().find(is_key).ok_or(FeedError::Key)?;
        token.verify(key.key.verifying_key())?;
        let expected = self.seq + 1;
        if claims.seq != expected {
            return Err(FeedError::Sequence { found: claims.seq, expected });
        }
        if claims.previous != self.previous.map(|digest| base64url(&digest)) {
            return Err(FeedError::Previous);
        }
        match claims.count <= FEED_LINES_MAX {
            true => Ok(claims),
            false => Err(FeedError::Count { found: claims.count, expected: FEED_LINES_MAX }),
        }
    }

    /// Changes the statements, once every line can be read.
    fn apply(&mut self, lines: Vec<Line>) -> Result<(), FeedError> {
        let mut named = Vec::with_capacity(lines.len());
        for (line, number) in lines.into_iter().zip(2..) {
            named.push(match line {
                Line::Add(text) => {
                    let name = name_of(&text).ok_or(FeedError::Line(number))?;
                    (name, Some(text))
                }
                Line::Remove(name) => (name, None),
                Line::Erased(_) => continue,
            });
        }
        for (name, text) in named {
            match text {
                Some(text) => self.statements.insert(name, text),
                None => self.statements.remove(&name),
            };
        }
        Ok(())
    }
}

/// The digest that a line has, or had before it was erased.
fn digest_of(line: &Line, text: &str) -> Option<[u8; 32]> {
    match line {
        Line::Erased(digest) => from_base64url(digest)?.try_into().ok(),
        // One text for one line, so that nothing else can be in it.
        _ if line.to_text() == text => Some(sha256(text)),
        _ => None,
    }
}

/// By what a statement is removed again: `jti` of a mapping, SHA-256 of a preference.
fn name_of(statement: &str) -> Option<String> {
    if statement.starts_with('{') {
        return Some(base64url(&sha256(statement)));
    }
    let token = jws::parse(statement, MAPPING_TYP, JWS_BYTES_MAX).ok()?;
    Mapping::from_claims(&token.payload).ok().map(|mapping| mapping.jti)
}

/// The next line without its end; `None` at the end of the batch.
fn next_line(batch: &mut impl BufRead, most: usize) -> Result<Option<String>, FeedError> {
    let mut line = Vec::new();
    batch.by_ref().take(most as u64 + 1).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => String::from_utf8(line).map(Some).map_err(|_| FeedError::Cut),
        Some(_) if line.len() >= most => Err(FeedError::Long(most)),
        Some(_) => Err(FeedError::Cut),
    }
}
