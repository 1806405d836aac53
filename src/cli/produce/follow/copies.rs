//! Recognises copies: what a new file is, and where the content is that a file does not have any more.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Instant,
};

use super::{
    content::{Content, Life},
    folders::Folders,
    follower::Follower,
    gunzip,
    notices::Kind,
    patterns::{FoundFile, is_compressed},
    place::{HEAD_BYTES, Place},
};

/// What a new file is.
pub(super) enum Origin {
    /// A file of its own.
    New,
    /// It has the content of a known file that does not have it any more.
    CopyOf(u64),
    /// It has the beginning of what was shipped of a known file, which does not have it any more.
    BeginningOf(u64),
    /// It may be the copy of a file that is truncated next.
    Undecided,
    /// It has the content of a deleted file that is not read to its end yet.
    CopyOfUnread,
}

/// What a content is to a new file.
enum Relation {
    None,
    Original(Origin),
    /// The file has the content, or its beginning, and the content's own file has it still.
    LiveOriginal,
}

impl Follower<'_> {
    /// Leaves a file alone that may be a copy. Returns until when; nothing if it has been left alone
    /// for so long, without growing, that it is no copy.
    pub(super) fn leave_alone(&mut self, file: &FoundFile) -> Option<Instant> {
        let now = Instant::now();
        let (size, since) = self.undecided.entry(file.inode).or_insert((file.size, now));
        if *size != file.size {
            (*size, *since) = (file.size, now);
        }
        Some(*since + self.options.follow.rotate_wait).filter(|due| *due > now)
    }

    /// What a new file is. A content that a file still has comes before one that is lost: the new
    /// file may be the copy that is being made of it.
    pub(super) fn origin(&mut self, file: &FoundFile) -> io::Result<Origin> {
        let may_be_original = |content: &&Content| content.may_be_copied_to(&file.path);
        let originals: Vec<u64> =
            self.contents.values().filter(may_be_original).map(|it| it.id).rev().collect();
        if originals.is_empty() {
            return Ok(Origin::New);
        }
        let mut copy = File::open(&file.path)?;
        if file.is_gzip {
            copy = gunzip::unpack(&copy, &file.path)?;
        }
        let mut origin = None;
        for id in originals {
            let Some(content) = self.contents.get(&id) else { continue };
            match content.relation_to(&copy, file)? {
                Relation::None => {}
                Relation::LiveOriginal if content.life == Life::Unlinked => {
                    return Ok(Origin::CopyOfUnread);
                }
                Relation::LiveOriginal => return Ok(Origin::Undecided),
                Relation::Original(newest) => _ = origin.get_or_insert(newest),
            }
        }
        Ok(origin.unwrap_or(Origin::New))
    }

    /// Continues a content in another file; at its end, if that has less than was shipped.
    pub(super) fn continue_in(&mut self, id: u64, file: &FoundFile, is_shorter: bool) {
        // The file that had the content has another one now.
        self.scan_by(Instant::now());
        let Some(content) = self.contents.get_mut(&id) else { return };
        content.move_to(file);
        content.life = match file.path == Path::new(&content.name) {
            true => Life::Current,
            false => Life::Renamed,
        };
        if !is_shorter {
            return;
        }
        let lines = content.place.lines;
        match content.open().and_then(|()| content.end(lines)) {
            Ok(end) => content.go_to(end),
            Err(_) => self.give_up(id),
        }
    }

    /// Deals with a file that does not have the content any more: it was truncated, or replaced. What
    /// it has now is found as a new file.
    pub(super) fn replace(&mut self, id: u64) {
        self.scan_by(Instant::now());
        match self.find_copy(id) {
            Some((file, is_shorter)) => self.continue_in(id, &file, is_shorter),
            None => self.give_up(id),
        }
    }

    /// The copy that was made of a file before it was truncated, and whether it has less than was
    /// shipped.
    fn find_copy(&self, id: u64) -> Option<(FoundFile, bool)> {
        let content = self.contents.get(&id).filter(|content| content.place.offset > 0)?;
        let known = self.followed_inodes();
        let mut folders = Folders::default();
        let mut shorter = None;
        for file in folders.beside(&content.path) {
            let may_be_copy = !known.contains(&file.inode)
                && !is_compressed(&file.path)
                && content.may_be_copied_to(&file.path);
            if !may_be_copy {
                continue;
            }
            let Ok(copy) = File::open(&file.path) else { continue };
            let is_rotated = content.is_rotated_to(&file.path);
            let is_known = is_rotated || content.is_distinct(file);
            if is_known && content.is_in(&copy).unwrap_or(false) {
                return Some((file.clone(), false));
            }
            let is_part = is_rotated
                && file.size < content.place.offset
                && content.begins_as(&copy, file.size).unwrap_or(false);
            if is_part {
                shorter = Some((file.clone(), true));
            }
        }
        shorter
    }

    fn give_up(&mut self, id: u64) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        content.life = Life::Gone;
        content.file = None;
        content.is_dirty = false;
        content.is_changed = true;
        if content.place.offset > 0 {
            let text = format!(
                "{} was truncated or replaced after {} bytes of it were read, and no copy of what \
                 it had is beside it: shipping what it has now",
                content.path.display(),
                content.place.offset
            );
            self.notices.tell(Kind::Replaced, &text);
        }
    }

    /// Checks that the files still have what the state says of them.
    pub(super) fn check_restored(&mut self) {
        let known = self.contents.values().filter(|content| content.place.offset > 0);
        for id in known.map(|content| content.id).collect::<Vec<_>>() {
            let Some(content) = self.contents.get_mut(&id) else { continue };
            let is_read = content.is_gzip && content.packed_end == content.packed_size;
            if !content.is_followed() || is_read {
                continue;
            }
            match content.open() {
                Ok(()) => {}
                // It is read, and its error told, when its turn comes.
                Err(_) => continue,
            }
            if !content.still_has_content() {
                self.replace(id);
            } else if let Some(content) = self.contents.get_mut(&id) {
                content.file = None;
            }
        }
    }
}

