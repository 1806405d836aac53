//! A followed file.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::{identity::Inode, message::Rule},
    gunzip,
    options::FollowArgs,
    patterns::FoundFile,
    place::{Place, has_bytes},
    records::Flush,
    rotated::rotation_suffix,
};

/// The content of a file, from its first byte to its last.
///
/// A log's path names another file after a rotation, and its inode has other content after
/// `copytruncate`. What is shipped once is content, so that is what has an id and a place.
pub(super) struct Content {
    pub(super) id: u64,
    pub(super) topic: String,
    /// How its records become messages.
    pub(super) rule: Arc<Rule>,
    /// The path under which it was found first, for people and for headers.
    pub(super) name: String,
    /// Where it was seen last.
    pub(super) path: PathBuf,
    pub(super) inode: Inode,
    pub(super) is_gzip: bool,
    /// The size of the packed file with which it was read to its end, or could not be unpacked.
    pub(super) packed_end: u64,
    /// The size of the packed file.
    pub(super) packed_size: u64,
    /// After the last message that the journal has. The broker may not have stored it yet.
    pub(super) place: Place,
    /// Its first bytes, as far as they lie before the place.
    pub(super) head: Vec<u8>,
    pub(super) life: Life,
    /// Whether its file was gone before files were last looked for.
    pub(super) is_long_gone: bool,
    /// The file, if it is open; unpacked if it is packed.
    pub(super) file: Option<File>,
    /// Whether there may be something to read.
    pub(super) is_dirty: bool,
    /// Whether the journal does not have the latest place or path.
    pub(super) is_changed: bool,
    /// The content that must be read to its end first: a log's older lines come first.
    pub(super) comes_after: Option<u64>,
    /// When it was first read to its end since it was rotated away.
    pub(super) at_end: Option<Instant>,
    /// Since when the folder that it is in cannot be read.
    pub(super) away_since: Option<Instant>,
    pub(super) seen: Seen,
    /// There is no line end between the place and this offset.
    pub(super) searched: u64,
    /// The size, and the way of flushing, with which there was nothing to ship.
    pub(super) fruitless: Option<(u64, Flush)>,
    /// Why it could not be read.
    pub(super) failure: Option<String>,
    /// When it was last read, to close first what was idle the longest.
    pub(super) used: Instant,
}

/// Whether a file is still written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// A pattern stands for it.
    Current,
    /// It was renamed, so that it ends sooner or later.
    Renamed,
    /// It was deleted, or has been moved out of sight, and is still open.
    Unlinked,
    /// There is no file with this content any more. It is remembered to recognise copies.
    Gone,
}

/// What a file was like when it was last looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) size: u64,
    pub(super) modified: (i64, i64),
    /// Since when it has not grown.
    pub(super) quiet_since: Instant,
}

impl Content {
    pub(super) fn new(id: u64, found: &FoundFile, topic: String, rule: Arc<Rule>) -> Self {
        let now = Instant::now();
        Self {
            id,
            topic,
            rule,
            name: found.path.display().to_string(),
            path: found.path.clone(),
            inode: found.inode,
            is_gzip: found.is_gzip,
            packed_end: 0,
            packed_size: found.size,
            place: Place::default(),
            head: Vec::new(),
            life: Life::Current,
            is_long_gone: false,
            file: None,
            is_dirty: true,
            is_changed: true,
            comes_after: None,
            at_end: None,
            away_since: None,
            seen: Seen { size: 0, modified: found.modified, quiet_since: now },
            searched: 0,
            fruitless: None,
            failure: None,
            used: now,
        }
    }

    /// Whether a file begins with all that was shipped of this content.
    pub(super) fn is_in(&self, file: &File) -> io::Result<bool> {
        Ok(has_bytes(file, 0, &self.head)? && self.place.is_in(file)?)
    }

