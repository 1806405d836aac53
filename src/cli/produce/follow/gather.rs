//! Reads what is new in the files, one after the other, and makes messages of it.

use std::{
    fs::File,
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    super::{
        super::{failure::Failure, lines::Line},
        problem::Problem,
    },
    content::{Content, Life},
    follower::{Follower, MIN_OPEN},
    notices::Kind,
    place::Place,
    reader::{READ_BYTES, Read, Records, read_at},
    records::Flush,
    stored::StoredPortion,
};
use crate::proto::NewMessage;

/// About how many bytes of messages are added to the journal at once.
const PLAN_BYTES: usize = 8 * 1024 * 1024;

/// The most bytes of messages that wait for their acknowledgement. While there are as many, no file
/// is read.
pub(super) const MAX_IN_FLIGHT: usize = 32 * 1024 * 1024;

/// The most of them that go to one topic of several, so that one that is stuck does not stop the
/// others.
const MAX_IN_FLIGHT_OF_SEVERAL: usize = MAX_IN_FLIGHT / 4;

/// What a message, and each of its headers, counts for besides its bytes.
const OVERHEAD: usize = 100;

/// Messages that are to be added to the journal and then sent.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) portions: Vec<PlannedPortion>,
    pub(super) bad_lines: Vec<BadLine>,
    pub(super) bytes: usize,
    /// Whether files can be read now that could not be read before.
    pub(super) has_more: bool,
    /// The run stops after this plan.
    pub(super) stop: Option<Failure>,
}

/// Consecutive messages of one content.
pub(super) struct PlannedPortion {
    pub(super) topic: String,
    pub(super) first: u64,
    pub(super) messages: Vec<NewMessage>,
    pub(super) stored: StoredPortion,
    pub(super) bytes: usize,
    /// The generation of the producer that they are for.
    pub(super) generation: u64,
}

pub(super) struct BadLine {
    pub(super) name: String,
    pub(super) line: Line,
    /// The problem of a line that is skipped; without one, it is cut.
    pub(super) problem: Option<Problem>,
    /// The line's file, if there is more of the line than was read.
    pub(super) rest: Option<File>,
}

impl BadLine {
    /// Calls `keep` with all pieces of a line of which only the beginning was read.
    pub(super) fn each_piece(
        &self,
        mut keep: impl FnMut(&Bytes) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(file) = &self.rest else { return Ok(()) };
        let mut at = self.line.start;
        let end = at + self.line.length;
        while at < end {
            let piece = read_at(file, at, READ_BYTES.min(end - at))
                .map_err(|error| Failure::refused(format!("read {}: {error}", self.name)))?;
            // The file was truncated in the meantime.
            if piece.is_empty() {
                break;
            }
            at += piece.len() as u64;
            keep(&piece)?;
        }
        Ok(())
    }
}

/// What became of one file.
enum Step {
    /// Something was read.
    Progress,
    /// Older lines of the same log must be read first.
    Waiting,
    /// A file that was rotated away is read to its end.
    Ended,
    Idle,
}

