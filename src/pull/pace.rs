//! How fast bytes may come.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Holds all downloads together to a number of bytes a second.
pub(super) struct Pace {
    bytes_per_second: Option<NonZeroU64>,
    /// When what came so far would have come at that speed.
    due: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<NonZeroU64>) -> Self {
        Self { bytes_per_second, due: Mutex::new(Instant::now()) }
    }

    /// Waits as long as so many bytes take. What is not read meanwhile makes the source wait.
    pub(super) async fn wait(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let until = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let takes = Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
            *due = Instant::now().max(*due) + takes;
            *due
        };
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_together_are_held_to_the_speed() {
        let pace = Pace::new(NonZeroU64::new(1_000));
        let begun = Instant::now();
        let load = async || {
            for _ in 0..10 {
                pace.wait(500).await;
            }
        };
        tokio::join!(load(), load());
        assert_eq!(begun.elapsed().as_secs(), 10);
        // Time in which nothing came is not made up for.
        tokio::time::sleep(Duration::from_secs(100)).await;
        let begun = Instant::now();
        pace.wait(2_000).await;
        assert_eq!(begun.elapsed().as_secs(), 2);
        let begun = Instant::now();
        Pace::new(None).wait(u64::MAX).await;
        assert_eq!(begun.elapsed().as_secs(), 0);
    }
}
