//! Public files: the directory, the signed list of OHTTP keys, and the parameters, routing filters
//! and proofs of databases. They are the same bytes for everybody, sealed or in the clear.

use std::collections::HashMap;
use std::io;
use std::sync::{PoisonError, RwLock};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use super::errors::FrontEndError;
use super::placement::Placement;
use crate::discovery::log::EpochProof;
use crate::discovery::log::proof::{
    FILE_BYTES_MAX as PROOFS_BYTES_MAX, OLD_PROOFS_BYTES_MAX, OldProofs, old_proofs_path,
};
use crate::https::{etag, public_file};
use crate::limits::FRONT_END_FILTER_BYTES_MAX;
use crate::shard::files::read_regular;
use crate::wire::parameters::check_database_name;

/// The content type of frames of docs/wire.md.
pub(super) const FRAMES: &str = "application/x-sotto-frames";
const DIRECTORY: &str = "application/jose+json";
const KEYS: &str = "application/jose";
const OCTETS: &str = "application/octet-stream";

/// Bodies of files, by database.
type Bodies = HashMap<String, Bytes>;

/// A public file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Which {
    Directory,
    Keys,
    Parameters(String),
    Filter(String),
    Proof(String),
    /// The proofs after so many entries.
    ProofAfter(String, u64),
}

impl Which {
    /// The file at a path.
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            "/directory" => return Some(Self::Directory),
            "/ohttp-keys" => return Some(Self::Keys),
            _ => {}
        }
        match of_database(path)? {
            (id, "parameters") => Some(Self::Parameters(id.to_owned())),
            (id, "filter") => Some(Self::Filter(id.to_owned())),
            (id, "proof") => Some(Self::Proof(id.to_owned())),
            (id, what) => {
                let size = what.strip_prefix("proof/").and_then(number)?;
                Some(Self::ProofAfter(id.to_owned(), size))
            }
        }
    }
}

/// A number as it is written in paths: one way for each, so that caches keep it once.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

/// The database and what is asked of it, of a path `/databases/ID/WHAT`.
pub(super) fn of_database(path: &str) -> Option<(&str, &str)> {
    let (id, what) = path.strip_prefix("/databases/")?.split_once('/')?;
    check_database_name(id).ok().map(|()| (id, what))
}

/// A file as it is given.
#[derive(Clone)]
pub(super) struct File {
    pub(super) body: Bytes,
    pub(super) etag: String,
    pub(super) content_type: &'static str,
}

impl File {
    fn new(body: Bytes, content_type: &'static str) -> Self {
        Self { etag: etag(&body), body, content_type }
    }

    pub(super) fn keys(list: &str) -> Self {
        Self::new(Bytes::copy_from_slice(list.as_bytes()), KEYS)
    }

    pub(super) fn parameters(frame: Bytes) -> Self {
        Self::new(frame, FRAMES)
    }

    /// The reply in the clear; without the body for whoever has it already.
    pub(super) fn into_response(self, headers: &HeaderMap) -> Response {
        let content_type = HeaderValue::from_static(self.content_type);
        public_file(self.body, &self.etag, content_type, headers)
    }
}

/// The files that come from the operator.
pub(super) struct Files(RwLock<Read>);

struct Read {
    directory: File,
    filters: HashMap<String, File>,
    proofs: HashMap<String, File>,
    old_proofs: HashMap<String, OldProofs>,
}

/// The proofs of databases: the newest, and those that are kept.
#[derive(Default)]
pub(super) struct Proofs {
    newest: Bodies,
    old: HashMap<String, OldProofs>,
}

impl Files {
    /// A directory that was checked, and the filters and proofs of the placement file.
    pub(super) fn new(directory: Bytes, filters: Bodies, proofs: Proofs) -> Self {
        Self(RwLock::new(files(directory, filters, proofs)))
    }

    /// The same, read again.
    pub(super) fn replace(&self, directory: Bytes, filters: Bodies, proofs: Proofs) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = files(directory, filters, proofs);
    }

    pub(super) fn directory(&self) -> File {
        self.0.read().unwrap_or_else(PoisonError::into_inner).directory.clone()
    }

    pub(super) fn filter(&self, id: &str) -> Option<File> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).filters.get(id).cloned()
    }

    pub(super) fn proof(&self, id: &str) -> Option<File> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).proofs.get(id).cloned()
    }

    pub(super) fn proof_after(&self, id: &str, size: u64) -> Option<File> {
        let read = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let proofs = read.old_proofs.get(id)?.after(size)?;
        Some(File::new(Bytes::copy_from_slice(proofs), OCTETS))
    }
}

fn files(directory: Bytes, filters: Bodies, proofs: Proofs) -> Read {
    let files = |bodies: Bodies| {
        bodies.into_iter().map(|(id, body)| (id, File::new(body, OCTETS))).collect()
    };
    let directory = File::new(directory, DIRECTORY);
    let (proofs, old_proofs) = (files(proofs.newest), proofs.old);
    Read { directory, filters: files(filters), proofs, old_proofs }
}

