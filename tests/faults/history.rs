//! What was asked of the brokers and what came of it, as JSON lines: all that the checks know.
//!
//! An operation begins with `invoke` and ends with `ok`, with `fail` if it certainly had no effect,
//! or with `info` if nobody can say. A stream is one operation: its frames are noted in between.
//! What is read from the tables, before and at the end, is noted too, so that a file of a run can
//! be checked again.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since the run began, of one clock that never goes back. Lines are in its order.
    pub at: u64,
    /// Who it is: a producer, a stream's client, somebody who looks at the tables, or the run.
    pub client: Arc<str>,
    /// Which of the run's operations; what begins one and what ends it share the number.
    pub op: u64,
    pub stage: Stage,
    #[serde(flatten)]
    pub what: What,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It begins.
    Invoke,
    /// It was done.
    Ok,
    /// It was certainly not done.
    Fail,
    /// It may have been done or not.
    Info,
    /// Something was seen meanwhile.
    Note,
}

/// What is asked, answered or seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// Invoke: values are to be stored, under consecutive sequences if the first one is given.
    /// A retry of the same values is an operation of its own.
    Publish { topic: Arc<str>, values: Values, sequence: Option<i64> },
    /// Ok: they are, at consecutive offsets.
    Published { first_offset: i64, duplicate: bool },

    /// Note: a consumer is registered, and begins at an offset.
    Registered { topic: Arc<str>, consumer: Arc<str>, position: i64 },

    /// Note: a topic keeps no more than so many messages, before any is published.
    Keeps { topic: Arc<str>, messages: i64 },

    /// Invoke: a stream is asked for.
    Consume { topic: Arc<str>, consumer: Arc<str>, manual: bool, take_over: bool },
    /// Note: the stream has the lease, and goes on from a position.
    Attached { position: i64, head: i64, epoch: i64, seek_epoch: i64 },
    /// Note: a seek moved the stream.
    Repositioned { position: i64, epoch: i64 },
    /// Note: messages came, at consecutive offsets.
    Delivered { runs: Vec<Run> },
    /// Note: messages were removed before they were handed out; the stream goes on at `to`.
    Gap { from: i64, to: i64 },
    /// Note: nothing is left to read.
    CaughtUp { head: i64 },
    /// Ok: the stream ended by itself or its client left it.
    Left,

    /// Invoke: a stream's client moves the position.
    Commit { topic: Arc<str>, consumer: Arc<str>, epoch: i64, position: i64 },
    /// Ok: it is moved.
    Committed,

    /// Invoke: somebody moves the position anywhere, also back.
    Seek { topic: Arc<str>, consumer: Arc<str> },
    /// Ok: it stands there.
    Sought { position: i64 },

    /// Invoke: messages before an offset are to be removed.
    Trim { topic: Arc<str>, before: i64 },
    /// Ok: the oldest one that is left, or the head.
    Trimmed { first_offset: i64 },

    /// Fail or info, of any operation; of a stream, which ends with it.
    Refused { code: String, reason: String, message: String },

    /// Note: a row of the tables, read in a transaction that began after the line before it of the
    /// same client.
    Position { topic: Arc<str>, consumer: Arc<str>, position: i64, epoch: i64 },
    /// Note: the same of a topic.
    Ends { topic: Arc<str>, first: i64, head: i64 },

    /// Note: a fault begins or ends.
    Fault { name: String, begins: bool },

    /// Note, at the end, after all faults were healed and all clients had gone: all of a topic's
    /// messages in the tables, in their order.
    Table { topic: Arc<str>, first: i64, head: i64, runs: Vec<Run> },
    /// Note, at the end: what a new consumer of one broker got from the oldest message on.
    FreshRead { topic: Arc<str>, broker: String, runs: Vec<Run> },
}

/// Consecutive values of one producer: each value is published by nobody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    pub producer: Arc<str>,
    pub first: i64,
    pub count: i64,
}

/// Consecutive values at consecutive offsets.
///
/// A message whose payload is not the one of its value, or that names another producer than its
/// value's, is told as one of producer `corrupt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub offset: i64,
    #[serde(flatten)]
    pub values: Values,
}

impl Run {
    /// The offset behind the last one.
    pub fn end(&self) -> i64 {
        self.offset + self.values.count
    }
}

/// Adds one message to runs.
pub fn add(runs: &mut Vec<Run>, offset: i64, producer: &str, value: i64) {
    if let Some(last) = runs.last_mut()
        && last.end() == offset
        && &*last.values.producer == producer
        && last.values.first + last.values.count == value
    {
        last.values.count += 1;
        return;
    }
    let values = Values { producer: producer.into(), first: value, count: 1 };
    runs.push(Run { offset, values });
}

/// A history that is being written; shared by all clients of a run.
pub struct History {
    began: Instant,
    operations: AtomicU64,
    lines: Mutex<Lines>,
    path: PathBuf,
}

struct Lines {
    events: Vec<Event>,
    file: BufWriter<File>,
}

impl History {
    /// A new one, also in a file.
    pub fn create(path: &Path) -> Arc<Self> {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = BufWriter::new(File::create(path).unwrap());
        Arc::new(Self {
            began: Instant::now(),
            operations: AtomicU64::new(1),
            lines: Mutex::new(Lines { events: Vec::new(), file }),
            path: path.to_owned(),
        })
    }

    /// Begins an operation; returns its number.
    pub fn invoke(&self, client: &Arc<str>, what: What) -> u64 {
        let op = self.operations.fetch_add(1, Ordering::Relaxed);
        self.write(client, op, Stage::Invoke, what);
        op
    }

    /// Something was seen outside of all operations.
    pub fn note(&self, client: &Arc<str>, what: What) {
        self.write(client, 0, Stage::Note, what);
    }

    pub fn write(&self, client: &Arc<str>, op: u64, stage: Stage, what: What) {
        let mut lines = self.lines.lock().unwrap();
        // Taken under the lock: the lines are in the order of their times.
        let at = self.began.elapsed().as_nanos() as u64;
        let event = Event { at, client: client.clone(), op, stage, what };
        serde_json::to_writer(&mut lines.file, &event).unwrap();
        lines.file.write_all(b"\n").unwrap();
        lines.events.push(event);
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All lines so far; the file holds them too.
    pub fn events(&self) -> Vec<Event> {
        let mut lines = self.lines.lock().unwrap();
        lines.file.flush().unwrap();
        lines.events.clone()
    }
}
