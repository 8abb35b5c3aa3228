//! What all steps of one build use.

use std::path::Path;

use super::directory::Directory;
use super::errors::BuildError;
use super::input::Input;
use super::options::BuildOptions;
use super::progress::Progress;
use super::work::identity;
use crate::shard::Manifest;
use crate::wire::Lifetime;

pub(super) struct Session<'a> {
    pub(super) options: &'a BuildOptions,
    pub(super) progress: &'a dyn Progress,
    pub(super) directory: &'a Directory,
    pub(super) pool: &'a rayon::ThreadPool,
    /// When it begins, and until when clients are to accept what is built.
    pub(super) lifetime: Lifetime,
    /// Whether the input can be read only once.
    pub(super) is_stream: bool,
}

impl Session<'_> {
    pub(super) fn say(&self, line: impl AsRef<str>) {
        self.progress.say(line.as_ref());
    }

    pub(super) fn existing(&self) -> Option<&Manifest> {
        self.directory.existing.as_ref()
    }

    /// The input where it is a file, which can be read again.
    pub(super) fn input_file(&self) -> Option<&Path> {
        match &self.options.input {
            Input::File(path) if !self.is_stream => Some(path),
            _ => None,
        }
    }

    pub(super) fn input_identity(&self) -> Result<Option<String>, BuildError> {
        let identity = self.input_file().map(identity).transpose();
        identity.map_err(|source| self.options.input.unreadable(source))
    }
}
