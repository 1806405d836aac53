//! Finds files: new ones, and known ones that were renamed, deleted or truncated.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    fs::{self, File},
    path::Path,
    time::{Duration, Instant},
};

use super::{
    super::{super::failure::Failure, identity::Inode},
    content::{Content, Life},
    copies::Origin,
    folders::Folders,
    follower::{Follower, LastScan, MIN_OPEN},
    notices::Kind,
    patterns::{FoundFile, is_compressed},
    rotated::{rotation_number, rotation_suffix},
};

/// For how long files are remembered as they are whose folder cannot be read.
const FOLDER_WAIT: Duration = Duration::from_secs(3600);

/// How many contents are remembered whose files are gone.
const MAX_GONE: usize = 256;

impl Follower<'_> {
    /// Looks for files.
    pub(super) fn scan(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        self.scan_due = None;
        let mut found = self.patterns.find();
        found.retain(|file| !self.excluded.contains(&file.inode));
        for folder in self.patterns.folders() {
            self.hints.watch(folder);
        }
        for content in self.contents.values_mut() {
            content.is_long_gone = !content.is_followed();
        }
        let known = self.contents.values().filter(|content| content.is_followed());
        let known: HashMap<Inode, u64> = known.map(|content| (content.inode, content.id)).collect();
        let mut folders = Folders::default();
        let (mut present, mut new) = (HashSet::new(), Vec::new());
        for file in found {
            if let Some(folder) = file.path.parent() {
                self.hints.watch(folder.to_owned());
            }
            // An inode may be used again, by a file that is packed or by one that is not.
            let is_same_kind = |id: &&u64| {
                self.contents.get(id).is_some_and(|content| content.is_gzip == file.is_gzip)
            };
            match known.get(&file.inode).filter(is_same_kind) {
                Some(id) => {
                    present.insert(*id);
                    self.observe(*id, &file);
                }
                None => new.push(file),
            }
        }
        let absent = self.contents.values().filter(|content| content.is_followed());
        let absent = absent.map(|content| content.id).filter(|id| !present.contains(id));
        for id in absent.collect::<Vec<_>>() {
            self.look_for(id, &mut folders);
        }
        let inodes: HashSet<Inode> = new.iter().map(|file| file.inode).collect();
        self.undecided.retain(|inode, _| inodes.contains(inode));
        if !new.is_empty() {
            self.add_missed_of_rotated(&new, &mut folders);
            let logs = self.newest_of_logs();
            for file in new {
                self.consider(&file, &logs, &mut folders)?;
            }
        }
        self.add_missed_of_absent(&mut folders);
        self.has_started = true;
        self.last_scan = LastScan { ended: Instant::now(), took: began.elapsed() };
        Ok(())
    }

    /// The newest content of each log, wherever its file is now.
    fn newest_of_logs(&self) -> HashMap<String, u64> {
        self.contents.values().map(|content| (content.name.clone(), content.id)).collect()
    }

    /// Records where a known file is.
    fn observe(&mut self, id: u64, file: &FoundFile) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        let was_away = content.away_since.take().is_some();
        content.is_dirty |= was_away;
        if content.path != file.path {
            content.path = file.path.clone();
            content.is_changed = true;
            content.is_dirty = true;
        }
        let is_log = content.path == Path::new(&content.name);
        let life = if is_log { Life::Current } else { Life::Renamed };
        let has_ended = std::mem::replace(&mut content.life, life) != life;
        if content.is_gzip {
            content.packed_size = file.size;
            content.is_dirty = content.packed_size != content.packed_end;
            return;
        }
        let is_new = (file.size, file.modified) != (content.seen.size, content.seen.modified);
        content.is_dirty |= is_new || has_ended || !content.is_read();
    }

    /// Finds out what became of a file that no pattern finds.
    fn look_for(&mut self, id: u64, folders: &mut Folders) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        let at_path = fs::metadata(&content.path).ok().filter(fs::Metadata::is_file);
        let at_path = at_path.map(|metadata| FoundFile::new(content.path.clone(), &metadata));
        let found = at_path.filter(|file| file.inode == content.inode);
        let found = found.or_else(|| folders.find_beside(&content.path, content.inode));
        let found = found.filter(|file| file.is_gzip == content.is_gzip);
        if let Some(file) = found {
            return self.observe(id, &file);
        }
        if content.file.is_some() {
            content.life = Life::Unlinked;
            content.is_dirty = true;
            return;
        }
        if !folders.is_readable(&content.path) {
            // Its file system may not be mounted yet.
            let since = content.away_since.get_or_insert_with(Instant::now);
            content.is_dirty = false;
            if since.elapsed() < FOLDER_WAIT {
                return;
            }
        }
        content.life = Life::Gone;
        content.is_dirty = false;
        content.is_changed = true;
        let missing = content.seen.size.saturating_sub(content.place.offset);
        if missing > 0 && !content.is_gzip {
            let text = format!(
                "{} was deleted before {missing} bytes at its end were read",
                content.path.display()
            );
            self.notices.tell(Kind::Replaced, &text);
        }
    }

    /// Decides what to do with a file that is not known.
    fn consider(
        &mut self,
        file: &FoundFile,
        logs: &HashMap<String, u64>,
        folders: &mut Folders,
    ) -> Result<(), Failure> {
        // It was found beside its log.
        if self.contents.values().any(|it| it.is_followed() && it.inode == file.inode) {
            return Ok(());
        }
        let origin = self.origin(file).unwrap_or_else(|error| {
            let text = format!("read {}: {error}", file.path.display());
            self.notices.tell(Kind::Unreadable, &text);
            Origin::Undecided
        });
        match origin {
            Origin::CopyOf(id) => self.continue_in(id, file, false),
            Origin::BeginningOf(id) => self.continue_in(id, file, true),
            Origin::CopyOfUnread => {
                self.leave_alone(file);
                return Ok(());
            }
            Origin::Undecided => match self.leave_alone(file) {
                Some(due) => {
                    self.scan_by(due);
                    return Ok(());
                }
                None => self.add(file, logs, folders)?,
            },
            Origin::New => self.add(file, logs, folders)?,
        }
        self.undecided.remove(&file.inode);
        Ok(())
    }

    /// Follows a new file.
    fn add(
        &mut self,
        file: &FoundFile,
        logs: &HashMap<String, u64>,
        folders: &mut Folders,
    ) -> Result<(), Failure> {
        let topic = match self.topic_names.of(&file.path) {
            Ok(topic) if Some(&topic) == self.options.bad_lines_topic.as_ref() => {
                let problem = format!("its topic {topic} is that of --bad-lines-topic");
                return self.leave_out(&file.path, &problem);
            }
            Ok(topic) => topic,
            Err(problem) => return self.leave_out(&file.path, &problem),
        };
        let topics = self.destinations.len();
        if !self.destinations.contains_key(&topic) && topics + MIN_OPEN > self.max_open {
            let problem = format!(
                "each topic has a connection, {topics} have one, and the process may open no more \
                 files (ulimit -n)"
            );
            return self.leave_out(&file.path, &problem);
        }
        let mut older = logs.get(&file.path.display().to_string()).copied();
        if let Some(previous) = older.and_then(|id| self.contents.get(&id)) {
            let since = previous.seen.modified;
            let missed = self.missed_before(file, since, folders);
            older = self.insert_missed(missed, &file.path, &topic, older);
        }
        self.insert(file, &file.path, topic, older);
        Ok(())
    }

    /// Files of a log that were rotated away, before the present one, and before anybody looked.
    fn missed_before(
        &mut self,
        file: &FoundFile,
        since: (i64, i64),
        folders: &mut Folders,
    ) -> Vec<FoundFile> {
        let log = &file.path;
        let mut missed = self.missed_since(since, log, folders);
        // It may have been rotated away since it was found, and so may newer files of the log: those
        // are found as missed by the next scan, after this file.
        let is_there = fs::metadata(log).is_ok_and(|it| Inode::from(&it) == file.inode);
        missed.retain(|missed| {
            missed.inode != file.inode && (is_there || missed.modified < file.modified)
        });
        if !is_there {
            self.scan_by(Instant::now());
        }
        missed
    }

    /// Follows files of logs that were rotated away before anybody looked, the oldest first, before they
    /// are taken for files of their own because a pattern matches them.
    fn add_missed_of_rotated(&mut self, new: &[FoundFile], folders: &mut Folders) {
        for (name, id) in self.newest_of_logs() {
            let log = Path::new(&name);
            let Some(newest) = self.contents.get(&id) else { continue };
            let may_be_missed = |file: &FoundFile| {
                file.path.parent() == log.parent()
                    && log.file_name().and_then(|log| rotation_suffix(&file.path, log)).is_some()
            };
            let is_there = || newest.path == log && newest.still_has_content();
            if new.iter().any(may_be_missed) && !is_there() {
                self.add_missed_after(id, log, folders);
            }
        }
    }

    /// Follows files of logs that were rotated away before anybody looked, and of which there is no
    /// new file yet.
    fn add_missed_of_absent(&mut self, folders: &mut Folders) {
        for (name, id) in self.newest_of_logs() {
            let log = Path::new(&name);
            let Some(newest) = self.contents.get(&id) else { continue };
            // A current one has just been seen there.
            let is_settled =
                newest.life == Life::Current || (newest.is_long_gone && self.has_started);
            if !is_settled && !log.exists() {
                self.add_missed_after(id, log, folders);
            }
        }
    }

    /// Follows what was rotated away after the newest known content of a log.
    fn add_missed_after(&mut self, newest: u64, log: &Path, folders: &mut Folders) {
        let Some(content) = self.contents.get(&newest) else { return };
        let (topic, since) = (content.topic.clone(), content.seen.modified);
        let missed = self.missed_since(since, log, folders);
        self.insert_missed(missed, log, &topic, Some(newest));
    }

    /// Follows files of a log that were rotated away; returns what its next file comes after.
    fn insert_missed(
        &mut self,
        missed: Vec<FoundFile>,
        log: &Path,
        topic: &str,
        older: Option<u64>,
    ) -> Option<u64> {
        missed
            .iter()
            .fold(older, |older, missed| Some(self.insert(missed, log, topic.to_owned(), older)))
    }

    /// Follows a file of a log, which may have been rotated away already.
    fn insert(
        &mut self,
        file: &FoundFile,
        log: &Path,
        topic: String,
        comes_after: Option<u64>,
    ) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let name = log.display().to_string();
        let mut content = Content::new(id, file, topic, self.rules.of(&name));
        content.name = name;
        content.comes_after = comes_after;
        if file.path != log {
            content.life = Life::Renamed;
        }
        self.want_destination(&content.topic);
        self.contents.insert(id, content);
        id
    }

    /// Files that took the path of a log after the one that was last written to at `since`, and were
    /// rotated away before anybody looked: their names begin with the log's name.
    fn missed_since(
        &mut self,
        since: (i64, i64),
        log: &Path,
        folders: &mut Folders,
    ) -> Vec<FoundFile> {
        let Some(name) = log.file_name().filter(|_| since != (0, 0)) else { return Vec::new() };
        let known = self.followed_inodes();
        let is_missed = |other: &&FoundFile| {
            rotation_suffix(&other.path, name).is_some()
                && !is_compressed(&other.path)
                && !known.contains(&other.inode)
                && !self.excluded.contains(&other.inode)
                && !self.undecided.contains_key(&other.inode)
                && other.modified >= since
        };
        let mut missed: Vec<_> = folders.beside(log).iter().filter(is_missed).cloned().collect();
        missed.retain(|other| !self.is_copy(other, log));
        // Rotations that follow each other within a tick of the system's clock leave files with the
        // same time. Of those, the highest number is the oldest, and dates sort by themselves.
        missed.sort_by_cached_key(|file| {
            let number = rotation_suffix(&file.path, name).and_then(rotation_number);
            (file.modified, Reverse(number), file.path.clone())
        });
        missed
    }

    /// Whether a file is the copy of a content of a log. One that cannot be read is left alone.
    fn is_copy(&mut self, file: &FoundFile, log: &Path) -> bool {
        let mut contents = self.contents.values().filter(|content| Path::new(&content.name) == log);
        let is_copy = File::open(&file.path).and_then(|opened| {
            let is_copy = |content: &Content| content.is_related_to(&opened, file);
            contents.try_fold(false, |found, content| Ok(found || is_copy(content)?))
        });
        is_copy.unwrap_or_else(|error| {
            let text = format!("read {}: {error}", file.path.display());
            self.notices.tell(Kind::Unreadable, &text);
            true
        })
    }

    pub(super) fn followed_inodes(&self) -> HashSet<Inode> {
        let followed = self.contents.values().filter(|content| content.is_followed());
        followed.map(|content| content.inode).collect()
    }

    /// A file whose name makes no topic: an error at the start, and later a notice.
    fn leave_out(&mut self, path: &Path, problem: &str) -> Result<(), Failure> {
        let text = format!("{}: {problem}", path.display());
        if !self.has_started {
            return Err(Failure::usage(text));
        }
        if self.left_out.len() < MAX_GONE && self.left_out.insert(path.to_owned()) {
            self.notices.tell(Kind::LeftOut, &format!("{text}; the file is not shipped"));
        }
        Ok(())
    }

    /// Closes deleted files that are read to their end, and forgets the oldest of those that are gone.
    pub(super) fn retire(&mut self) {
        let wait = self.options.follow.rotate_wait;
        let deleted = self.contents.values_mut().filter(|content| content.life == Life::Unlinked);
        for content in deleted {
            // While no producer is open, it is not known what of the file is stored.
            let is_awaited = self
                .destinations
                .get(&content.topic)
                .is_some_and(|it| it.producer.is_none() || it.awaits(content.id));
            let is_quiet = content.seen.quiet_since.elapsed() >= wait;
            let has_grown = content.has_grown();
            content.is_dirty |= has_grown;
            let is_at_end = content.at_end.is_some() && content.is_read() && !has_grown;
            if is_at_end && is_quiet && !is_awaited {
                content.life = Life::Gone;
                content.file = None;
                content.is_dirty = false;
                content.is_changed = true;
            }
        }
        let gone = self.contents.values().filter(|content| !content.is_followed());
        let gone: Vec<u64> = gone.map(|content| content.id).collect();
        let surplus = gone.len().saturating_sub(MAX_GONE);
        for id in &gone[..surplus] {
            self.contents.remove(id);
            self.forgotten.push(*id);
        }
    }
}
