//! Opening a database: the manifest, then the header page of every shard file, mapped.
//!
//! Opening reads one page a shard, in parallel, and keeps a map and no file descriptor. Only
//! [`super::verify`] and [`Database::follow`] read sections.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use memmap2::Mmap;
use rayon::prelude::*;

use super::errors::OpenError;
use super::files::open_regular;
use super::guard::{Guarded, quarantined_total};
use super::header::{Header, SECTION_NAMES, Section, file_name, read_from};
use super::held::HeldBy;
use super::manifest::{MANIFEST_NAME, Manifest, SHARDS_DIR};
use super::sections::verify_sections;
use super::view::{ContentId, ShardView};
use crate::params::Shape;

/// One shard of an open database.
pub struct Shard {
    header: Header,
    sections: [Section; 3],
    content: ContentId,
    map: Guarded,
    /// That it is quarantined was reported.
    reported: AtomicBool,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("header", &self.header).finish_non_exhaustive()
    }
}

impl Shard {
    /// Opens and checks one file against what the manifest says of it.
    fn open(path: &Path, manifest: &Manifest, index: u32) -> Result<Self, OpenError> {
        let no_map = |source| OpenError::Map { path: path.to_owned(), source };
        let file = open_regular(path).map_err(OpenError::io(path))?;
        let header = read_from(&file, path, &manifest.shape())?;
        manifest.check_header(&header, index).map_err(OpenError::shard(path))?;
        // SAFETY: shard files are named after their content and never modified in place: builders
        // write new files and unlink old ones, which leaves maps as they are. Where a file is
        // truncated by hand its guard puts zeros in its place; no Rust value but bytes is read from
        // the map, so changed bytes are only wrong answers.
        let map = unsafe { Mmap::map(&file) }.map_err(no_map)?;
        let sections = header.sections();
        // Large pages where the filesystem has them (ext4, xfs): a query walks all of these, and
        // a virtual machine pays twice for each page's address. Elsewhere refused, which is fine.
        #[cfg(target_os = "linux")]
        let _ = {
            let [matrix, tables, _] = &sections;
            let bytes = tables.offset + tables.bytes - matrix.offset;
            map.advise_range(memmap2::Advice::HugePage, matrix.offset as usize, bytes as usize)
        };
        let map = Guarded::new(map).map_err(no_map)?;
        let content = ContentId::of(&header.digest(), quarantined_total());
        Ok(Self { header, sections, content, map, reported: AtomicBool::new(false) })
    }

