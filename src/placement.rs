//! Decides whether the processor or a device answers for a shard, and which shards are uploaded.
//!
//! Every shard has a home among the devices that are up. A shard that its home has is answered
//! there. Otherwise its queries wait for the upload, or the processor takes them, whichever is
//! sooner by times measured lately. Where there is room, a shard is uploaded when it is asked for.
//! It takes the place of another only once the processor has spent on it, since the other was last
//! used, what the upload costs (ski rental: at most twice the cost of the best choice).
//!
//! A [`Placement`] starts no thread and reads no clock (`now` is an argument). Of a device's store
//! it knows only the [`Residency`] it is given. [`crate::worker`] acts on its decisions.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::engine::{Residency, ShardView};
use crate::limits;

/// Who takes a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Taker {
    Processor,
    Device(usize),
}

/// A shard as this module sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct ShardDemand {
    pub shard: u32,
    /// What a batch reads and an upload copies.
    pub bytes: u64,
}

impl ShardDemand {
    /// The shard of this number, by what an engine reads of it.
    pub fn of(shard: u32, view: &ShardView<'_>) -> Self {
        Self { shard, bytes: (view.matrix.len() + view.tables.len()) as u64 }
    }
}

/// What a byte of a shard costs, in nanoseconds: a mean that forgets.
#[derive(Debug, Clone, Copy, Default)]
struct Cost(Option<f64>);

/// How much of the mean the newest measurement is.
const NEWEST_SHARE: f64 = 1.0 / 8.0;

impl Cost {
    fn learn(&mut self, bytes: u64, taken: Duration) {
        let newest = taken.as_nanos() as f64 / bytes.max(1) as f64;
        self.0 = Some(self.0.map_or(newest, |mean| mean + (newest - mean) * NEWEST_SHARE));
    }

    fn of(self, bytes: u64) -> Option<Duration> {
        self.0.map(|nanos| Duration::from_nanos((nanos * bytes as f64) as u64))
    }
}

#[derive(Debug, Default)]
struct Device {
    is_up: bool,
    upload_cost: Cost,
    /// The upload under way, and since when.
    uploading: Option<(ShardDemand, Instant)>,
    waiting: VecDeque<ShardDemand>,
}

impl Device {
    /// What an upload is expected to take: nothing before one was measured, so that one is.
    fn upload_time(&self, bytes: u64) -> Duration {
        self.upload_cost.of(bytes).unwrap_or_default()
    }

    /// When the upload of a shard is expected to be done; `None` if it is not to be uploaded.
    fn remaining(&self, now: Instant, shard: u32) -> Option<Duration> {
        let under_way = self.uploading.map_or(Duration::ZERO, |(asked, begun)| {
            let elapsed = now.saturating_duration_since(begun);
            // One that is overdue is expected to take as long again.
            self.upload_time(asked.bytes).checked_sub(elapsed).unwrap_or(elapsed)
        });
        if self.uploading.is_some_and(|(asked, _)| asked.shard == shard) {
            return Some(under_way);
        }
        let at = self.waiting.iter().position(|asked| asked.shard == shard)?;
        let before = self.waiting.iter().take(at + 1);
        let before = before.map(|asked| self.upload_time(asked.bytes));
        Some(before.fold(under_way, Duration::saturating_add))
    }
}

/// What the processor has spent on a shard that is on no device.
#[derive(Debug, Clone, Copy)]
struct Debt {
    since: Instant,
    spent: Duration,
}

/// Where queries go and what is uploaded; one a server.
#[derive(Debug, Default)]
pub struct Placement {
    devices: Vec<Device>,
    /// The processor's engines: one, but in tests.
    processors: usize,
    batch_cost: Cost,
    /// At most one a shard that is not gone.
    debts: HashMap<u32, Debt>,
    /// Shards whose upload failed, and from when on they may be tried again; the same.
    refused: HashMap<u32, Instant>,
}

