//! From a server's process being started until it answers, with its files in the page cache and
//! without.

use std::fs::File;
use std::io::{BufRead as _, BufReader};

use sotto::client::Client;
use sotto::commands::out::report;

use super::files;
use super::place::{Place, cannot, seed, spread};
use super::server::{Server, Site};
use crate::Failed;
use crate::common::ms;
use crate::record::{Content, Head, STARTUP_SCHEMA, Started, Startup};

/// A warm server may have the disk read so much all the same: what else a process opens.
const OTHER_BYTES: u64 = 4 << 20;

/// Milliseconds until a server listens, is ready and has answered; its own memory in bytes.
type Start = ([f64; 3], u64);

/// Measures starts of a server of a database that is made for it.
pub(crate) async fn startup(place: Place) -> Result<Startup, Failed> {
    let head = Head::new(STARTUP_SCHEMA);
    let (key, value) = place.blocking(make).await?;
    let site = Site::new(&place)?;
    let content = place.blocking(Place::content).await?;
    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    for _ in 0..place.options.runs {
        for (cached, starts) in [(true, &mut warm), (false, &mut cold)] {
            let prepare = if cached { files::read_all } else { files::drop_all };
            place.blocking(move |place| prepare(&place.db())).await?;
            let server = site.start().await?;
            let start = watch(&server, &key, &value).await?;
            check(cached, files::disk_bytes(&server.process())?, &content)?;
            server.leave().await?;
            let ([listening, ready, answered], bytes) = start;
            report(format_args!(
                "{}: listening after {listening:.1} ms, ready after {ready:.1} ms, first answer \
                 after {answered:.1} ms; {} MiB",
                if cached { "warm" } else { "cold" },
                bytes >> 20,
            ));
            starts.push(start);
        }
    }
    let (warm, cold) = (started(&warm), started(&cold));
    Ok(Startup { head, content, threads: place.threads(), warm, cold })
}

fn started(starts: &[Start]) -> Started {
    let [listening_ms, ready_ms, first_answer_ms] =
        [0, 1, 2].map(|at| spread(starts.iter().map(|start| start.0[at])));
    let own_memory_bytes = starts.iter().map(|start| start.1).max().unwrap_or(0);
    Started { listening_ms, ready_ms, first_answer_ms, own_memory_bytes }
}

/// Builds the database; its first record.
fn make(place: &Place) -> Result<(String, String), Failed> {
    place.write_input()?;
    let input = place.input();
    place.build(&input, seed(0))?;
    let file = File::open(&input).map_err(cannot("read", &input))?;
    let line = BufReader::new(file).lines().nth(1).transpose().map_err(cannot("read", &input))?;
    let record = line.as_deref().and_then(|line| line.split_once(','));
    let (key, value) = record.ok_or("this is a bug: the input has no record")?;
    Ok((key.into(), value.into()))
}

/// Waits until a server is ready, and for its first answer.
async fn watch(server: &Server, key: &str, value: &str) -> Result<Start, Failed> {
    let answered = async {
        let mut client = Client::connect(server.options.clone()).await?;
        Server::find(&mut client, key, value).await?;
        let took = ms(server.began.elapsed());
        drop(client.close().await);
        Ok::<_, Failed>(took)
    };
    let ready = async {
        server.ready().await?;
        Ok::<_, Failed>(ms(server.began.elapsed()))
    };
    let (first_answer, ready) = tokio::try_join!(answered, ready)?;
    let own_memory_bytes = files::memory_bytes(&server.process(), "RssAnon:")?;
    Ok(([ms(server.listening), ready, first_answer], own_memory_bytes))
}

/// A shard was answered from: all of it came from the disk, or nothing of it.
fn check(cached: bool, disk_bytes: u64, content: &Content) -> Result<(), Failed> {
    let shard = content.shape.scan_bytes() as u64;
    if !cached && disk_bytes < shard {
        return Err(format!(
            "found a server that had {disk_bytes} bytes read from a disk, expected the {shard} of \
             a shard: the file system keeps pages in memory whatever one asks for, or does not \
             count. Name a folder on a disk (TMPDIR)"
        )
        .into());
    }
    if cached && disk_bytes > OTHER_BYTES {
        return Err(format!(
            "found a server that had {disk_bytes} bytes read from a disk, expected none: memory is \
             too small for the database ({} bytes), or busy",
            content.database_bytes
        )
        .into());
    }
    Ok(())
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
        let shard = shape.scan_bytes() as u64;
        assert!(check(false, shard, &content).is_ok() && check(true, 0, &content).is_ok());
        let error = check(false, shard - 1, &content).unwrap_err().to_string();
        assert!(error.contains("TMPDIR"), "{error}");
        let error = check(true, shard, &content).unwrap_err().to_string();
        assert!(error.contains("expected none"), "{error}");
    }
}
