//! The file that stores how far files were shipped.
//!
//! It is replaced atomically, so that a kill leaves either the old file or the new one.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy as _;

use super::{
    super::failure::Failure,
    identity::folder,
    state::{ProducerState, VERSION, registered},
};
use crate::proto::Producer;

/// The file, locked against other processes.
pub(super) struct StateFile {
    path: PathBuf,
    /// The lock is released when the process ends, even if it is killed.
    _lock: File,
    saved: Option<ProducerState>,
}

impl StateFile {
    /// The default path of a producer's state.
    pub(super) fn default_path(producer: &Producer) -> Result<PathBuf, Failure> {
        let folders = etcetera::choose_base_strategy().map_err(|error| {
            Failure::refused(format!("find the home folder: {error}; --state names a file"))
        })?;
        let folder = folders.state_dir().unwrap_or_else(|| folders.data_dir());
        let folder = folder.join("trunkline/produce").join(&producer.topic);
        Ok(folder.join(&producer.producer_id).join(format!("{}.json", registered(producer))))
    }

    /// Locks and reads the file, which may not exist yet.
    pub(super) fn open(path: PathBuf) -> Result<Self, Failure> {
        let lock_path = path.with_added_extension("lock");
        let failed = |verb: &str, error: &dyn std::fmt::Display| {
            Failure::refused(format!("{verb} the state file {}: {error}", path.display()))
        };
        let lock = || {
            fs::create_dir_all(folder(&path))?;
            OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path)
        };
        let lock = lock().map_err(|error| failed("lock", &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(failed(
                    "lock",
                    &"another produce --resume of this producer is running",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &error)),
        }
        let saved = match fs::read(&path) {
            Ok(json) => Some(serde_json::from_slice(&json).map_err(|error| {
                let problem = format!("{error}; without the file, --resume compares the last line");
                failed("read", &problem)
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read", &error)),
        };
        if let Some(ProducerState { version, .. }) = &saved
            && *version != VERSION
        {
            return Err(failed("read", &format!("its version is {version}, not {VERSION}")));
        }
        Ok(Self { path, _lock: lock, saved })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The saved state, if there is one.
    pub(super) fn saved(&self) -> Option<&ProducerState> {
        self.saved.as_ref()
    }

    /// Refuses the state of another producer or topic.
    pub(super) fn check_owner(&self, topic: &str, producer: &str) -> Result<(), Failure> {
        match &self.saved {
            Some(saved) if (&*saved.topic, &*saved.producer) != (topic, producer) => {
                Err(Failure::refused(format!(
                    "{} is the state of producer {} on topic {}",
                    self.path.display(),
                    saved.producer,
                    saved.topic
                )))
            }
            _ => Ok(()),
        }
    }

    /// Replaces the file, and syncs it to disk.
    pub(super) fn save(&mut self, state: &ProducerState) -> Result<(), Failure> {
        if self.saved.as_ref() == Some(state) {
            return Ok(());
        }
        let folder = folder(&self.path);
        let save = || {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            let mut json = serde_json::to_vec_pretty(state)?;
            json.push(b'\n');
            file.write_all(&json)?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            File::open(folder)?.sync_all()
        };
        save().map_err(|error| {
            Failure::refused(format!("write the state file {}: {error}", self.path.display()))
        })?;
        self.saved = Some(state.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_saved_and_locked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/state.json");
        let mut file = StateFile::open(path.clone()).unwrap();
        assert!(file.saved().is_none());
        let state =
            ProducerState::new(&Producer { producer_id: "p".to_owned(), ..Default::default() });
        file.save(&state).unwrap();
        assert!(StateFile::open(path.clone()).is_err(), "it is locked");
        drop(file);
        assert_eq!(StateFile::open(path.clone()).unwrap().saved(), Some(&state));
        fs::write(&path, "{\"version\":1").unwrap();
        assert!(StateFile::open(path.clone()).is_err(), "it is damaged");
    }
}