impl Placement {
    /// For so many devices with stores, all up, and so many engines of the processor.
    pub fn new(devices: usize, processors: usize) -> Self {
        let device = || Device { is_up: true, ..Device::default() };
        let devices = std::iter::repeat_with(device).take(devices).collect();
        Self { devices, processors, ..Self::default() }
    }

    /// Whether the processor can answer what a device does not.
    pub fn has_processor(&self) -> bool {
        self.processors > 0
    }

    /// Whether a device takes queries.
    pub fn is_up(&self, device: usize) -> bool {
        self.devices[device].is_up
    }

    /// The device that answers a shard, if any is up.
    pub fn home(&self, shard: u32) -> Option<usize> {
        let count = self.devices.len();
        let from = shard as usize % count.max(1);
        let mut order = (from..count).chain(0..from);
        order.find(|&device| self.devices[device].is_up)
    }

    /// A shard is asked for: the device that has to upload it, if any. `residency` is the home's.
    pub fn wants_upload(
        &mut self,
        now: Instant,
        asked: ShardDemand,
        residency: Residency,
    ) -> Option<usize> {
        let home = self.home(asked.shard)?;
        let device = &self.devices[home];
        let full = device.waiting.len() >= limits::UPLOADS_WAITING_MAX;
        if full || device.remaining(now, asked.shard).is_some() {
            return None;
        }
        let worth_it = match residency {
            Residency::Here | Residency::Never => false,
            Residency::Room => true,
            Residency::InPlace { unused } => {
                let cost = device.upload_time(asked.bytes);
                self.spent_within(now, asked.shard, unused) >= cost
            }
        };
        if !worth_it || self.is_refused(now, asked.shard) {
            return None;
        }
        self.devices[home].waiting.push_back(asked);
        Some(home)
    }

    /// What the processor has spent on a shard; forgotten when it began longer ago.
    fn spent_within(&mut self, now: Instant, shard: u32, time: Duration) -> Duration {
        let Some(debt) = self.debts.get(&shard).copied() else { return Duration::ZERO };
        if now.saturating_duration_since(debt.since) > time {
            self.debts.remove(&shard);
            return Duration::ZERO;
        }
        debt.spent
    }

    fn is_refused(&mut self, now: Instant, shard: u32) -> bool {
        let Some(&until) = self.refused.get(&shard) else { return false };
        if until <= now {
            self.refused.remove(&shard);
        }
        until > now
    }

    /// Who takes queries for a shard now; `None`: they wait for its upload, or for any device where
    /// there is no processor. `residency` is the home's.
    pub fn taker(&self, now: Instant, asked: ShardDemand, residency: Residency) -> Option<Taker> {
        let processor = self.has_processor().then_some(Taker::Processor);
        let Some(home) = self.home(asked.shard) else { return processor };
        if residency == Residency::Here {
            return Some(Taker::Device(home));
        }
        match self.devices[home].remaining(now, asked.shard) {
            // What a batch takes is not known before there was one.
            Some(upload) if processor.is_some() => {
                let batch = self.batch_cost.of(asked.bytes);
                processor.filter(|_| batch.is_none_or(|batch| batch < upload))
            }
            Some(_) => None,
            None => processor.or(Some(Taker::Device(home))),
        }
    }

    /// The processor has answered a batch of each of these shards.
    pub fn answered(&mut self, now: Instant, shards: &[ShardDemand], taken: Duration) {
        let bytes: u64 = shards.iter().map(|asked| asked.bytes).sum();
        self.batch_cost.learn(bytes, taken);
        if self.devices.is_empty() {
            return;
        }
        for asked in shards {
            let share = asked.bytes as f64 / bytes.max(1) as f64;
            let since = now.checked_sub(taken).unwrap_or(now);
            let debt = self.debts.entry(asked.shard);
            debt.or_insert(Debt { since, spent: Duration::ZERO }).spent += taken.mul_f64(share);
        }
    }

