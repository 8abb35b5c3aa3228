//! The first step: every line is checked by itself, on all cores, and what is accepted goes to the
//! bucket of its identifier.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;

use indicatif::ProgressBar;
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::super::batch::Batch;
use super::super::directory::{Database, Directory};
use super::super::files::read_text;
use super::super::jws;
use super::super::statement::{Code, MAPPING_TYP, Mapping, Refusal, Statement};
use super::errors::{IoContext as _, MergeError};
use super::input::{Chunk, Lines, Source};
use super::partition::{Partition, bucket_of, identifier_hash};
use super::report::{Finding, Tally};
use super::row::{Place, Row, encode};
use super::work::{Checked, WorkDir, create_file};
use crate::limits::JWS_BYTES_MAX;

/// What lines are checked against.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) directory: &'a Directory,
    pub(super) database: &'a Database,
    pub(super) now: u64,
    pub(super) bucket_count: u32,
}

/// What became of a line: a row for a bucket, a reason not to accept it, or both.
#[derive(Default)]
struct Outcome {
    row: Option<(u32, Vec<u8>)>,
    refusal: Option<Refusal>,
    is_statement: bool,
    is_elsewhere: bool,
}

/// Checks all lines of all files.
pub(super) fn check(
    sources: &[Source],
    rules: Rules<'_>,
    work: &WorkDir,
    bar: &ProgressBar,
) -> Result<Checked, MergeError> {
    let folder = work.buckets();
    let mut partition =
        Partition::create(&folder, rules.bucket_count).context("create", &folder)?;
    let mut refused = create_file(&work.refused()).context("create", &work.refused())?;
    let mut tally = Tally::default();
    let mut digests = Vec::new();
    let mut chunk = Chunk::default();
    for (index, source) in sources.iter().enumerate() {
        let mut findings = Vec::new();
        if let Some(refusal) = &source.refusal {
            tally.refuse(refusal.code.as_str());
            Finding::refused(&source.name(), 1, refusal.clone()).write(&mut findings);
        }
        let file = File::open(&source.path).context("open", &source.path)?;
        let mut lines = Lines::new(file);
        let mut hash = Sha256::new();
        loop {
            lines.read(&mut chunk).context("read", &source.path)?;
            if chunk.len() == 0 {
                break;
            }
            let check = || check_chunk(&chunk, source, index as u32, rules);
            let (outcomes, ()) = rayon::join(check, || hash.update(&chunk.bytes));
            for (at, outcome) in outcomes.into_iter().enumerate() {
                tally.lines += u64::from(outcome.is_statement);
                tally.elsewhere += u64::from(outcome.is_elsewhere);
                if let Some((bucket, row)) = outcome.row {
                    partition.push(bucket, &row).context("write", &folder)?;
                }
                if let Some(refusal) = outcome.refusal {
                    tally.refuse(refusal.code.as_str());
                    let (_, line) = chunk.line(at);
                    Finding::refused(&source.name(), line, refusal).write(&mut findings);
                }
            }
            refused.write_all(&findings).context("write", &work.refused())?;
            findings.clear();
            bar.inc(chunk.bytes.len() as u64);
        }
        refused.write_all(&findings).context("write", &work.refused())?;
        digests.push(hash.finalize());
    }
    refused.sync_all().context("write", &work.refused())?;
    partition.finish().context("write", &folder)?;
    digests.sort();
    let content = digests.iter().fold(Sha256::new(), |hash, digest| hash.chain_update(digest));
    let accepted = sources.iter().filter(|source| source.refusal.is_none());
    let mut batches = BTreeMap::new();
    for batch in accepted.filter_map(|source| source.batch.as_ref()) {
        let last = batches.entry(batch.iss.clone()).or_default();
        *last = batch.seq.max(*last);
    }
    Ok(Checked { content: jws::base64url(&content.finalize()), tally, batches })
}

fn check_chunk(chunk: &Chunk, source: &Source, file: u32, rules: Rules<'_>) -> Vec<Outcome> {
    if source.refusal.is_some() {
        return Vec::new();
    }
    let check = |index| {
        let (line, number) = chunk.line(index);
        match source.batch {
            Some(_) if number == 1 => Outcome::default(),
            _ if line.is_empty() => Outcome::default(),
            _ => check_line(line, source.batch.as_ref(), Place { file, line: number }, rules),
        }
    };
    (0..chunk.len()).into_par_iter().map(check).collect()
}

fn check_line(line: &[u8], batch: Option<&Batch>, place: Place, rules: Rules<'_>) -> Outcome {
    let outcome = Outcome { is_statement: true, ..Outcome::default() };
    let text = match read_text(line) {
        Ok(text) => text,
        Err(refusal) => return Outcome { refusal: Some(refusal), ..outcome },
    };
    let read = |now| match batch {
        Some(batch) => batch.read_line(text, rules.directory, now),
        None => Statement::read(text, rules.directory, now),
    };
    let (statement, refusal) = match read(rules.now) {
        Ok(statement) => (Some(statement), None),
        Err(refusal) if refusal.code == Code::Expired => {
            // What it says of a new holder stays true.
            let issued = claims(text, batch).filter(|claims| claims.new_holder);
            (issued.and_then(|claims| read(claims.iat).ok()), Some(refusal))
        }
        Err(refusal) => (None, Some(refusal)),
    };
    let Some(statement) = statement else { return Outcome { refusal, ..outcome } };
    if !rules.database.covers(statement.sub()) {
        return Outcome { is_elsewhere: refusal.is_none(), refusal, ..outcome };
    }
    let Some(mut row) = Row::new(statement, line, place, rules.directory) else {
        return Outcome { refusal, ..outcome };
    };
    if let (Some(mapping), Some(_)) = (&mut row.mapping, &refusal) {
        mapping.expired = true;
    }
    let bucket = bucket_of(&identifier_hash(&row.sub), rules.bucket_count);
    Outcome { row: Some((bucket, encode(&row))), refusal, ..outcome }
}

/// The claims of a mapping, verified by nobody.
fn claims(text: &str, batch: Option<&Batch>) -> Option<Mapping> {
    match batch {
        Some(_) => Mapping::from_claims(text.as_bytes()).ok(),
        None => {
            let token = jws::parse(text, MAPPING_TYP, JWS_BYTES_MAX).ok()?;
            Mapping::from_claims(&token.payload).ok()
        }
    }
}
