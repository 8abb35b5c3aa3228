//! The tree as static files (C2SP tlog-tiles): tiles of 256 hashes, and bundles of 256 entries.

use super::errors::LogError;
use super::tree::{HASH_BYTES, Hash, Node, Peaks, fold};

/// Hashes of a full tile, and entries of a full bundle.
pub const TILE_WIDTH: usize = 256;
/// Levels of a tree of at most 2^40 entries.
pub const LEVELS: usize = 6;

/// What a static file of the tree has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Entries.
    Entries,
    /// Hashes of this level: each of 256 to this power entries.
    Hashes(u8),
}

/// A static file of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// What it has.
    pub content: Content,
    /// Its number in the level.
    pub number: u64,
    /// 256, or less where it is the last.
    pub width: usize,
}

impl Place {
    /// The path of the full file, without the suffix of a partial one.
    pub fn stem(&self) -> String {
        let level = match self.content {
            Content::Entries => "entries".to_owned(),
            Content::Hashes(level) => level.to_string(),
        };
        let mut number = format!("{:03}", self.number % 1_000);
        let mut rest = self.number / 1_000;
        while rest > 0 {
            number = format!("x{:03}/{number}", rest % 1_000);
            rest /= 1_000;
        }
        format!("tile/{level}/{number}")
    }

    /// Its path.
    pub fn path(&self) -> String {
        match self.width {
            TILE_WIDTH => self.stem(),
            width => format!("{}.p/{width}", self.stem()),
        }
    }

    /// What a path names; `None` where it names nothing, in other words every other text.
    pub fn parse(path: &str) -> Option<Self> {
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let content = match level {
            "entries" => Content::Entries,
            level => Content::Hashes(level.parse().ok().filter(|&level| level < 64)?),
        };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse().ok()?),
            None => (rest, TILE_WIDTH),
        };
        let digits: String = number.split('/').map(|part| part.trim_start_matches('x')).collect();
        let number = digits.parse().ok()?;
        let place = Self { content, number, width };
        // One form only.
        ((1..=TILE_WIDTH).contains(&width) && place.path() == path).then_some(place)
    }
}

/// The files of a level that change while the tree grows from `before` to `after` entries.
pub fn changed(content: Content, before: u64, after: u64) -> impl Iterator<Item = Place> {
    let shift = match content {
        Content::Entries => 0,
        Content::Hashes(level) => 8 * u32::from(level),
    };
    let (before, after) = (before >> shift, after >> shift);
    let numbers = if before < after { before / 256..after.div_ceil(256) } else { 0..0 };
    numbers.map(move |number| Place {
        content,
        number,
        width: (after - number * 256).min(256) as usize,
    })
}

/// A tile: hashes of a level that lie side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// 0 for leaves.
    pub level: u8,
    /// Its number in the level.
    pub number: u64,
    /// At most 256.
    pub hashes: Vec<Hash>,
}

/// Where in the tiles the hashes below a perfect subtree are: level, number, first, how many.
pub fn within(node: Node) -> (u8, u64, usize, usize) {
    let (level, above) = (node.height / 8, node.height % 8);
    let first = node.number << above;
    (level, first / 256, (first % 256) as usize, 1 << above)
}

/// The last tile of each level of a tree: enough to let it grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    levels: [Vec<Hash>; LEVELS],
}

impl Frontier {
    /// The last tile of each level of a tree of so many entries: its number and width. Those of
    /// width 0 are not stored.
    pub fn places(size: u64) -> [(u64, usize); LEVELS] {
        std::array::from_fn(|level| {
            let hashes = size >> (8 * level);
            (hashes / 256, (hashes % 256) as usize)
        })
    }

    /// From the tiles at [`Frontier::places`]: each may have more hashes than that.
    ///
    /// # Errors
    /// One has fewer.
    pub fn new(size: u64, mut levels: [Vec<Hash>; LEVELS]) -> Result<Self, LogError> {
        for (tile, (_, width)) in levels.iter_mut().zip(Self::places(size)) {
            if tile.len() < width {
                let found = format!("{} hashes", tile.len());
                return Err(LogError::malformed("a tile", found, "as many as its tree needs"));
            }
            tile.truncate(width);
        }
        Ok(Self { size, levels })
    }

    /// Entries of the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf. Returns the tiles that are full now.
    pub fn push(&mut self, leaf: Hash) -> Vec<Tile> {
        let (mut full, mut hash) = (Vec::new(), leaf);
        self.size += 1;
        for (level, tile) in self.levels.iter_mut().enumerate() {
            tile.push(hash);
            if tile.len() < TILE_WIDTH {
                break;
            }
            hash = fold(tile);
            let number = (self.size >> (8 * (level + 1))) - 1;
            full.push(Tile { level: level as u8, number, hashes: std::mem::take(tile) });
        }
        full
    }

    /// The last tile of each level, where it has something.
    pub fn tiles(&self) -> impl Iterator<Item = Tile> {
        let places = Self::places(self.size);
        self.levels.iter().enumerate().filter(|(_, hashes)| !hashes.is_empty()).map(
            move |(level, hashes)| Tile {
                level: level as u8,
                number: places[level].0,
                hashes: hashes.clone(),
            },
        )
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut peaks = Peaks::default();
        for (level, hashes) in self.levels.iter().enumerate().rev() {
            for hash in hashes {
                peaks.push(8 * level as u8, *hash);
            }
        }
        peaks.root()
    }
}

/// The bytes of a tile's file.
pub fn tile_bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.as_flattened().to_vec()
}

/// Reads a tile's file of `width` hashes at least.
///
/// # Errors
/// Its length is not that of hashes, or it has too few or more than a tile.
pub fn read_tile(bytes: &[u8], width: usize) -> Result<Vec<Hash>, LogError> {
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    if !rest.is_empty() || hashes.len() < width || hashes.len() > TILE_WIDTH {
        let found = format!("{} bytes", bytes.len());
        return Err(LogError::malformed("a tile", found, "32 for each hash, as many as asked for"));
    }
    Ok(hashes.to_vec())
}

/// The bytes of a bundle's file.
pub fn bundle_bytes(entries: &[Vec<u8>]) -> Vec<u8> {
    let one = |entry: &Vec<u8>| {
        let length = u16::try_from(entry.len()).expect("this is a bug: an entry is too long");
        [&length.to_be_bytes()[..], entry].concat()
    };
    entries.iter().flat_map(one).collect()
}

/// Reads a bundle's file of `width` entries at least.
///
/// # Errors
/// It ends early, or has too few or more than a bundle.
pub fn read_bundle(mut bytes: &[u8], width: usize) -> Result<Vec<Vec<u8>>, LogError> {
    let wrong = |found: String| {
        LogError::malformed("a bundle", found, "entries with their lengths, as many as asked for")
    };
    let mut entries = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let entry = rest.split_at_checked(u16::from_be_bytes(*length).into());
        let (entry, rest) = entry.ok_or_else(|| wrong(format!("{} bytes too few", rest.len())))?;
        entries.push(entry.to_vec());
        bytes = rest;
    }
    match bytes.is_empty() && (width..=TILE_WIDTH).contains(&entries.len()) {
        true => Ok(entries),
        false => Err(wrong(format!("{} entries and {} bytes", entries.len(), bytes.len()))),
    }
}