/// Reads the proofs of a placement for devices, who verify them.
pub(super) fn read_proofs(placement: &Placement) -> Result<Proofs, FrontEndError> {
    let mut proofs = Proofs::default();
    let what = "file of proofs";
    let wrong = |path, error| {
        let found = format!("a file of which this is wrong: {error}");
        let expected = "what the log gives for the newest epoch";
        FrontEndError::File { what, path, found, expected }
    };
    for placed in &placement.databases {
        let Some(path) = &placed.proof else { continue };
        let path = path.clone();
        let old = old_proofs_path(&path);
        let body = match read_regular(&path, PROOFS_BYTES_MAX as u64 + 1) {
            Ok(body) => body,
            Err(error) => return Err(FrontEndError::Unreadable { what, path, error }),
        };
        if let Err(error) = EpochProof::decode_all(&body) {
            return Err(wrong(path, error));
        }
        proofs.newest.insert(placed.id.clone(), Bytes::from(body));
        match read_regular(&old, OLD_PROOFS_BYTES_MAX as u64 + 1) {
            Ok(body) => {
                let read = OldProofs::decode(body).map_err(|error| wrong(old, error))?;
                proofs.old.insert(placed.id.clone(), read);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(FrontEndError::Unreadable { what, path: old, error }),
        }
    }
    Ok(proofs)
}

/// Reads the routing filters of a placement for devices, who check the signatures. One that is too
/// long for them is an error, or left out where the front-end `resolves` and uses it itself.
pub(super) fn read_filters(
    placement: &Placement,
    resolves: bool,
) -> Result<HashMap<String, Bytes>, FrontEndError> {
    let (what, max) = ("routing filter", FRONT_END_FILTER_BYTES_MAX);
    let mut filters = HashMap::new();
    for placed in &placement.databases {
        let Some(path) = &placed.filter else { continue };
        let body = read_regular(path, max + 1).map_err(|error| FrontEndError::Unreadable {
            what,
            path: path.clone(),
            error,
        })?;
        match body.len() as u64 > max {
            false => drop(filters.insert(placed.id.clone(), Bytes::from(body))),
            true if resolves => {}
            true => {
                return Err(FrontEndError::File {
                    what,
                    path: path.clone(),
                    found: format!("more than {max} bytes"),
                    expected: "a filter that devices load; without one, devices ask the database",
                });
            }
        }
    }
    Ok(filters)
}

#[cfg(test)]
mod tests {
    use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};

    use super::*;
    use crate::front_end::placement::PlacedDatabase;

    #[test]
    fn paths_lead_to_files() {
        assert_eq!(Which::at("/directory"), Some(Which::Directory));
        assert_eq!(Which::at("/ohttp-keys"), Some(Which::Keys));
        let parameters = Some(Which::Parameters("eu-1".to_owned()));
        assert_eq!(Which::at("/databases/eu-1/parameters"), parameters);
        assert_eq!(Which::at("/databases/eu-1/filter"), Some(Which::Filter("eu-1".to_owned())));
        assert_eq!(Which::at("/databases/eu-1/proof"), Some(Which::Proof("eu-1".to_owned())));
        let after = Some(Which::ProofAfter("eu-1".to_owned(), 70));
        assert_eq!(Which::at("/databases/eu-1/proof/70"), after);
        let long = format!("/databases/{}/filter", "a".repeat(65));
        let others = [
            "",
            "/",
            "/directory/",
            "/databases/eu-1",
            "/databases/eu-1/lookup",
            "/databases/eu-1/filter/",
            "/databases//filter",
            "/databases/../filter",
            "/databases/eu%2d1/filter",
            "/databases/a b/filter",
            &long,
        ];
        for path in others {
            assert_eq!(Which::at(path), None, "{path}");
        }
    }

    #[test]
    fn a_file_has_the_tag_of_its_bytes_and_is_not_given_twice() {
        let file = File::parameters(Bytes::from_static(b"a frame"));
        let hash = blake3::hash(b"a frame").to_hex();
        assert_eq!(file.etag, format!("\"{}\"", &hash[..32]));
        let ask = |tags: &[&str]| {
            let tags = tags.iter().map(|tag| (IF_NONE_MATCH, HeaderValue::from_str(tag).unwrap()));
            file.clone().into_response(&tags.collect())
        };
        let other = "\"00000000000000000000000000000000\"";
        for tags in [&[][..], &[other], &["x"]] {
            let response = ask(tags);
            assert_eq!(response.status(), 200);
            let header = |name| response.headers()[name].to_str().unwrap();
            assert_eq!(header(ETAG), file.etag);
            assert_eq!(header(CONTENT_TYPE), FRAMES);
            assert_eq!(header(CACHE_CONTROL), "public, max-age=60");
        }
        let both = format!("{other}, W/{}", file.etag);
        for tags in [&[&*file.etag][..], &["*"], &[other, &file.etag], &[&both]] {
            let response = ask(tags);
            assert_eq!(response.status(), 304, "{tags:?}");
            assert_eq!(response.headers()[ETAG].to_str().unwrap(), file.etag);
        }
    }

    #[test]
    fn filters_come_from_the_placement_within_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eu1.filter");
        let placed = |id: &str, filter| PlacedDatabase {
            id: id.to_owned(),
            filter,
            ..PlacedDatabase::default()
        };
        let databases = vec![placed("eu1", Some(path.clone())), placed("eu2", None)];
        let placement = Placement { databases };
        let read = |resolves| read_filters(&placement, resolves);
        assert!(matches!(read(false), Err(FrontEndError::Unreadable { .. })));
        std::fs::write(&path, b"a filter").unwrap();
        let files = Files::new(Bytes::from_static(b"{}"), read(false).unwrap(), Proofs::default());
        assert_eq!(&files.filter("eu1").unwrap().body[..], b"a filter");
        assert!(files.filter("eu2").is_none());
        assert_eq!(files.directory().content_type, DIRECTORY);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(FRONT_END_FILTER_BYTES_MAX).unwrap();
        assert!(read(false).unwrap() == read(true).unwrap() && read(true).unwrap().len() == 1);
        // What no device loads is refused, or for a front-end alone that uses it itself.
        file.set_len(FRONT_END_FILTER_BYTES_MAX + 1).unwrap();
        assert!(matches!(read(false), Err(FrontEndError::File { .. })));
        assert!(read(true).unwrap().is_empty());
    }
}