impl Follower<'_> {
    /// Reads files in turn until enough is gathered, or nothing is left to read.
    pub(super) fn gather(&mut self) -> Result<Plan, Failure> {
        let mut plan = Plan::default();
        let dirty = |(id, content): (&u64, &Content)| content.is_dirty.then_some(*id);
        let later = self.contents.range(self.last_read + 1..).filter_map(dirty);
        let earlier = self.contents.range(..=self.last_read).filter_map(dirty);
        let mut ids: Vec<u64> = later.chain(earlier).collect();
        while !ids.is_empty() {
            let (mut left, mut waiting) = (Vec::new(), Vec::new());
            let mut has_ended = false;
            for id in std::mem::take(&mut ids) {
                if plan.bytes >= PLAN_BYTES || plan.stop.is_some() {
                    return Ok(plan);
                }
                match self.gather_from(id, &mut plan)? {
                    Step::Progress => {
                        self.last_read = id;
                        left.push(id);
                    }
                    Step::Waiting => waiting.push(id),
                    Step::Ended => has_ended = true,
                    Step::Idle => {}
                }
            }
            // The next files of the same logs may be read now.
            if has_ended {
                left.append(&mut waiting);
            }
            ids = left;
        }
        Ok(plan)
    }

    fn gather_from(&mut self, id: u64, plan: &mut Plan) -> Result<Step, Failure> {
        if !self.is_next(id) {
            return Ok(Step::Waiting);
        }
        if !self.may_read(id, plan) {
            return Ok(Step::Idle);
        }
        self.make_room_for_file(id);
        let options = self.options;
        let Some(content) = self.contents.get_mut(&id) else { return Ok(Step::Idle) };
        content.used = Instant::now();
        let flush = |content: &Content| flush(content, options);
        let read = content.open().and_then(|()| content.read(&self.cutter, flush));
        match read {
            Ok(Read::Records(records)) => {
                self.take_records(id, records, plan)?;
                Ok(Step::Progress)
            }
            Ok(Read::Searching) => Ok(Step::Progress),
            Ok(Read::Nothing) => {
                content.is_dirty = false;
                content.failure = None;
                let has_ended = content.life != Life::Current;
                if has_ended {
                    content.at_end.get_or_insert_with(Instant::now);
                }
                if content.is_gzip {
                    content.packed_end = content.packed_size;
                    content.is_changed = true;
                    content.file = None;
                }
                Ok(if has_ended { Step::Ended } else { Step::Idle })
            }
            Ok(Read::Replaced) => {
                self.replace(id);
                plan.has_more = true;
                Ok(Step::Idle)
            }
            Err(error) => {
                self.fail_to_read(id, &error);
                Ok(Step::Idle)
            }
        }
    }

    /// Whether the older lines of the same log are read.
    fn is_next(&self, id: u64) -> bool {
        let older = self.contents.get(&id).and_then(|content| content.comes_after);
        let older = older.and_then(|id| self.contents.get(&id));
        // Its last line may take half of that, if it has no end.
        let patience = 2 * self.options.follow.rotate_wait;
        older.is_none_or(|older| older.lets_pass(patience))
    }

    /// Whether a file can be read now: its topic is open and has room.
    fn may_read(&self, id: u64, plan: &Plan) -> bool {
        let Some(content) = self.contents.get(&id) else { return false };
        let Some(destination) = self.destinations.get(&content.topic) else { return false };
        let in_flight: usize = self.destinations.values().map(|it| it.in_flight).sum();
        let planned = plan.portions.iter().filter(|portion| portion.topic == content.topic);
        let planned: usize = planned.map(|portion| portion.bytes).sum();
        let limit = match self.destinations.len() {
            1 => MAX_IN_FLIGHT,
            _ => MAX_IN_FLIGHT_OF_SEVERAL,
        };
        // One packed file is unpacked at a time.
        let is_unpacking = content.is_gzip
            && self.contents.values().any(|it| it.is_gzip && it.file.is_some() && it.id != id);
        destination.producer.is_some()
            && !is_unpacking
            && in_flight + plan.bytes < MAX_IN_FLIGHT
            && destination.in_flight + planned < limit
    }

    /// Closes the file that was idle the longest, if too many are open.
    fn make_room_for_file(&mut self, id: u64) {
        if self.contents.get(&id).is_none_or(|content| content.file.is_some()) {
            return;
        }
        let open = self.contents.values().filter(|content| content.file.is_some()).count();
        // Each topic has a connection.
        let max_open = self.max_open.saturating_sub(self.destinations.len()).max(MIN_OPEN);
        if open < max_open {
            return;
        }
        let may_close = self.contents.values_mut().filter(|it| it.may_be_reopened());
        if let Some(idle) = may_close.min_by_key(|content| content.used) {
            idle.file = None;
        }
    }

    fn take_records(&mut self, id: u64, records: Records, plan: &mut Plan) -> Result<(), Failure> {
        let Records { records, mut end, head } = records;
        let Some(content) = self.contents.get(&id) else { return Ok(()) };
        let start = content.place.clone();
        let mut messages = Vec::with_capacity(records.len());
        let (mut lengths, mut last_end) = (Vec::with_capacity(records.len()), start.offset);
        let (mut bytes, mut bad_bytes) = (0, 0);
        let keeps_rests = self.bad_lines.keeps_rests();
        let mut is_inside_line = start.is_inside_line();
        for line in records {
            // The line end of a line that was shipped unfinished is not a line.
            if std::mem::take(&mut is_inside_line) && line.length == 0 {
                continue;
            }
            let shaped = match self.refused.get_mut(&(id, line.end)) {
                Some(refused) if refused.is_kept => continue,
                Some(refused) => {
                    refused.is_kept = true;
                    Err(refused.problem.clone())
                }
                None => content.rule.shape(&line),
            };
            let problem = match shaped {
                Ok(shaped) => {
                    bytes += cost(&shaped.message);
                    messages.push(shaped.message);
                    lengths.push(line.end - last_end);
                    last_end = line.end;
                    if !shaped.is_cut {
                        continue;
                    }
                    None
                }
                Err(problem) if content.rule.on_bad_line.stops() => {
                    plan.stop = Some(self.stopped_at(content, &line, &problem));
                    end = place_before(content, &line).map_err(|error| {
                        Failure::refused(format!("read {}: {error}", content.name))
                    })?;
                    break;
                }
                Err(problem) => Some(problem),
            };
            let rest = match &content.file {
                Some(file) if keeps_rests && !line.is_whole() => Some(file.try_clone()),
                _ => None,
            };
            let rest = rest.transpose().map_err(|error| {
                Failure::refused(format!("open {} again: {error}", content.name))
            })?;
            bad_bytes += line.bytes.len() + OVERHEAD;
            plan.bad_lines.push(BadLine { name: content.name.clone(), line, problem, rest });
        }
        let topic = content.topic.clone();
        let Some(content) = self.contents.get_mut(&id) else { return Ok(()) };
        content.searched = 0;
        content.fruitless = None;
        content.is_changed = true;
        content.head = head;
        content.head.truncate(usize::try_from(end.offset).unwrap_or(usize::MAX));
        content.place = end;
        plan.bytes += (bytes + bad_bytes).max(1);
        let Some(destination) = self.destinations.get_mut(&topic) else { return Ok(()) };
        if !messages.is_empty() {
            let first = destination.next_sequence;
            destination.next_sequence += messages.len() as u64;
            let stored = StoredPortion::new(id, &start, lengths);
            let generation = destination.generation;
            let portion = PlannedPortion { topic, first, messages, stored, bytes, generation };
            plan.portions.push(portion);
        }
        Ok(())
    }

    fn stopped_at(&self, content: &Content, line: &Line, problem: &Problem) -> Failure {
        let column = problem.column.map(|at| format!(", column {at},")).unwrap_or_default();
        let colon = if problem.is_predicate() { "" } else { ":" };
        let help = match self.options.on_bad_line {
            None => "; --on-bad-line skip|cut continues after such a line",
            Some(_) => "",
        };
        let (number, name) = (line.number, &content.name);
        Failure::refused(format!("line {number}{column} of {name}{colon} {problem}{help}"))
    }

    fn fail_to_read(&mut self, id: u64, error: &io::Error) {
        let Some(content) = self.contents.get_mut(&id) else { return };
        content.file = None;
        let text = format!("read {}: {error}", content.path.display());
        // A file that has just been renamed is found again by its inode.
        if error.kind() == io::ErrorKind::NotFound {
            self.scan_by(Instant::now());
            return;
        }
        content.is_dirty = false;
        content.packed_end = content.packed_size;
        self.notices.tell(Kind::Unreadable, &text);
        content.failure = Some(text);
    }
}