    /// What an engine reads.
    pub fn view(&self) -> ShardView<'_> {
        let (matrix, tables) = (self.section(0), self.section(1));
        ShardView { shape: &self.header.shape, matrix, tables, content: Some(self.content) }
    }

    /// The packed hints, `hint_bytes` a pack, packs in order.
    pub fn hints(&self) -> &[u8] {
        self.section(2)
    }

    /// What clients check the hints against: the digest over the digests of their packs.
    pub fn hint_digest(&self) -> [u8; 16] {
        self.header.hint_digest()
    }

    /// What the file says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The name of its file.
    pub fn file_name(&self) -> String {
        file_name(&self.header.digest())
    }

    /// Whether nothing that was read of it so far was lost, as it is when its file is truncated:
    /// asked after reading it, before what came of that is used.
    pub fn is_whole(&self) -> bool {
        self.map.is_whole()
    }

    /// Whether it is not to be used any more: its file does not have what its header says.
    pub fn is_quarantined(&self) -> bool {
        self.map.is_quarantined()
    }

    /// Has it used no more. What opens its file later is another shard, and may be used.
    pub fn quarantine(&self) {
        self.map.quarantine();
    }

    /// Whether it is quarantined and that was not yet reported; true only once.
    pub fn report_quarantined(&self) -> bool {
        self.is_quarantined() && !self.reported.swap(true, Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    fn section(&self, index: usize) -> &[u8] {
        let Section { offset, bytes, .. } = self.sections[index];
        &self.map[offset as usize..(offset + bytes) as usize]
    }
}

/// How far opening a database has come: read by others meanwhile.
#[derive(Debug, Default)]
pub struct Opening {
    shards: AtomicU32,
    opened: AtomicU32,
}

impl Opening {
    /// Shards that are open, and all there are; none before the manifest was read.
    pub fn progress(&self) -> (u32, u32) {
        (self.opened.load(Ordering::Relaxed), self.shards.load(Ordering::Relaxed))
    }
}

/// An open database: every shard that is held is mapped, headers and manifest are checked.
#[derive(Debug)]
pub struct Database {
    directory: PathBuf,
    held_by: Option<HeldBy>,
    manifest: Manifest,
    shape: Shape,
    hint_digests: Vec<u8>,
    /// Those that are held with their numbers, in order.
    shards: Vec<(u32, Arc<Shard>)>,
}

impl Database {
    /// Opens all of a database directory. Refuses wrong, truncated and swapped files by name.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        Self::open_held(directory, None, &Opening::default())
    }

    /// Opens what a host holds of it, or all, for others to see how far that has come.
    pub fn open_held(
        directory: &Path,
        held_by: Option<HeldBy>,
        opening: &Opening,
    ) -> Result<Self, OpenError> {
        Self::open_named(directory, held_by, Self::read_manifest(directory)?, opening)
    }

    /// The manifest of a database directory.
    pub fn read_manifest(directory: &Path) -> Result<Manifest, OpenError> {
        Manifest::read(&directory.join(MANIFEST_NAME)).map_err(|error| match error {
            // Of what may not be read nobody knows whether it is finished.
            OpenError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                OpenError::NoManifest { directory: directory.to_owned() }
            }
            other => other,
        })
    }

    /// The same of what this manifest names.
    pub fn open_named(
        directory: &Path,
        held_by: Option<HeldBy>,
        manifest: Manifest,
        opening: &Opening,
    ) -> Result<Self, OpenError> {
        let folder = directory.join(SHARDS_DIR);
        let held = held(held_by.as_ref(), &manifest)?;
        opening.shards.store(held.len() as u32, Ordering::Relaxed);
        let open = |&index: &u32| {
            let entry = &manifest.shards[index as usize];
            let shard = Shard::open(&folder.join(&entry.file), &manifest, index)?;
            opening.opened.fetch_add(1, Ordering::Relaxed);
            Ok((index, Arc::new(shard)))
        };
        let opened: Vec<_> = held.par_iter().map(open).collect();
        let shards = opened.into_iter().collect::<Result<Vec<_>, _>>()?; // the first error by order
        Ok(Self::of(directory, held_by, manifest, shards))
    }

    /// Opens what is held of what this manifest names, to be served after this database; `None`
    /// where that is this database and no shard of it is quarantined. Unchanged shards are shared;
    /// of others every byte is read, one shard at a time, and `read` is told how many bytes more. A
    /// quarantined shard is opened again; where it is still bad it stays quarantined, which alone
    /// is no reason to refuse a manifest. What is held is read from the placement again.
    ///
    /// # Errors
    /// The manifest may not follow this one's, a file is refused, or nothing is better than it was.
    pub fn follow(
        &self,
        manifest: Manifest,
        read: &(dyn Fn(u64) + Sync),
    ) -> Result<Option<Self>, OpenError> {
        let path = self.directory.join(MANIFEST_NAME);
        manifest.may_follow(&self.manifest).map_err(OpenError::manifest(&path))?;
        let held = held(self.held_by.as_ref(), &manifest)?;
        let is_as_it_was = held.iter().eq(self.shards.iter().map(|(index, _)| index));
        let mut changed = manifest != self.manifest || !is_as_it_was;
        if !changed && !self.shards().any(|shard| shard.is_quarantined()) {
            return Ok(None);
        }
        let folder = self.directory.join(SHARDS_DIR);
        let (mut shards, mut still_bad) = (Vec::with_capacity(held.len()), None);
        for index in held {
            let entry = &manifest.shards[index as usize];
            let is_same = self.manifest.shards[index as usize] == *entry;
            let before = self.shard(index).filter(|_| is_same);
            if let Some(before) = before.filter(|before| !before.is_quarantined()) {
                shards.push((index, before.clone()));
                continue;
            }
            let path = folder.join(&entry.file);
            let opened = Shard::open(&path, &manifest, index).and_then(|shard| {
                verify_sections(&path, shard.header(), 0..SECTION_NAMES.len(), read)?;
                Ok(shard)
            });
            match (opened, before) {
                (Ok(shard), _) => {
                    changed = true;
                    shards.push((index, Arc::new(shard)));
                }
                (Err(error), Some(before)) => {
                    still_bad = Some(error);
                    shards.push((index, before.clone()));
                }
                (Err(error), None) => return Err(error),
            }
        }
        match still_bad {
            Some(error) if !changed => Err(error),
            _ => Ok(Some(Self::of(&self.directory, self.held_by.clone(), manifest, shards))),
        }
    }

    fn of(
        directory: &Path,
        held_by: Option<HeldBy>,
        manifest: Manifest,
        shards: Vec<(u32, Arc<Shard>)>,
    ) -> Self {
        Self {
            directory: directory.to_owned(),
            held_by,
            shape: manifest.shape(),
            hint_digests: manifest.hint_digests(),
            manifest,
            shards,
        }
    }

    /// The directory it was opened from.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
    /// Sizes of every shard.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }
    /// The public seed.
    pub fn seed(&self) -> &[u8; 32] {
        &self.manifest.seed.0
    }
    /// Shards of the database.
    pub fn shard_count(&self) -> u32 {
        self.manifest.shard_count
    }
    /// The epoch of its content.
    pub fn epoch(&self) -> u64 {
        self.manifest.epoch
    }
    /// By which placement it is held; none where all of it is.
    pub fn held_by(&self) -> Option<&HeldBy> {
        self.held_by.as_ref()
    }
    /// The file of a shard.
    pub fn shard_path(&self, index: u32) -> PathBuf {
        self.directory.join(SHARDS_DIR).join(&self.manifest.shards[index as usize].file)
    }
    /// The shards that are held with their numbers, in order; at least one.
    pub fn held(&self) -> &[(u32, Arc<Shard>)] {
        &self.shards
    }
    /// The shards that are held, in order.
    pub fn shards(&self) -> impl Iterator<Item = &Arc<Shard>> {
        self.shards.iter().map(|(_, shard)| shard)
    }
    /// One shard, where it is held.
    pub fn shard(&self, index: u32) -> Option<&Arc<Shard>> {
        let at = self.shards.binary_search_by_key(&index, |&(number, _)| number).ok()?;
        Some(&self.shards[at].1)
    }
    /// The operator's public key.
    pub fn operator_key(&self) -> &[u8; 32] {
        &self.manifest.operator_key.0
    }
    /// Hint digests of all shards, 16 bytes each, in order.
    pub fn hint_digests(&self) -> &[u8] {
        &self.hint_digests
    }
}