    /// The next shard to upload to a device, which thereby begins; one at a time a device.
    pub fn begin_upload(&mut self, now: Instant, device: usize) -> Option<u32> {
        let device = &mut self.devices[device];
        let asked = device.waiting.pop_front()?;
        device.uploading = Some((asked, now));
        Some(asked.shard)
    }

    /// The upload that was begun is done.
    pub fn uploaded(&mut self, now: Instant, device: usize) {
        let device = &mut self.devices[device];
        let ended = device.uploading.take();
        let (asked, begun) = ended.expect("this is a bug: an upload ended that was not begun");
        device.upload_cost.learn(asked.bytes, now.saturating_duration_since(begun));
        self.debts.remove(&asked.shard);
    }

    /// The upload that was begun failed: the shard is not asked for again for a while.
    pub fn upload_failed(&mut self, now: Instant, device: usize) {
        let ended = self.devices[device].uploading.take();
        let (asked, _) = ended.expect("this is a bug: an upload ended that was not begun");
        self.refused.insert(asked.shard, now + limits::UPLOAD_AGAIN_AFTER);
    }

    /// The upload that was begun is of no shard that anybody asks for any more.
    pub fn upload_dropped(&mut self, device: usize) {
        self.devices[device].uploading = None;
    }

    /// Forgets the shards for which `gone` is true.
    pub fn forget(&mut self, gone: impl Fn(u32) -> bool) {
        self.debts.retain(|&shard, _| !gone(shard));
        self.refused.retain(|&shard, _| !gone(shard));
    }

    /// A device failed: until it is up again others take its shards, and what it had is gone.
    pub fn down(&mut self, device: usize) {
        let device = &mut self.devices[device];
        device.is_up = false;
        device.waiting.clear();
    }

