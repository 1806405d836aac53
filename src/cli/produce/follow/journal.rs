//! The state file of a shipper: how far each file is read, and which messages came from where.
//!
//! It is a database in one file, of which a commit replaces all or nothing, with checksums, and is on
//! disk when it returns. While one process has it open, no other can open it.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    panic,
    path::{Path, PathBuf},
};

use prost::Message as _;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError,
    TableDefinition,
};

use super::{
    super::{super::failure::Failure, identity::folder},
    content::Content,
    stored::{StoredContent, StoredPortion},
};

/// The version of the state that this program reads and writes.
const VERSION: &str = "1";

/// How much of the file is kept in memory.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

const ABOUT: TableDefinition<&str, &str> = TableDefinition::new("about");
/// When the producer was registered on each topic, in microseconds since 1970.
const TOPICS: TableDefinition<&str, i64> = TableDefinition::new("topics");
const CONTENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("contents");
/// The first bytes of each content, which seldom change.
const HEADS: TableDefinition<u64, &[u8]> = TableDefinition::new("heads");
/// By topic and first sequence.
const PORTIONS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("portions");

pub(super) struct Journal {
    path: PathBuf,
    database: Database,
}

/// What is in a journal.
#[derive(Default)]
pub(super) struct Recorded {
    pub(super) topics: Vec<(String, i64)>,
    pub(super) contents: Vec<(u64, StoredContent, Vec<u8>)>,
    /// By topic, the first sequences and the numbers of messages, in order.
    pub(super) portions: Vec<(String, u64, u64)>,
}

/// What a commit changes.
#[derive(Default)]
pub(super) struct Changes<'a> {
    pub(super) contents: Vec<&'a Content>,
    pub(super) forgotten_contents: Vec<u64>,
    pub(super) portions: Vec<(&'a str, u64, StoredPortion)>,
    pub(super) forgotten_portions: Vec<(&'a str, u64)>,
    pub(super) topics: Vec<(&'a str, i64)>,
}

impl Changes<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.contents.is_empty()
            && self.forgotten_contents.is_empty()
            && self.portions.is_empty()
            && self.forgotten_portions.is_empty()
            && self.topics.is_empty()
    }
}