/// What to do with the last record of a file.
fn flush(content: &Content, options: &super::super::options::ProduceArgs) -> Flush {
    let follow = &options.follow;
    let quiet = content.seen.quiet_since.elapsed();
    let is_quiet_for = |time: Duration| quiet >= time;
    let is_retired = content.life != Life::Current;
    let is_complete = content.is_gzip
        || (is_retired && (follow.exit_at_end || is_quiet_for(follow.rotate_wait)))
        || (follow.exit_at_end && options.r#final)
        || follow.flush_unfinished_after.is_some_and(is_quiet_for);
    match is_complete {
        true => Flush::Everything,
        false if follow.exit_at_end || is_quiet_for(follow.multiline_timeout) => {
            Flush::CompleteLines
        }
        false => Flush::Nothing,
    }
}

fn place_before(content: &Content, line: &Line) -> io::Result<Place> {
    match &content.file {
        Some(file) => Place::read(file, line.start, line.number - 1),
        None => Ok(content.place.clone()),
    }
}

/// The room that a message takes up.
fn cost(message: &NewMessage) -> usize {
    let headers = message.headers.iter().map(|(name, value)| name.len() + value.len() + OVERHEAD);
    let key = message.key.as_ref().map_or(0, Bytes::len);
    message.payload.len() + key + headers.sum::<usize>() + OVERHEAD
}
