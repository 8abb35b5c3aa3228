//! From a server's process being started until it answers, with its files in the page cache and
//! without.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use super::server::{Server, Site};
use super::{
    IoContext as _, OperationError, OperationOptions, blocking, content, files, ms, seed, spread,
};
use crate::record::{Content, Head, STARTUP_SCHEMA, Started, Startup};
use sotto::client::{Client, Outcome};
use sotto::shard::Database;

/// A key that no database has: the domain is one that can never be.
const NOBODY: &str = "nobody@sotto.invalid";
/// A warm server may have the disk read so much all the same: what else a process opens.
const OTHER_BYTES: u64 = 4 << 20;

/// Where a database's pages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pages {
    InMemory,
    OnDisk,
}

/// One start.
struct Start {
    listening: Duration,
    ready: Duration,
    first_answer: Duration,
    own_memory_bytes: u64,
}

/// Measures starts of a server of this database, or of one that is made for it.
pub async fn startup(
    options: &OperationOptions,
    db: Option<&Path>,
    shown: &mut dyn FnMut(&str),
) -> Result<Startup, OperationError> {
    let head = Head::new(STARTUP_SCHEMA);
    let (db, key, expected) = match db {
        Some(db) => (db.to_owned(), NOBODY.to_owned(), Outcome::Absent),
        None => {
            let own = options.clone();
            let (key, value) = blocking(move || make(&own)).await?;
            (options.db(), key, Outcome::Found(value.into_bytes()))
        }
    };
    let site = Site::new(options, &db)?;
    let opened = db.clone();
    let content = blocking(move || {
        let database = Database::open(&opened)?;
        Ok(content(&database))
    });
    let content = content.await?;
    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        for (pages, starts) in [(Pages::InMemory, &mut warm), (Pages::OnDisk, &mut cold)] {
            let path = db.clone();
            blocking(move || match pages {
                Pages::InMemory => files::read_all(&path),
                Pages::OnDisk => files::drop_all(&path),
            })
            .await?;
            let server = site.start().await?;
            let start = watch(&server, &key, &expected).await?;
            check(pages, server.disk_bytes()?, &content)?;
            server.leave().await?;
            shown(&start.line(pages));
            starts.push(start);
        }
    }
    let (warm, cold) = (Start::all(&warm), Start::all(&cold));
    Ok(Startup { head, content, threads: options.threads(), warm, cold })
}

/// Builds the database; its first record.
fn make(options: &OperationOptions) -> Result<(String, String), OperationError> {
    options.write_input()?;
    let input = options.input();
    options.build(&input, seed(0))?;
    let file = File::open(&input).context("read", &input)?;
    let line = BufReader::new(file).lines().nth(1).transpose().context("read", &input)?;
    let record = line.as_deref().and_then(|line| line.split_once(','));
    let none = || io::Error::new(io::ErrorKind::UnexpectedEof, "there is no record");
    let (key, value) = record.ok_or_else(none).context("read", &input)?;
    Ok((key.into(), value.into()))
}

/// Waits until a server is ready, and for its first answer.
async fn watch(server: &Server, key: &str, expected: &Outcome) -> Result<Start, OperationError> {
    let answered = async {
        let mut client = Client::connect(server.options.clone()).await?;
        Server::find(&mut client, key, expected).await?;
        let took = server.began.elapsed();
        drop(client.close().await);
        Ok::<_, OperationError>(took)
    };
    let ready = async {
        server.ready().await?;
        Ok::<_, OperationError>(server.began.elapsed())
    };
    let (first_answer, ready) = tokio::try_join!(answered, ready)?;
    let own_memory_bytes = server.own_memory_bytes()?;
    Ok(Start { listening: server.listening, ready, first_answer, own_memory_bytes })
}

/// A shard was answered from: all of it came from the disk, or nothing of it.
fn check(pages: Pages, disk_bytes: u64, content: &Content) -> Result<(), OperationError> {
    let shard = content.shape.pass_bytes() as u64;
    let problem = match pages {
        Pages::OnDisk if disk_bytes < shard => format!(
            "found a server that had {disk_bytes} bytes read from a disk, expected the {shard} of \
             a shard: the file system keeps pages in memory whatever one asks for, or does not \
             count. Name a folder on a disk (TMPDIR)"
        ),
        Pages::InMemory if disk_bytes > OTHER_BYTES => format!(
            "found a server that had {disk_bytes} bytes read from a disk, expected none: memory is \
             too small for the database ({} bytes), or busy",
            content.database_bytes
        ),
        _ => return Ok(()),
    };
    Err(OperationError::PageCache(problem))
}

impl Start {
    fn line(&self, pages: Pages) -> String {
        format!(
            "{}: listening after {:.1} ms, ready after {:.1} ms, first answer after {:.1} ms; \
             {:.1} MiB",
            if pages == Pages::InMemory { "warm" } else { "cold" },
            ms(self.listening),
            ms(self.ready),
            ms(self.first_answer),
            self.own_memory_bytes as f64 / f64::from(1 << 20)
        )
    }

    fn all(starts: &[Self]) -> Started {
        let of = |time: fn(&Self) -> Duration| spread(starts.iter().map(|start| ms(time(start))));
        Started {
            listening_ms: of(|start| start.listening),
            ready_ms: of(|start| start.ready),
            first_answer_ms: of(|start| start.first_answer),
            own_memory_bytes: starts.iter().map(|s| s.own_memory_bytes).max().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ShapeFacts;
    use sotto::params::Shape;

    #[test]
    fn a_server_that_did_not_read_its_shard_was_not_cold_and_one_that_did_was_not_warm() {
        let shape = ShapeFacts::of(&Shape::new(120, 2048, 4, 17_280).unwrap());
        let content = Content { records: 1, shards: 1, database_bytes: 7, shape };
        let shard = shape.pass_bytes() as u64;
        assert!(check(Pages::OnDisk, shard, &content).is_ok());
        assert!(check(Pages::InMemory, 0, &content).is_ok());
        let error = check(Pages::OnDisk, shard - 1, &content).unwrap_err().to_string();
        assert!(error.contains("TMPDIR"), "{error}");
        let error = check(Pages::InMemory, shard, &content).unwrap_err().to_string();
        assert!(error.contains("expected none"), "{error}");
    }
}