    /// Whether a file begins as this content does, as far as both go.
    pub(super) fn begins_as(&self, file: &File, size: u64) -> io::Result<bool> {
        let common = self.head.len().min(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(common > 0 && has_bytes(file, 0, &self.head[..common])?)
    }

    /// Whether a file may be a rotated copy, by its name: it is in the same folder, and its name
    /// begins with that of the log without its suffix.
    pub(super) fn may_be_copied_to(&self, path: &Path) -> bool {
        let original = Path::new(&self.name);
        let (Some(stem), Some(name)) = (original.file_stem(), path.file_name()) else {
            return false;
        };
        let (stem, name) = (stem.as_encoded_bytes(), name.as_encoded_bytes());
        path.parent() == original.parent() && name.starts_with(stem)
    }

    /// Whether a file has a name that a rotation gives: that of the log, with or without its suffix,
    /// a separator and a digit.
    pub(super) fn is_rotated_to(&self, path: &Path) -> bool {
        let original = Path::new(&self.name);
        let logs = [original.file_name(), original.file_stem()];
        path.parent() == original.parent()
            && logs.into_iter().flatten().any(|log| rotation_suffix(path, log).is_some())
    }

    /// Opens the file, if the path still leads to it.
    pub(super) fn open(&mut self) -> io::Result<()> {
        if self.file.is_some() || self.life == Life::Gone {
            return Ok(());
        }
        let file = File::open(&self.path)?;
        if Inode::from(&file.metadata()?) != self.inode {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.file = Some(if self.is_gzip { gunzip::unpack(&file, &self.path)? } else { file });
        Ok(())
    }

    /// Records how large the file is now; returns whether it changed.
    pub(super) fn look(&mut self, metadata: &Metadata) -> bool {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let size = metadata.len();
        if (size, modified) == (self.seen.size, self.seen.modified) {
            return false;
        }
        if size != self.seen.size {
            self.seen.quiet_since = Instant::now();
        }
        self.seen.size = size;
        self.seen.modified = modified;
        true
    }

    /// Continues at another place: nothing is known of what is after it.
    pub(super) fn go_to(&mut self, place: Place) {
        self.searched = 0;
        self.fruitless = None;
        self.is_dirty = true;
        self.is_changed = true;
        self.at_end = None;
        self.packed_end = 0;
        self.head.truncate(usize::try_from(place.offset).unwrap_or(usize::MAX));
        self.place = place;
    }

    /// Continues in another file that has the same content.
    pub(super) fn move_to(&mut self, found: &FoundFile) {
        self.path = found.path.clone();
        self.inode = found.inode;
        self.is_gzip = found.is_gzip;
        self.packed_size = found.size;
        self.packed_end = 0;
        self.seen.modified = found.modified;
        self.file = None;
        self.fruitless = None;
        self.searched = 0;
        self.is_dirty = true;
        self.is_changed = true;
        self.at_end = None;
    }

    /// Whether the path leads to the file.
    pub(super) fn is_at_path(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| Inode::from(&metadata) == self.inode)
    }

    /// Whether the file can be closed and found again by its path.
    pub(super) fn may_be_reopened(&self) -> bool {
        self.file.is_some() && !self.is_gzip && self.has_path()
    }

    /// Whether its file has a path, as far as that is known.
    pub(super) fn has_path(&self) -> bool {
        matches!(self.life, Life::Current | Life::Renamed)
    }

    /// Whether there is still a file with the content.
    pub(super) fn is_followed(&self) -> bool {
        self.life != Life::Gone
    }

    /// Whether the file has a rest that waits for its end.
    pub(super) fn has_rest(&self) -> bool {
        self.is_followed() && !self.is_gzip && self.place.offset < self.seen.size
    }

    /// When its rest has waited for so long that it may be shipped; nothing if it was read since
    /// then.
    pub(super) fn rest_due(&self, follow: &FollowArgs) -> Option<Instant> {
        if !self.has_rest() || self.is_dirty {
            return None;
        }
        let rotate_wait = (self.life != Life::Current).then_some(follow.rotate_wait);
        let multiline = follow.has_multiline().then_some(follow.multiline_timeout);
        let waits = [rotate_wait, multiline, follow.flush_unfinished_after];
        let due = waits.into_iter().flatten().map(|wait| self.seen.quiet_since + wait);
        due.filter(|due| *due > self.used).min()
    }

    /// Whether newer files of the same log may be read: this one is read to its end, or will not be
    /// soon. A program that goes on to write to it holds up the others for `patience`.
    pub(super) fn lets_pass(&self, patience: Duration) -> bool {
        matches!(self.life, Life::Current | Life::Gone)
            || self.failure.is_some()
            || (self.is_read() && !self.is_dirty)
            || self.at_end.is_some_and(|at| at.elapsed() >= patience)
    }

    /// Whether the open file has grown since it was last looked at.
    pub(super) fn has_grown(&self) -> bool {
        let metadata = self.file.as_ref().and_then(|file| file.metadata().ok());
        metadata.is_some_and(|metadata| metadata.len() != self.seen.size)
    }

    /// Whether all that the file had when it was last looked at is read.
    pub(super) fn is_read(&self) -> bool {
        self.place.offset >= self.seen.size
    }
}
