//! What is in folders, each read once.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use super::{super::identity::Inode, patterns::FoundFile};

#[derive(Default)]
pub(super) struct Folders {
    /// Nothing for a folder that cannot be read.
    files: HashMap<PathBuf, Option<Vec<FoundFile>>>,
}

impl Folders {
    /// The files in the folder of a path. A folder that cannot be read has none that could be
    /// followed.
    pub(super) fn beside(&mut self, path: &Path) -> &[FoundFile] {
        self.read(path).as_deref().unwrap_or_default()
    }

    /// Whether the folder of a path can be read.
    pub(super) fn is_readable(&mut self, path: &Path) -> bool {
        self.read(path).is_some()
    }

    /// The file with an inode in the folder of a path, where a rotated log usually is.
    pub(super) fn find_beside(&mut self, path: &Path, inode: Inode) -> Option<FoundFile> {
        self.beside(path).iter().find(|file| file.inode == inode).cloned()
    }

    fn read(&mut self, path: &Path) -> &Option<Vec<FoundFile>> {
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        self.files.entry(folder).or_insert_with_key(|folder| read(folder))
    }
}

fn read(folder: &Path) -> Option<Vec<FoundFile>> {
    let files = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| {
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some(FoundFile::new(entry.path(), &metadata))
    });
    Some(files.collect())
}