impl Content {
    /// What the content is to a new file.
    fn relation_to(&self, copy: &File, file: &FoundFile) -> io::Result<Relation> {
        // Nothing is known of a content of which nothing was read.
        if self.place.offset == 0 {
            return Ok(Relation::None);
        }
        let size = copy.metadata()?.len();
        let is_whole = self.is_in(copy)?;
        // A new log at the old path may begin as the old one did.
        let is_at_old_path = file.path == Path::new(&self.name);
        let may_be_part =
            size < self.place.offset && self.is_followed() && self.is_rotated_to(&file.path);
        // A copy may be empty at first.
        let is_part = may_be_part && (size == 0 || self.begins_as(copy, size)?);
        if !is_whole && !is_part {
            return Ok(Relation::None);
        }
        if self.still_has_content() {
            // A copy is never larger than what it is a copy of.
            let is_larger = !self.is_gzip && self.size()? < size;
            return Ok(match is_at_old_path || is_larger {
                true => Relation::None,
                false => Relation::LiveOriginal,
            });
        }
        let was_replaced = self.is_followed() || (is_at_old_path && !self.is_long_gone);
        Ok(match is_whole {
            true if was_replaced || self.is_distinct(file) => {
                Relation::Original(Origin::CopyOf(self.id))
            }
            true => Relation::None,
            false if size == 0 => Relation::Original(Origin::Undecided),
            false => Relation::Original(Origin::BeginningOf(self.id)),
        })
    }

    /// Whether a new file may be a copy of the content, or is one.
    pub(super) fn is_related_to(&self, copy: &File, file: &FoundFile) -> io::Result<bool> {
        Ok(!matches!(self.relation_to(copy, file)?, Relation::None))
    }

    /// Whether a file that begins with all that was shipped of this content can hardly be one that
    /// only begins in the same way: that is much, or it is the same file again, or one that was last
    /// written to at the same time, as programs that compress files leave it.
    fn is_distinct(&self, file: &FoundFile) -> bool {
        let is_same = file.inode == self.inode && file.path == self.path;
        // Some programs keep only the seconds.
        let (seconds, nanoseconds) = file.modified;
        let is_as_old = file.modified == self.seen.modified
            || (nanoseconds == 0 && seconds == self.seen.modified.0);
        self.place.offset >= HEAD_BYTES as u64 || is_same || is_as_old
    }

    /// The size of its file.
    fn size(&self) -> io::Result<u64> {
        match &self.file {
            Some(file) => Ok(file.metadata()?.len()),
            None => Ok(fs::metadata(&self.path)?.len()),
        }
    }

    /// The end of its file.
    fn end(&self, lines: u64) -> io::Result<Place> {
        match &self.file {
            Some(file) => Place::read(file, file.metadata()?.len(), lines),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Whether the content's own file still has it. A file that cannot be read counts as one that
    /// has not.
    pub(super) fn still_has_content(&self) -> bool {
        match self.life {
            Life::Gone => return false,
            // The copy has the content as well, and it stays.
            Life::Unlinked if self.is_read() => return false,
            _ => {}
        }
        if self.is_gzip {
            return self.path.exists();
        }
        let opened;
        let file = match &self.file {
            Some(file) => file,
            None => match File::open(&self.path) {
                Ok(file) => {
                    opened = file;
                    &opened
                }
                Err(_) => return false,
            },
        };
        let is_here = |file: &File| file.metadata().is_ok_and(|it| it.ino() == self.inode.inode);
        is_here(file) && self.is_in(file).unwrap_or(false)
    }
}
