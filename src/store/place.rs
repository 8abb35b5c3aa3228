//! A store by its place, and the few requests that are made of it.

use std::env;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::wire::Bytes;
use futures_util::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Name;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    parse_url_opts,
};
use tokio::task::spawn_blocking;
use url::Url;

use super::errors::StoreError;
use crate::limits;
use crate::shard::files::write_new_file;
use crate::shard::manifest::SHARDS_DIR;

/// Beginnings of the environment's variables that say who asks a store and where it is.
const VARIABLES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// The folder of manifests in a store.
pub(super) const MANIFESTS: &str = "manifests";
/// The folder of announcements.
pub(super) const ANNOUNCED: &str = "announced";

/// The name of an epoch's manifest.
pub(super) fn manifest_name(epoch: u64) -> String {
    format!("{MANIFESTS}/{epoch}.json")
}

/// The name of a shard's file.
pub fn shard_name(file: &str) -> String {
    format!("{SHARDS_DIR}/{file}")
}

/// A store: a bucket and a prefix, or a folder.
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    prefix: Name,
    /// Where the store is a folder: files are written as everywhere in this program.
    folder: Option<PathBuf>,
    place: String,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.place).finish()
    }
}

/// An object of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct Listed {
    /// Below the folder that was listed.
    pub name: String,
    pub bytes: u64,
    pub modified: SystemTime,
}

impl Listed {
    /// The epoch that the object is of, which is named `<epoch><suffix>`.
    pub(super) fn epoch(&self, suffix: &str) -> Option<u64> {
        self.name.strip_suffix(suffix)?.parse().ok()
    }
}

impl Store {
    /// The store at a place: a folder, or a URL. Credentials and endpoints come from the
    /// environment, by the names that the stores' own programs use (`AWS_ACCESS_KEY_ID`,
    /// `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`, ...).
    ///
    /// # Errors
    /// It is none, or its configuration is incomplete. Nothing is asked yet.
    pub fn open(place: &str) -> Result<Self, StoreError> {
        let refused = |problem: String| StoreError::Place { place: place.to_owned(), problem };
        let path = match place.split_once("://") {
            None => PathBuf::from(place),
            Some(("file", _)) => {
                let url = Url::parse(place).map_err(|error| refused(error.to_string()))?;
                url.to_file_path().map_err(|()| refused("it is no path of this machine".into()))?
            }
            Some(_) => return Self::open_url(place),
        };
        let local = LocalFileSystem::new_with_prefix(&path);
        let inner = Arc::new(local.map_err(|_| refused("there is no such folder".into()))?);
        let (prefix, place) = (Name::default(), place.to_owned());
        Ok(Self { inner, prefix, folder: Some(path), place })
    }

    /// The same, where a folder is made if there is none.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn create(place: &str) -> Result<Self, StoreError> {
        if !place.contains("://") {
            fs::create_dir_all(place).map_err(StoreError::io("create", place.as_ref()))?;
        }
        Self::open(place)
    }

    fn open_url(place: &str) -> Result<Self, StoreError> {
        let refused = |problem: &dyn fmt::Display| StoreError::Place {
            place: place.to_owned(),
            problem: problem.to_string(),
        };
        // This program has one TLS and one provider of its arithmetic. It is there already where
        // something else has set it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = Url::parse(place).map_err(|error| refused(&error))?;
        let ours = |(name, _): &(String, String)| VARIABLES.iter().any(|of| name.starts_with(of));
        let seconds = |time: Duration| format!("{} seconds", time.as_secs());
        let bounds = [
            ("timeout".to_owned(), seconds(limits::STORE_REQUEST_TIME)),
            ("connect_timeout".to_owned(), seconds(limits::STORE_CONNECT_TIME)),
        ];
        let options = bounds.into_iter().chain(env::vars().filter(ours));
        let (inner, prefix) = parse_url_opts(&url, options).map_err(|error| refused(&error))?;
        Ok(Self { inner: inner.into(), prefix, folder: None, place: place.to_owned() })
    }

    /// Where it is.
    pub fn place(&self) -> &str {
        &self.place
    }

    fn name(&self, name: &str) -> Name {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// Writes an object of these pieces, if it is not there; whether it was written.
    pub async fn put_new(&self, name: &str, pieces: Vec<Bytes>) -> Result<bool, StoreError> {
        if let Some(folder) = &self.folder {
            let path = folder.join(name);
            let failed = StoreError::io("write", &path);
            let writing = path.clone();
            let written = spawn_blocking(move || {
                writing.parent().map_or(Ok(()), fs::create_dir_all)?;
                write_new_file(&writing, |file| {
                    pieces.iter().try_for_each(|piece| file.write_all(piece))
                })
            });
            return written.await.expect("this is a bug: writing panicked").map_err(failed);
        }
        let options = PutOptions::from(PutMode::Create);
        let payload: PutPayload = pieces.into_iter().collect();
        match self.inner.put_opts(&self.name(name), payload, options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(StoreError::request("write", name)(error)),
        }
    }

    /// The bytes of an object; `None` where there is none.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        match self.inner.head(&self.name(name)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StoreError::request("look for", name)(error)),
        }
    }

    /// Some bytes of an object, and how many it has; `None` where there is none.
    pub async fn range(
        &self,
        name: &str,
        range: Range<u64>,
    ) -> Result<Option<(Bytes, u64)>, StoreError> {
        let failed = StoreError::request("read", name);
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        match self.inner.get_opts(&self.name(name), options).await {
            Ok(found) => {
                let size = found.meta.size;
                Ok(Some((found.bytes().await.map_err(failed)?, size)))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// A whole object, of which at most `bytes_max` are read; `None` where there is none.
    pub async fn get(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let found = match self.inner.get(&self.name(name)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(StoreError::request("read", name)(error)),
        };
        let mut chunks = found.into_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) =
            chunks.try_next().await.map_err(StoreError::request("read", name))?
        {
            if (bytes.len() + chunk.len()) as u64 > bytes_max {
                let problem = format!("has more than {bytes_max} bytes");
                return Err(StoreError::Object { name: name.to_owned(), problem });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }

    /// The objects right below a folder, in no order.
    pub async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let prefix = self.name(folder);
        let listed = self.inner.list(Some(&prefix)).try_filter_map(async |found| {
            let name = found.location.filename().unwrap_or_default().to_owned();
            let is_right_below = found.location.parent().as_ref() == Some(&prefix);
            let (bytes, modified) = (found.size, found.last_modified.into());
            Ok(is_right_below.then_some(Listed { name, bytes, modified }))
        });
        listed.try_collect().await.map_err(StoreError::request("list", folder))
    }

    /// The epochs that have an object below a folder, named `<epoch><suffix>`, the newest last.
    pub(super) async fn epochs(&self, folder: &str, suffix: &str) -> Result<Vec<u64>, StoreError> {
        let listed = self.list(folder).await?;
        let mut epochs: Vec<u64> = listed.iter().filter_map(|found| found.epoch(suffix)).collect();
        epochs.sort_unstable();
        Ok(epochs)
    }

    /// Removes an object, which may be gone already.
    pub async fn remove(&self, name: &str) -> Result<(), StoreError> {
        match self.inner.delete(&self.name(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(StoreError::request("remove", name)(error)),
        }
    }
}