    /// A device was recreated. What failed before says nothing of it.
    pub fn up(&mut self, device: usize) {
        self.devices[device].is_up = true;
        self.refused.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const BYTES: u64 = 1_000_000;

    fn shard(shard: u32) -> ShardDemand {
        ShardDemand { shard, bytes: BYTES }
    }

    fn in_place(unused: Duration) -> Residency {
        Residency::InPlace { unused }
    }

    fn wants(placement: &mut Placement, now: Instant, number: u32, residency: Residency) -> bool {
        let wanted = placement.wants_upload(now, shard(number), residency);
        assert!(wanted.is_none() || wanted == placement.home(number));
        wanted.is_some()
    }

    /// Uploads a shard that there is room for, and begins at once.
    fn begin(placement: &mut Placement, now: Instant, number: u32) {
        assert!(wants(placement, now, number, Residency::Room));
        assert_eq!(placement.begin_upload(now, 0), Some(number));
    }

    fn taker(placement: &Placement, now: Instant, number: u32) -> Option<Taker> {
        placement.taker(now, shard(number), Residency::Room)
    }

    /// One device whose uploads take 100 ms, and a processor that takes so long for a batch.
    fn measured(start: Instant, batch: Duration) -> Placement {
        let mut placement = Placement::new(1, 1);
        begin(&mut placement, start, 99);
        placement.uploaded(start + 100 * MS, 0);
        placement.answered(start, &[shard(98)], batch);
        placement
    }

    #[test]
    fn homes_spread_over_the_devices_that_are_up() {
        let mut placement = Placement::new(3, 1);
        let homes = |placement: &Placement| [0, 1, 2, 3, 4].map(|shard| placement.home(shard));
        assert_eq!(homes(&placement), [Some(0), Some(1), Some(2), Some(0), Some(1)]);
        placement.down(1);
        assert_eq!(homes(&placement), [Some(0), Some(2), Some(2), Some(0), Some(2)]);
        placement.down(2);
        placement.down(0);
        assert_eq!(homes(&placement), [None; 5]);
        placement.up(1);
        assert_eq!(homes(&placement), [Some(1); 5]);
        assert_eq!(Placement::new(0, 1).home(7), None);
    }

    #[test]
    fn what_is_there_is_answered_there_and_what_is_nowhere_by_the_processor() {
        let now = Instant::now();
        let mut placement = Placement::new(2, 1);
        let taker = |placement: &Placement, residency| placement.taker(now, shard(3), residency);
        assert_eq!(taker(&placement, Residency::Here), Some(Taker::Device(1)));
        for residency in [Residency::Room, Residency::Never, in_place(MS)] {
            assert_eq!(taker(&placement, residency), Some(Taker::Processor));
        }
        placement.down(1);
        assert_eq!(taker(&placement, Residency::Here), Some(Taker::Device(0)));
        placement.down(0);
        assert_eq!(taker(&placement, Residency::Never), Some(Taker::Processor));
        assert!(!wants(&mut placement, now, 3, Residency::Room));
    }

    #[test]
    fn without_a_processor_the_home_takes_all_but_what_is_being_uploaded() {
        let now = Instant::now();
        let mut placement = Placement::new(1, 0);
        assert_eq!(taker(&placement, now, 3), Some(Taker::Device(0)));
        begin(&mut placement, now, 3);
        assert_eq!(taker(&placement, now, 3), None);
        placement.upload_failed(now, 0);
        assert_eq!(taker(&placement, now, 3), Some(Taker::Device(0)));
        placement.down(0);
        assert_eq!(taker(&placement, now, 3), None);
    }

    #[test]
    fn the_processor_takes_what_it_would_answer_before_the_upload_is_done() {
        let start = Instant::now();
        let mut placement = measured(start, 60 * MS);
        let taker =
            |placement: &Placement, at: u32, number| taker(placement, start + at * MS, number);
        assert!(wants(&mut placement, start, 1, Residency::Room));
        assert!(!wants(&mut placement, start, 1, Residency::Room), "it is under way");
        // 100 ms until it is there, not yet begun.
        assert_eq!(taker(&placement, 0, 1), Some(Taker::Processor));
        assert_eq!(placement.begin_upload(start, 0), Some(1));
        assert_eq!(taker(&placement, 39, 1), Some(Taker::Processor));
        assert_eq!(taker(&placement, 41, 1), None);
        // Overdue after 100 ms: as long again is more than a batch.
        assert_eq!(taker(&placement, 99, 1), None);
        assert_eq!(taker(&placement, 101, 1), Some(Taker::Processor));
        // Behind it another: what remains of the first is added.
        assert!(wants(&mut placement, start, 2, Residency::Room));
        assert_eq!(taker(&placement, 90, 2), Some(Taker::Processor));
        placement.uploaded(start + 100 * MS, 0);
        assert_eq!(placement.begin_upload(start + 100 * MS, 0), Some(2));
        assert_eq!(taker(&placement, 141, 2), None);
        assert_eq!(placement.begin_upload(start, 0), None);
    }

    #[test]
    fn a_slow_processor_leaves_queries_to_the_upload_once_it_was_measured() {
        let start = Instant::now();
        let mut placement = Placement::new(1, 1);
        assert!(wants(&mut placement, start, 1, Residency::Room));
        assert_eq!(taker(&placement, start, 1), Some(Taker::Processor), "never measured");
        placement.answered(start, &[shard(1)], 10 * MS);
        assert_eq!(taker(&placement, start, 1), None);
        let mut placement = measured(start, 150 * MS);
        assert!([1, 2].iter().all(|&n| wants(&mut placement, start, n, Residency::Room)));
        // Two uploads take longer than one batch.
        assert_eq!([1, 2].map(|n| taker(&placement, start, n)), [None, Some(Taker::Processor)]);
    }

    #[test]
    fn another_makes_room_once_the_processor_has_spent_what_the_upload_costs() {
        let start = Instant::now();
        let mut placement = measured(start, 40 * MS);
        let long = in_place(Duration::from_secs(10));
        for batch in 0..3 {
            let now = start + batch * 1000 * MS;
            assert!(!wants(&mut placement, now, 1, long), "after {batch} batches");
            placement.answered(now, &[shard(1)], 40 * MS);
        }
        let now = start + 4000 * MS;
        // What it would replace was used since the first of those batches.
        let mut other = measured(start, 40 * MS);
        (0..3).for_each(|_| other.answered(start, &[shard(1)], 40 * MS));
        assert!(!wants(&mut other, now, 1, in_place(3900 * MS)));
        assert!(!wants(&mut other, now, 1, long), "and so they are forgotten");
        assert!(!wants(&mut placement, now, 1, Residency::Never));
        assert!(wants(&mut placement, now, 1, long));
        // Once it was uploaded it owes nothing.
        placement.begin_upload(now, 0).unwrap();
        placement.uploaded(now + 100 * MS, 0);
        assert!(!wants(&mut placement, now + 100 * MS, 1, long));
    }

    #[test]
    fn costs_follow_what_was_measured_lately() {
        let start = Instant::now();
        let mut placement = measured(start, 10 * MS);
        assert_eq!(placement.batch_cost.of(2 * BYTES), Some(20 * MS));
        // Batches of two shards at once cost each its share.
        placement.answered(start, &[shard(1), ShardDemand { shard: 2, bytes: 3 * BYTES }], 40 * MS);
        assert_eq!(placement.batch_cost.of(BYTES), Some(10 * MS));
        let spent = [1, 2].map(|shard| placement.debts[&shard].spent);
        assert_eq!(spent, [10 * MS, 30 * MS]);
        (0..50).for_each(|_| placement.answered(start, &[shard(1)], 30 * MS));
        let cost = placement.batch_cost.of(BYTES).unwrap();
        assert!(cost > 29 * MS && cost < 30 * MS, "{cost:?}");
    }

    #[test]
    fn the_line_of_uploads_is_short_and_a_failed_one_is_not_tried_at_once() {
        let start = Instant::now();
        let mut placement = measured(start, 10 * MS);
        let room = Residency::Room;
        let most = limits::UPLOADS_WAITING_MAX as u32;
        let taken = (0..most + 3).filter(|&n| wants(&mut placement, start, n, room));
        assert_eq!(taken.count(), most as usize);
        assert_eq!(placement.begin_upload(start, 0), Some(0));
        placement.upload_failed(start, 0);
        assert_eq!(taker(&placement, start, 0), Some(Taker::Processor));
        assert!(!wants(&mut placement, start, 0, room));
        assert!(wants(&mut placement, start, most, room));
        placement.begin_upload(start, 0);
        let later = start + limits::UPLOAD_AGAIN_AFTER;
        assert!(wants(&mut placement, later, 0, room));
        // A device that fails forgets what was to come; one recreated may try everything.
        placement.down(0);
        placement.upload_failed(start, 0);
        assert_eq!(placement.begin_upload(start, 0), None);
        placement.up(0);
        assert!(wants(&mut placement, start, 1, room));
    }

    #[test]
    fn nothing_is_remembered_of_a_shard_that_is_gone() {
        let start = Instant::now();
        let mut placement = measured(start, 40 * MS);
        placement.answered(start, &[shard(1), shard(2)], 80 * MS);
        for number in [3, 4] {
            begin(&mut placement, start, number);
            placement.upload_failed(start, 0);
        }
        placement.forget(|shard| shard == 1 || shard == 3 || shard == 98);
        let mut remembered: Vec<u32> = placement.debts.keys().copied().collect();
        remembered.extend(placement.refused.keys());
        remembered.sort_unstable();
        assert_eq!(remembered, [2, 4]);
        // An upload of one that is gone leaves nothing behind, and says nothing of the device.
        begin(&mut placement, start, 5);
        placement.upload_dropped(0);
        assert_eq!(placement.devices[0].upload_time(BYTES), 100 * MS);
        assert!(wants(&mut placement, start, 5, Residency::Room));
    }
}
