//! What a server says of itself over a span of time: its metrics, read at both ends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::report::ServerSide;
use crate::Failed;
use crate::endpoint::{Endpoint, Reply};
use sotto::wire::PublicParameters;

const PATIENCE: Duration = Duration::from_secs(10);

/// All numbers of a server at one moment, by name and labels as they stand in the text.
pub(super) struct Look {
    at: Instant,
    samples: BTreeMap<String, f64>,
}

impl Look {
    pub(super) async fn at(endpoint: &Endpoint) -> Result<Self, Failed> {
        let asked = endpoint.ask("GET", PATIENCE).await;
        let Reply { status, body } =
            asked.map_err(|error| failed(format!("{error}; is it the server's admin address?")))?;
        if status != 200 {
            let said = body.lines().next().unwrap_or_default();
            return Err(failed(format!("found status {status}, expected 200: {said}")));
        }
        Ok(Self { at: Instant::now(), samples: samples(&body) })
    }

    /// Refuses those of another server than the one that is asked.
    pub(super) fn check(&self, parameters: &PublicParameters) -> Result<(), Failed> {
        let found = (self.get("sotto_served_epoch")?, self.get("sotto_shards")?);
        let expected = (parameters.epoch() as f64, f64::from(parameters.shard_count()));
        if found == expected {
            return Ok(());
        }
        Err(failed(format!(
            "found a server of epoch {} with {} shards, expected that of --server: epoch {}, {} \
             shards",
            found.0, found.1, expected.0, expected.1
        )))
    }

    fn get(&self, name: &str) -> Result<f64, Failed> {
        let missing = || failed(format!("found no {name}, expected a server of this version"));
        self.samples.get(name).copied().ok_or_else(missing)
    }

    pub(super) fn since(&self, before: &Self) -> Result<ServerSide, Failed> {
        let more = |name: &str| Ok::<_, Failed>(self.get(name)? - before.get(name)?);
        let mut answers = 0.0;
        for by in ["processor", "processor_after_failure", "device", "device_after_upload"] {
            answers += more(&format!("sotto_answers_total{{by=\"{by}\"}}"))?;
        }
        // The mean of nothing is nothing.
        let over = |sum: f64, count: f64| if count > 0.0 { sum / count } else { 0.0 };
        let mean_ms = |name: &str| {
            let (sum, count) = (more(&format!("{name}_sum"))?, more(&format!("{name}_count"))?);
            Ok::<_, Failed>(over(sum, count) * 1e3)
        };
        let passes = more("sotto_batch_queries_count")?;
        Ok(ServerSide {
            seconds: (self.at - before.at).as_secs_f64(),
            cpu_seconds: more("process_cpu_seconds_total")?,
            answers: answers as u64,
            passes: passes as u64,
            batch_mean: over(more("sotto_batch_queries_sum")?, passes),
            queue_ms: mean_ms("sotto_queue_seconds")?,
            scan_ms: over(more("sotto_scan_seconds_sum")?, answers) * 1e3,
            pack_ms: over(more("sotto_pack_seconds_sum")?, answers) * 1e3,
            send_ms: mean_ms("sotto_send_seconds")?,
            answer_ms: mean_ms("sotto_answer_seconds")?,
            resident_memory_bytes: self.get("process_resident_memory_bytes")? as u64,
        })
    }
}

fn failed(why: String) -> Failed {
    format!("the server's metrics (--metrics): {why}").into()
}

/// Lines of a name with labels and a value; others are comments.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_between_two_looks_is_counted_and_the_mean_of_nothing_is_nothing() {
        let begin = Instant::now();
        let look = |seconds: u64, numbers: [f64; 6]| {
            let [cpu, processor, device, batches, batched, scan] = numbers;
            let text = format!(
                "# HELP process_cpu_seconds_total Processor time\nprocess_cpu_seconds_total {cpu}\n\
                 sotto_answers_total{{by=\"processor\"}} {processor}\n\
                 sotto_answers_total{{by=\"processor_after_failure\"}} 0\n\
                 sotto_answers_total{{by=\"device\"}} {device}\n\
                 sotto_answers_total{{by=\"device_after_upload\"}} 0\n\
                 sotto_batch_queries_count {batches}\nsotto_batch_queries_sum {batched}\n\
                 sotto_scan_seconds_sum {scan}\nsotto_pack_seconds_sum 0\n\
                 sotto_queue_seconds_count {batched}\nsotto_queue_seconds_sum {cpu}\n\
                 sotto_send_seconds_count 7\nsotto_send_seconds_sum 0.5\n\
                 sotto_answer_seconds_count 0\nsotto_answer_seconds_sum 0\n\
                 process_resident_memory_bytes 7\n"
            );
            Look { at: begin + Duration::from_secs(seconds), samples: samples(&text) }
        };
        let before = look(0, [1.0, 100.0, 10.0, 50.0, 110.0, 2.0]);
        let after = look(2, [3.0, 130.0, 20.0, 60.0, 150.0, 2.5]);
        let expected = ServerSide {
            seconds: 2.0,
            cpu_seconds: 2.0,
            answers: 40,
            passes: 10,
            batch_mean: 4.0,
            queue_ms: 50.0,
            scan_ms: 12.5,
            pack_ms: 0.0,
            send_ms: 0.0,
            answer_ms: 0.0,
            resident_memory_bytes: 7,
        };
        assert_eq!(after.since(&before).unwrap(), expected);
        let nothing = Look { at: begin, samples: BTreeMap::new() };
        let error = nothing.since(&before).unwrap_err().to_string();
        assert!(error.contains("found no sotto_answers_total"), "{error}");
    }
}
