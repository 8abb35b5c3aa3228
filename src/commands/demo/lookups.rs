//! The demo: private look-ups of records whose keys and values are bytes.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use sotto::builder::{BuildReport, sample};
use sotto::client::{Client, Outcome, SentQuery};
use sotto::limits;
use sotto::text::{bytes, counted, duration, grouped, rate};

use super::stage::{Args, Error, Serving, build, row};
use crate::commands::out::{Lost, say};

/// Value field of the sample: with it, 2^20 records in one shard take the standard shape.
const VALUE_BYTES: u32 = 120;
/// Keys that are looked up, every second one absent; the first one is looked up once more.
const KEYS: usize = 260;
/// Look-ups that are shown: some, and the second one of the first key.
const SHOWN: usize = 6;
/// Bytes of each query that are shown.
const HEAD_BYTES: usize = 4;

/// A record of the sample, or a key that is not in it.
#[derive(Clone)]
struct Asked {
    key: String,
    value: Option<String>,
}

pub(super) async fn show(args: &Args, folder: &Path) -> Result<ExitCode, Error> {
    say("A private look-up, from records to answers")?;
    let asked = make_sample(args.records, folder)?;
    let report = make_database(args, folder).await?;
    say("\n3. The server\n")?;
    let serving = Serving::start(args, folder).await?;
    let accepted = report.shard_records_min.min(limits::RECORDS_PER_SHARD_ACCEPTED_MIN);
    let mut client = serving.client(folder, accepted).await?;

    let wrong = look_up(&mut client, &asked).await?;
    drop(client.close().await); // the pins of a database that is removed
    serving.end().await;
    say("")?;
    if let Some(keep) = &args.keep {
        let dir = keep.display();
        say(format_args!(
            "  Kept in {dir}. To go on with it:\n\n  \
             sotto serve --db {dir}/db --listen 127.0.0.1:4433 \\\n    \
             --cert {dir}/server.pem --key {dir}/server.key\n  \
             sotto lookup --server localhost:4433 --ca {dir}/ca.pem \\\n    \
             --operator-key {dir}/db/operator.pub --accept-shard-records {accepted} \\\n    {}\n",
            asked[0].key,
        ))?;
    }
    let total = asked.len();
    if wrong > 0 {
        say(format_args!("{wrong} of {total} answers are WRONG."))?;
        return Ok(ExitCode::from(2));
    }
    say(format_args!("All {total} answers were compared with the sample: every one is right."))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the sample and chooses keys: its first records, in turn with absent keys, and the very
/// first one again as the last that is shown.
fn make_sample(records: u64, folder: &Path) -> Result<Vec<Asked>, Error> {
    let path = folder.join("sample.csv");
    sample::write(records, fs::File::create(&path)?)?;
    let mut asked: Vec<Asked> = Vec::new();
    for line in BufReader::new(fs::File::open(&path)?).lines().skip(1).take(KEYS / 2) {
        let line = line?;
        // No field of the sample needs quotes.
        let (key, value) = line.split_once(',').ok_or("a line of the sample without a value")?;
        asked.push(Asked { key: key.to_owned(), value: Some(value.to_owned()) });
        asked.push(Asked { key: format!("absent{}@example.com", asked.len()), value: None });
    }
    asked.insert(asked.len().min(SHOWN - 1), asked[0].clone());
    say(format_args!(
        "\n1. The sample\n\n  \
         {} records; the first says that {} is reachable at\n  \
         {}.\n  \
         All numbers and addresses are from ranges reserved for fiction and examples.",
        grouped(records),
        asked[0].key,
        asked[0].value.as_deref().unwrap_or_default(),
    ))?;
    Ok(asked)
}

async fn make_database(args: &Args, folder: &Path) -> Result<BuildReport, Error> {
    say(format_args!(
        "\n2. The database\n\n  \
         The server sees the shard number of a key and nothing else about it. A look-up\n  \
         hides among the records of its shard: about {} here. Clients accept {}\n  \
         or more unless told otherwise; this one accepts what there is.\n",
        grouped(args.records / u64::from(args.shards)),
        grouped(limits::RECORDS_PER_SHARD_ACCEPTED_MIN),
    ))?;
    build(args, folder, folder.join("sample.csv"), VALUE_BYTES).await
}

/// Looks all keys up in one call and shows some; counts the answers that differ from the sample.
async fn look_up(client: &mut Client, asked: &[Asked]) -> Result<usize, Error> {
    let keys: Vec<&str> = asked.iter().map(|asked| &*asked.key).collect();
    let begun = Instant::now();
    let outcomes = client.lookup(&keys).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let elapsed = begun.elapsed();
    let call = client.last_call();
    say(format_args!("\n4. {} look-ups in one call\n", asked.len()))?;
    let line = |a: &str, b: &str, c: &str| say(format_args!("  {a:<20}  {b:<21}  {c}"));
    line("the client asked", "the server saw", "the client read\n")?;
    let mut wrong = 0;
    for (n, ((asked, query), outcome)) in asked.iter().zip(&call.queries).zip(outcomes).enumerate()
    {
        let (text, is_right) = match outcome {
            Outcome::Found(value) => {
                let is_right = asked.value.as_ref().is_some_and(|v| v.as_bytes() == value);
                (String::from_utf8_lossy(&value).into_owned(), is_right)
            }
            Outcome::Absent => ("not found".into(), asked.value.is_none()),
            Outcome::Invalid => ("cannot be believed".into(), false),
        };
        wrong += usize::from(!is_right);
        if n < SHOWN || !is_right {
            let head = query.vector_head.iter().take(HEAD_BYTES);
            let head: String = head.map(|byte| format!("{byte:02x}")).collect();
            let mark = if is_right { "" } else { "  (WRONG)" };
            line(&asked.key, &format!("shard {}, {head}..", query.shard), &(text + mark))?;
        }
    }
    wrong += queries_that_tell(&call.queries)?;
    let (queries, bundles) = (call.queries.len(), counted(call.bundles.into(), "key bundle"));
    row("up", &format!("{queries} queries and {bundles}: {}", bytes(call.bytes_up)))?;
    let hints = counted(call.hints.into(), "hint");
    row("down", &format!("{queries} answers and {hints} to keep: {}", bytes(call.bytes_down)))?;
    let looked_up = rate(asked.len() as f64 / elapsed.as_secs_f64());
    row("in all", &format!("{}, look-ups: {looked_up}", duration(elapsed)))?;
    say("\n  The server computed every query over all of its shard: if it skipped a part,")?;
    say("  it would know that this part does not matter.")?;
    Ok(wrong)
}

/// Shows that queries and answers are of one size each, and that equal keys give different bytes;
/// counts those for which that is wrong.
fn queries_that_tell(queries: &[SentQuery]) -> Result<usize, Lost> {
    let (first, again) = (&queries[0], &queries[queries.len().min(SHOWN) - 1]);
    say(format_args!(
        "\n  \
         Each query went out as {} bytes of ciphertext, of which the first {HEAD_BYTES} are\n  \
         shown, and each answer came back as {} bytes: as many for a key that is\n  \
         there as for one that is not.",
        grouped(first.vector_bytes as u64),
        grouped(first.response_bytes as u64),
    ))?;
    let sizes = |query: &SentQuery| (query.vector_bytes, query.response_bytes);
    let uneven = queries.iter().filter(|query| sizes(query) != sizes(first)).count();
    if again.vector_head == first.vector_head || again.uid == first.uid {
        say("  The last key repeats the first, and so do the bytes: WRONG.\n")?;
        return Ok(uneven + 1);
    }
    say("  The last key repeats the first: the same shard, under another secret.\n")?;
    Ok(uneven)
}
