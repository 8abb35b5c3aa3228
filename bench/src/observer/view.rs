//! What one observer sees of a world: cells as far as it tells them apart, the events that name a
//! cell, and events that show the same cells.

use super::world::{BATCH, Event, PACKS, World};

/// Lists of numbers, one for each index.
struct Lists {
    starts: Vec<usize>,
    items: Vec<u32>,
}

impl Lists {
    /// Of pairs of an index and an item, whose order stays.
    fn new(count: usize, pairs: impl Iterator<Item = (u32, u32)> + Clone) -> Self {
        let mut starts = vec![0; count + 1];
        pairs.clone().for_each(|(index, _)| starts[index as usize + 1] += 1);
        (0..count).for_each(|index| starts[index + 1] += starts[index]);
        let mut next = starts.clone();
        let mut items = vec![0; starts[count]];
        for (index, item) in pairs {
            let at = &mut next[index as usize];
            items[*at] = item;
            *at += 1;
        }
        Self { starts, items }
    }

    fn of(&self, index: u32) -> &[u32] {
        &self.items[self.starts[index as usize]..self.starts[index as usize + 1]]
    }
}

pub(super) struct View<'w> {
    pub(super) world: &'w World,
    /// So many cells are told apart.
    pub(super) cells: usize,
    divisor: u32,
    /// Two events that share so many cells are the same batch, and not two by chance.
    pub(super) recognised: usize,
    /// Events that show the same cells, which are `recognised` or more, have the same class.
    pub(super) class_of: Vec<u32>,
    by_class: Lists,
    by_device: Lists,
    by_cell: Lists,
}

impl<'w> View<'w> {
    /// The view of who does not tell `divisor` neighbouring cells apart.
    pub(super) fn new(world: &'w World, divisor: usize) -> Self {
        let (cells, divisor) = (world.size.shards * PACKS / divisor, divisor as u32);
        let recognised = recognised(cells, world.events.len());
        let (class_of, classes) = classes(world, divisor, recognised);
        let numbered = || (0..).zip(&world.events);
        let members = numbered().flat_map(|(number, event)| {
            world.cells_of(event).iter().map(move |cell| (cell / divisor, number))
        });
        Self {
            world,
            cells,
            divisor,
            recognised,
            by_class: Lists::new(classes, class_of.iter().copied().zip(0..)),
            by_device: Lists::new(
                world.size.devices,
                numbered().map(|(number, event)| (event.device, number)),
            ),
            by_cell: Lists::new(cells, members),
            class_of,
        }
    }

    pub(super) fn event(&self, number: u32) -> &'w Event {
        &self.world.events[number as usize]
    }

    /// The names of an event's members, which no observer sees.
    pub(super) fn names_of(&self, number: u32) -> &'w [u16] {
        self.world.names_of(self.event(number))
    }

    /// The cells of an event, as far as this observer tells them apart.
    pub(super) fn cells_of(&self, number: u32) -> impl Iterator<Item = u32> + '_ {
        self.world.cells_of(self.event(number)).iter().map(|cell| cell / self.divisor)
    }

    /// The events before `end` that name a cell, earliest first; likewise below.
    pub(super) fn naming(&self, cell: u32, end: f64) -> &[u32] {
        self.before(self.by_cell.of(cell), end)
    }

    pub(super) fn of_class(&self, class: u32, end: f64) -> &[u32] {
        self.before(self.by_class.of(class), end)
    }

    pub(super) fn of_device(&self, device: u32, end: f64) -> &[u32] {
        self.before(self.by_device.of(device), end)
    }

    /// How many events are before `end`. They have the lowest numbers.
    pub(super) fn count_before(&self, end: f64) -> usize {
        self.world.events.partition_point(|event| event.time < end)
    }

    fn before<'l>(&self, list: &'l [u32], end: f64) -> &'l [u32] {
        &list[..list.partition_point(|&number| self.event(number).time < end)]
    }
}

/// The least number of common cells that less than a tenth of an event shares by chance:
/// C(16, k)^2 k! / cells^k of all events.
fn recognised(cells: usize, events: usize) -> usize {
    let mut by_chance = events as f64;
    for common in 0..BATCH {
        if by_chance < 0.1 {
            return common;
        }
        let left = (BATCH - common) as f64;
        by_chance *= left * left / ((common + 1) as f64 * cells as f64);
    }
    BATCH
}

/// A number for each event, equal where the cells are, and how many numbers there are.
fn classes(world: &World, divisor: u32, recognised: usize) -> (Vec<u32>, usize) {
    let mut prints: Vec<([u8; 16], u32)> = Vec::new();
    for (event, number) in world.events.iter().zip(0u32..) {
        let mut cells: Vec<u32> = world.cells_of(event).iter().map(|cell| cell / divisor).collect();
        cells.sort_unstable();
        let mut hasher = blake3::Hasher::new();
        for cell in &cells {
            hasher.update(&cell.to_le_bytes());
        }
        if cells.len() < recognised {
            hasher.update(&number.to_le_bytes());
        }
        let mut print = [0; 16];
        hasher.finalize_xof().fill(&mut print);
        prints.push((print, number));
    }
    prints.sort_unstable();
    let mut class_of = vec![0; prints.len()];
    let mut classes = 0;
    for (place, (print, number)) in prints.iter().enumerate() {
        classes += u32::from(place == 0 || prints[place - 1].0 != *print);
        class_of[*number as usize] = classes - 1;
    }
    (class_of, classes as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_hold_what_belongs_to_an_index() {
        let lists = Lists::new(3, [(2, 7), (0, 8), (2, 5)].into_iter());
        assert_eq!([lists.of(0), lists.of(1), lists.of(2)], [&[8][..], &[], &[7, 5]]);
    }

    #[test]
    fn chance_explains_few_common_cells() {
        // Two batches share one of a million cells with 256 / 10^6, and 2 with 28 800 / 10^12.
        let least = |events: usize| recognised(1_000_000, events);
        assert_eq!([1, 100, 10_000, 1_000_000].map(least), [1, 1, 2, 2]);
        assert_eq!(least(10_000_000), 3);
    }
}