/// The numbers of the shards that are held of what a manifest names, in order.
fn held(held_by: Option<&HeldBy>, manifest: &Manifest) -> Result<Vec<u32>, OpenError> {
    match held_by {
        None => Ok((0..manifest.shard_count).collect()),
        Some(held_by) => Ok(held_by.shards(manifest.shard_count)?.iter().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise;
    use super::super::verify::{verify, verify_bytes};
    use super::*;
    use crate::scheme::hint_digest;

    #[test]
    fn a_database_opens_verifies_and_shows_its_sections() {
        let directory = tempfile::tempdir().unwrap();
        noise::write(directory.path(), 1, &[0, 1, 2]);
        let opening = Opening::default();
        let database = Database::open_held(directory.path(), None, &opening).unwrap();
        assert_eq!((database.shard_count(), database.epoch()), (3, 1));
        assert_eq!(opening.progress(), (3, 3));
        let (shard, shape) = (database.shard(2).unwrap(), database.shape());
        assert!(database.shard(3).is_none());
        let lengths = [shard.view().matrix.len(), shard.view().tables.len(), shard.hints().len()];
        assert_eq!(lengths, [shape.matrix_bytes(), shape.table_bytes(), shape.hint_bytes()]);
        let packs = shard.hints().chunks(shape.hint_bytes());
        assert_eq!(shard.hint_digest(), hint_digest(packs));
        assert_eq!(database.hint_digests()[32..48], shard.hint_digest());
        let read = std::sync::atomic::AtomicU64::new(0);
        let problems = verify(&database, &|bytes| _ = read.fetch_add(bytes, Ordering::Relaxed));
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(read.into_inner(), verify_bytes(&database));
    }

    #[test]
    fn a_directory_without_manifest_does_not_open() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path(), &directory.path().join("none")] {
            let error = Database::open(path).unwrap_err();
            assert!(matches!(error, OpenError::NoManifest { .. }), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_called_unfinished() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let directory = tempfile::tempdir().unwrap();
        noise::write(directory.path(), 1, &[0]);
        let database = Database::open(directory.path()).unwrap();
        for path in [directory.path().join(MANIFEST_NAME), database.shard_path(0)] {
            let aside = path.with_extension("aside");
            std::fs::rename(&path, &aside).unwrap();
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
            let error = Database::open(directory.path()).unwrap_err();
            assert!(matches!(error, OpenError::Io { .. }), "{error}");
            assert!(error.to_string().contains("it is a pipe (FIFO)"), "{error}");
            std::fs::rename(&aside, &path).unwrap();
            Database::open(directory.path()).unwrap();
        }
    }
}