impl Journal {
    /// Opens the state of a producer, which may not exist yet; `restart` forgets what it says.
    pub(super) fn open(path: PathBuf, owner: &str, restart: bool) -> Result<Self, Failure> {
        let failed = |verb: &str, error: &dyn std::fmt::Display| {
            Failure::refused(format!("{verb} the state file {}: {error}", path.display()))
        };
        let create = || {
            fs::create_dir_all(folder(&path))?;
            // It has bytes of the files in it.
            let mut options = OpenOptions::new();
            options.create(true).truncate(false).write(true).mode(0o600).open(&path)
        };
        create().map_err(|error| failed("create", &error))?;
        let database = match open_whole(&path) {
            Ok(database) => database,
            Err(Unusable::Locked) => {
                let problem = "another produce --follow of this producer is running";
                return Err(failed("lock", &problem));
            }
            Err(Unusable::Damaged(_)) if restart => {
                fs::remove_file(&path).map_err(|error| failed("remove", &error))?;
                create().map_err(|error| failed("create", &error))?;
                open_whole(&path).map_err(|error| failed("open", &error))?
            }
            Err(Unusable::Io(error)) => return Err(failed("open", &error)),
            Err(damaged) => {
                let problem = format!("{damaged}: --restart ships the files from their beginning");
                return Err(failed("open", &problem));
            }
        };
        let journal = Self { path, database };
        journal.claim(owner, restart)?;
        Ok(journal)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses the state of another producer, or one that another version wrote.
    fn claim(&self, owner: &str, restart: bool) -> Result<(), Failure> {
        let claim = || -> Result<Option<String>, redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut about = transaction.open_table(ABOUT)?;
                let read = |about: &redb::Table<'_, &str, &str>, name| {
                    about.get(name).map(|found| found.map(|value| value.value().to_owned()))
                };
                let (version, found) = (read(&about, "version")?, read(&about, "owner")?);
                if version.as_deref().is_some_and(|version| version != VERSION) {
                    let version = version.unwrap_or_default();
                    return Ok(Some(format!("its version is {version}, not {VERSION}")));
                }
                if found.as_deref().is_some_and(|found| found != owner) {
                    let found = found.unwrap_or_default();
                    return Ok(Some(format!("it is the state of {found}")));
                }
                about.insert("version", VERSION)?;
                about.insert("owner", owner)?;
            }
            if restart {
                transaction.delete_table(TOPICS)?;
                transaction.delete_table(CONTENTS)?;
                transaction.delete_table(HEADS)?;
                transaction.delete_table(PORTIONS)?;
            }
            transaction.open_table(TOPICS)?;
            transaction.open_table(CONTENTS)?;
            transaction.open_table(HEADS)?;
            transaction.open_table(PORTIONS)?;
            transaction.commit()?;
            Ok(None)
        };
        match claim().map_err(|error| self.failed("write", &error))? {
            Some(problem) => Err(self.failed("read", &problem)),
            None => Ok(()),
        }
    }

    pub(super) fn read(&self) -> Result<Recorded, Failure> {
        let read = || -> Result<Recorded, redb::Error> {
            let transaction = self.database.begin_read()?;
            let mut recorded = Recorded::default();
            for entry in transaction.open_table(TOPICS)?.iter()? {
                let (topic, registered) = entry?;
                recorded.topics.push((topic.value().to_owned(), registered.value()));
            }
            let heads = transaction.open_table(HEADS)?;
            for entry in transaction.open_table(CONTENTS)?.iter()? {
                let (id, content) = entry?;
                let id = id.value();
                let content = StoredContent::decode(content.value()).map_err(damaged)?;
                let head = heads.get(id)?.map(|head| head.value().to_vec()).unwrap_or_default();
                recorded.contents.push((id, content, head));
            }
            for entry in transaction.open_table(PORTIONS)?.iter()? {
                let (key, portion) = entry?;
                let (topic, first) = key.value();
                let portion = StoredPortion::decode(portion.value()).map_err(damaged)?;
                recorded.portions.push((topic.to_owned(), first, portion.lengths.len() as u64));
            }
            Ok(recorded)
        };
        read().map_err(|error| self.failed("read", &error))
    }

    /// A portion of a topic's messages, by its first sequence.
    pub(super) fn portion(&self, topic: &str, first: u64) -> Result<StoredPortion, Failure> {
        let read = || -> Result<StoredPortion, redb::Error> {
            let transaction = self.database.begin_read()?;
            let found = transaction.open_table(PORTIONS)?.get((topic, first))?;
            let bytes = found.map(|portion| portion.value().to_vec()).unwrap_or_default();
            StoredPortion::decode(&*bytes).map_err(damaged)
        };
        read().map_err(|error| self.failed("read", &error))
    }

    /// Changes the state. It is on disk when this returns.
    pub(super) fn commit(&self, changes: &Changes<'_>) -> Result<(), Failure> {
        if changes.is_empty() {
            return Ok(());
        }
        let commit = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut contents = transaction.open_table(CONTENTS)?;
                let mut heads = transaction.open_table(HEADS)?;
                for content in &changes.contents {
                    // Nothing is known of a file of which nothing was read.
                    if content.place.offset == 0 {
                        contents.remove(content.id)?;
                        heads.remove(content.id)?;
                        continue;
                    }
                    let stored = StoredContent::of(content).encode_to_vec();
                    contents.insert(content.id, &*stored)?;
                    let is_known =
                        heads.get(content.id)?.is_some_and(|head| head.value() == content.head);
                    if !is_known {
                        heads.insert(content.id, &*content.head)?;
                    }
                }
                for id in &changes.forgotten_contents {
                    contents.remove(id)?;
                    heads.remove(id)?;
                }
                let mut portions = transaction.open_table(PORTIONS)?;
                for key in &changes.forgotten_portions {
                    portions.remove(key)?;
                }
                for (topic, first, portion) in &changes.portions {
                    portions.insert((*topic, *first), &*portion.encode())?;
                }
                let mut topics = transaction.open_table(TOPICS)?;
                for (topic, registered) in &changes.topics {
                    topics.insert(topic, registered)?;
                }
            }
            Ok(transaction.commit()?)
        };
        commit().map_err(|error| self.failed("write", &error))
    }

    fn failed(&self, verb: &str, error: &dyn std::fmt::Display) -> Failure {
        Failure::refused(format!("{verb} the state file {}: {error}", self.path.display()))
    }
}

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("another process has it open")]
    Locked,
    #[error("it is damaged ({0})")]
    Damaged(String),
    #[error("{0}")]
    Io(io::Error),
}

