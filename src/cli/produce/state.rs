//! The file that keeps how far files were shipped.
//!
//! The broker is the authority on how many messages a producer has stored; the file says which
//! lines they were. It is replaced in one step, so that a kill leaves the old one or the new one,
//! and it never says more than what was acknowledged: what was stored beyond that is counted off
//! from its last entry.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};

use super::{
    super::failure::Failure,
    identity::{Inode, Position, Print},
    message::{OnBadLine, Rule},
};
use crate::proto::Producer;

const VERSION: u32 = 1;

/// How many files that a run does not name are remembered.
const MAX_OTHER_FILES: usize = 256;

/// What is kept of a producer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    version: u32,
    pub(super) topic: String,
    pub(super) producer: String,
    /// When the producer was registered, in microseconds since 1970: one that is registered anew,
    /// or on another database, counts anew.
    pub(super) registered: i64,
    /// The sequence behind the last message that is accounted for.
    pub(super) next_sequence: i64,
    /// Whether a run began to ship the last of the files and did not end well: it may have stored
    /// messages beyond `next_sequence`, all of them from that file.
    pub(super) shipping: bool,
    /// The one that was shipped last comes last.
    pub(super) files: Vec<FileState>,
}

/// How far a file was shipped.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileState {
    pub(super) path: String,
    /// None ([`Inode::NONE`]) once the file has other content: a copy may still have the old one.
    pub(super) inode: Inode,
    /// Its beginning, as far as it was shipped.
    pub(super) head: Option<Print>,
    pub(super) position: Position,
    /// How many messages from behind the position are stored as well.
    pub(super) unsettled: u64,
    /// Where the last run began: if the database loses messages, they are shipped from here again.
    pub(super) began: Began,
    /// How the last run made messages of its lines.
    pub(super) rule: Rule,
    /// Where the last run kept lines that it skipped or cut, if it kept them.
    #[serde(default)]
    pub(super) bad_lines: Option<BadLinesIn>,
}

impl FileState {
    /// Refuses to count off what a run has stored that kept its bad lines, if they are not kept now.
    pub(super) fn check_bad_lines(&self, name: &str, keeps: bool) -> Result<(), Failure> {
        let Some(kept) = self.bad_lines.as_ref().filter(|_| self.unsettled > 0 && !keeps) else {
            return Ok(());
        };
        let what = if self.rule.on_bad_line == OnBadLine::Cut { "cut" } else { "skip" };
        Err(Failure::usage(format!(
            "the last run did not end well, and what it has stored of {name} is counted off: give \
             --on-bad-line {what} and {kept} as it did, so that bad lines among it are kept"
        )))
    }
}

/// Where lines are kept that are skipped or cut.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BadLinesIn {
    File(String),
    Topic(String),
}

/// As the flag that says so.
impl fmt::Display for BadLinesIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "--bad-lines-file {path}"),
            Self::Topic(topic) => write!(f, "--bad-lines-topic {topic}"),
        }
    }
}

/// Where a run began.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Began {
    pub(super) sequence: i64,
    pub(super) position: Position,
}

impl State {
    pub(super) fn new(producer: &Producer) -> Self {
        Self {
            version: VERSION,
            topic: producer.topic.clone(),
            producer: producer.producer_id.clone(),
            registered: registered(producer),
            next_sequence: producer.next_sequence,
            shipping: false,
            files: Vec::new(),
        }
    }

    /// Forgets files that have not been shipped for long, but none of the last so many.
    pub(super) fn prune(&mut self, named: usize) {
        let surplus = self.files.len().saturating_sub(MAX_OTHER_FILES + named);
        self.files.drain(..surplus);
    }
}

/// When a producer was registered, in microseconds since 1970.
pub(super) fn registered(producer: &Producer) -> i64 {
    let time = producer.create_time.unwrap_or_default();
    time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanos / 1_000))
}

/// The file, which nobody else writes meanwhile.
pub(super) struct StateFile {
    path: PathBuf,
    /// Held as long as this is open; a kill frees it.
    _lock: File,
    saved: Option<State>,
}

impl StateFile {
    /// Where the state of a producer lies unless told otherwise.
    pub(super) fn default_path(producer: &Producer) -> Result<PathBuf, Failure> {
        let folders = etcetera::choose_base_strategy().map_err(|error| {
            Failure::refused(format!("find the home folder: {error}; --state names a file"))
        })?;
        let folder = folders.state_dir().unwrap_or_else(|| folders.data_dir());
        let folder = folder.join("trunkline/produce").join(&producer.topic);
        Ok(folder.join(&producer.producer_id).join(format!("{}.json", registered(producer))))
    }

    /// Locks and reads the file; there may be none yet.
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
                return Err(failed("lock", &"another produce --resume of this producer runs"));
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &error)),
        }
        let saved = match fs::read(&path) {
            Ok(json) => Some(serde_json::from_slice(&json).map_err(|error| {
                let told = format!("{error}; without the file, --resume compares the last line");
                failed("read", &told)
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read", &error)),
        };
        if let Some(State { version, .. }) = &saved
            && *version != VERSION
        {
            return Err(failed("read", &format!("it is of version {version}, not {VERSION}")));
        }
        Ok(Self { path, _lock: lock, saved })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What was saved last, if anything was.
    pub(super) fn saved(&self) -> Option<&State> {
        self.saved.as_ref()
    }

    /// Refuses a state that is another producer's.
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

    /// Replaces the file; when this returns, it is on disk.
    pub(super) fn save(&mut self, state: &State) -> Result<(), Failure> {
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

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_kept_and_belongs_to_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/state.json");
        let mut file = StateFile::open(path.clone()).unwrap();
        assert!(file.saved().is_none());
        let state = State::new(&Producer { producer_id: "p".to_owned(), ..Default::default() });
        file.save(&state).unwrap();
        assert!(StateFile::open(path.clone()).is_err(), "it is locked");
        drop(file);
        assert_eq!(StateFile::open(path.clone()).unwrap().saved(), Some(&state));
        fs::write(&path, "{\"version\":1").unwrap();
        assert!(StateFile::open(path.clone()).is_err(), "it is damaged");
    }
}
