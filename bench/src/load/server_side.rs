//! What a server says of itself over a span of time: its metrics, read at both ends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::LoadError;
use super::report::ServerSide;
use crate::endpoint::{Endpoint, Method, Reply};
use sotto::wire::PublicParameters;

/// How long a server may take to say its numbers.
const PATIENCE: Duration = Duration::from_secs(10);

/// All numbers of a server at one moment, by name and labels as they stand in the text.
pub(super) struct Look {
    at: Instant,
    samples: BTreeMap<String, f64>,
}

impl Look {
    /// Reads them now.
    pub(super) async fn at(endpoint: &Endpoint) -> Result<Self, LoadError> {
        let Reply { status, body } =
            endpoint.ask(Method::Get, PATIENCE).await.map_err(|error| {
                LoadError::Metrics(format!("{error}; is it the server's admin address (--admin)?"))
            })?;
        let at = Instant::now();
        match status {
            200 => Ok(Self { at, samples: samples(&body) }),
            _ => {
                let said = body.lines().next().unwrap_or_default();
                Err(LoadError::Metrics(format!("found status {status}, expected 200: {said}")))
            }
        }
    }

    /// Refuses those of another server than the one that is asked.
    pub(super) fn check(&self, parameters: &PublicParameters) -> Result<(), LoadError> {
        let found = (self.get("sotto_served_epoch")?, self.get("sotto_shards")?);
        let expected = (parameters.epoch() as f64, f64::from(parameters.shard_count()));
        if found == expected {
            return Ok(());
        }
        Err(LoadError::Metrics(format!(
            "found a server of epoch {} with {} shards, expected that of --server: epoch {}, {} \
             shards",
            found.0, found.1, expected.0, expected.1
        )))
    }

    fn get(&self, name: &str) -> Result<f64, LoadError> {
        let missing =
            || LoadError::Metrics(format!("found no {name}, expected a server of this version"));
        self.samples.get(name).copied().ok_or_else(missing)
    }

    /// What came since an earlier look.
    pub(super) fn since(&self, before: &Self) -> Result<ServerSide, LoadError> {
        let more = |name: &str| Ok::<_, LoadError>(self.get(name)? - before.get(name)?);
        let mut answers = 0.0;
        for by in ["processor", "processor_after_failure", "device", "device_after_upload"] {
            answers += more(&format!("sotto_answers_total{{by=\"{by}\"}}"))?;
        }
        // Of nothing the mean is nothing.
        let over = |sum: f64, count: f64| if count > 0.0 { sum / count } else { 0.0 };
        let mean_ms = |name: &str| {
            let (sum, count) = (more(&format!("{name}_sum"))?, more(&format!("{name}_count"))?);
            Ok::<_, LoadError>(over(sum, count) * 1e3)
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

    fn look(at: Instant, numbers: [f64; 9]) -> Look {
        let [cpu, processor, device, passes, batched, scan, queued, queue, sent] = numbers;
        let text = format!(
            "# HELP process_cpu_seconds_total Processor time\nprocess_cpu_seconds_total {cpu}\n\
             sotto_answers_total{{by=\"processor\"}} {processor}\n\
             sotto_answers_total{{by=\"processor_after_failure\"}} 0\n\
             sotto_answers_total{{by=\"device\"}} {device}\n\
             sotto_answers_total{{by=\"device_after_upload\"}} 0\n\
             sotto_batch_queries_count {passes}\nsotto_batch_queries_sum {batched}\n\
             sotto_scan_seconds_sum {scan}\nsotto_pack_seconds_sum 0\n\
             sotto_queue_seconds_count {queued}\nsotto_queue_seconds_sum {queue}\n\
             sotto_send_seconds_count {sent}\nsotto_send_seconds_sum 0.5\n\
             sotto_answer_seconds_count 0\nsotto_answer_seconds_sum 0\n\
             process_resident_memory_bytes {sent}\n"
        );
        Look { at, samples: samples(&text) }
    }

    #[test]
    fn what_came_between_two_looks_is_counted_and_the_mean_of_nothing_is_nothing() {
        let begin = Instant::now();
        let before = look(begin, [1.0, 100.0, 10.0, 50.0, 110.0, 2.0, 110.0, 3.0, 7.0]);
        let end = begin + Duration::from_secs(2);
        let after = look(end, [3.5, 130.0, 20.0, 60.0, 150.0, 2.4, 150.0, 3.2, 7.0]);
        let expected = ServerSide {
            seconds: 2.0,
            cpu_seconds: 2.5,
            answers: 40,
            passes: 10,
            batch_mean: 4.0,
            queue_ms: 5.0,
            scan_ms: 10.0,
            pack_ms: 0.0,
            send_ms: 0.0,
            answer_ms: 0.0,
            resident_memory_bytes: 7,
        };
        let found = after.since(&before).unwrap();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(found.queue_ms, 5.0) && near(found.scan_ms, 10.0), "{found:?}");
        assert_eq!(ServerSide { queue_ms: 5.0, scan_ms: 10.0, ..found }, expected);
        let nothing = Look { at: end, samples: BTreeMap::new() };
        let error = nothing.since(&before).unwrap_err().to_string();
        assert!(error.contains("found no sotto_answers_total"), "{error}");
    }
}