/// Opens a database, and checks all of it. What a kill has left is put in order by that.
fn open_whole(path: &Path) -> Result<Database, Unusable> {
    let open = || {
        let mut database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
        let is_whole = database.check_integrity()?;
        Ok::<_, DatabaseError>((database, is_whole))
    };
    // It panics at some of the bytes that no program has written there.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let opened = panic::catch_unwind(open);
    panic::set_hook(hook);
    match opened {
        Ok(Ok((database, true))) => Ok(database),
        Ok(Ok((_, false))) => Err(Unusable::Damaged("its checksums do not match".to_owned())),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => Err(Unusable::Locked),
        Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) if is_of_system(&error) => {
            Err(Unusable::Io(error))
        }
        Ok(Err(error)) => Err(Unusable::Damaged(error.to_string())),
        Err(_) => Err(Unusable::Damaged("it is not what was written".to_owned())),
    }
}

/// Whether an error is not about what is in the file.
fn is_of_system(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn damaged(error: prost::DecodeError) -> redb::Error {
    redb::Error::Corrupted(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::{super::place::Place, *};

    fn portion(lengths: &[u64]) -> StoredPortion {
        let start = Place { offset: 10, lines: 1, tail: b"x\n".to_vec() };
        StoredPortion::new(7, &start, lengths.to_vec())
    }

    #[test]
    fn portions_are_found_again_in_the_order_of_their_sequences() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/state");
        let journal = Journal::open(path.clone(), "p", false).unwrap();
        let changes = Changes {
            portions: vec![
                ("b", 300, portion(&[1])),
                ("b", 2, portion(&[5, 6])),
                ("a", 9, portion(&[3])),
            ],
            topics: vec![("a", -4)],
            ..Changes::default()
        };
        journal.commit(&changes).unwrap();
        let second = Journal::open(path.clone(), "p", false).err().unwrap();
        assert!(second.message().contains("another produce --follow"), "{}", second.message());
        drop(journal);
        let journal = Journal::open(path.clone(), "p", false).unwrap();
        let recorded = journal.read().unwrap();
        let expected = [("a", 9, 1), ("b", 2, 2), ("b", 300, 1)];
        assert_eq!(recorded.portions, expected.map(|(topic, at, n)| (topic.to_owned(), at, n)));
        assert_eq!(recorded.topics, [("a".to_owned(), -4)]);
        let found = journal.portion("b", 2).unwrap();
        assert_eq!((found.content, found.start().tail), (7, b"x\n".to_vec()));
        assert_eq!((found.end_of(0), found.end_of(1), found.end_of(2)), (10, 15, 21));
        let forgotten_portions = vec![("b", 2)];
        journal.commit(&Changes { forgotten_portions, ..Changes::default() }).unwrap();
        assert_eq!(journal.read().unwrap().portions.len(), 2);
        drop(journal);
        let other = Journal::open(path.clone(), "q", false).err().unwrap();
        assert!(other.message().contains("it is the state of p"), "{}", other.message());
        let restarted = Journal::open(path, "p", true).unwrap();
        assert!(restarted.read().unwrap().portions.is_empty());
    }
}
