//! What clients asked the brokers and what came of it, as JSON lines: all that the checks know.
//!
//! An operation begins with `invoke` and ends with `ok`, with `fail` if it certainly had no effect,
//! or with `info` if the outcome is unknown. A stream is one operation: its frames are noted in
//! between. Everything that is read from the tables, during the run and at its end, is noted as
//! well, so that the file of a run can be checked again.

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
    /// Nanoseconds since the start of the run, by a monotonic clock. Lines are in this order.
    pub at: u64,
    /// A producer, a stream's client, the observer of the tables, or the run itself.
    pub client: Arc<str>,
    /// The number of the operation, shared by its start and its end.
    pub op: u64,
    pub stage: Stage,
    #[serde(flatten)]
    pub what: What,
}

/// The stage of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It starts.
    Invoke,
    /// It was done.
    Ok,
    /// It was certainly not done.
    Fail,
    /// Its outcome is unknown.
    Info,
    /// An observation in between.
    Note,
}

/// What was asked, answered or observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// Invoke: publishes values, with consecutive sequences if the first one is given. A retry is
    /// another operation.
    Publish { topic: Arc<str>, values: Values, sequence: Option<i64> },
    /// Ok: they are stored at consecutive offsets.
    Published { first_offset: i64, duplicate: bool },

    /// Note: a consumer was registered at a position.
    Registered { topic: Arc<str>, consumer: Arc<str>, position: i64 },

    /// Note, before any publish: a topic has a maximum number of messages.
    Keeps { topic: Arc<str>, messages: i64 },

    /// Invoke: opens a stream.
    Consume { topic: Arc<str>, consumer: Arc<str>, manual: bool, take_over: bool },
    /// Note: the stream got the lease, and starts at a position.
    Attached { position: i64, head: i64, epoch: i64, seek_epoch: i64 },
    /// Note: a seek moved the stream.
    Repositioned { position: i64, epoch: i64 },
    /// Note: messages arrived, at consecutive offsets.
    Delivered { runs: Vec<Run> },
    /// Note: messages were removed before they were delivered; the stream continues at `to`.
    Gap { from: i64, to: i64 },
    /// Note: the stream reached the head.
    CaughtUp { head: i64 },
    /// Ok: the stream ended, or its client left it.
    Left,

    /// Invoke: a stream's client commits a position.
    Commit { topic: Arc<str>, consumer: Arc<str>, epoch: i64, position: i64 },
    /// Ok: it is stored.
    Committed,

    /// Invoke: moves the position anywhere, also back.
    Seek { topic: Arc<str>, consumer: Arc<str> },
    /// Ok: the new position.
    Sought { position: i64 },

    /// Invoke: removes messages before an offset.
    Trim { topic: Arc<str>, before: i64 },
    /// Ok: the log start offset.
    Trimmed { first_offset: i64 },

    /// Invoke: takes messages of a subscription, by a stream or a call.
    Work { topic: Arc<str>, consumer: Arc<str> },
    /// Note: messages arrived as one delivery. `attempts` says how often they were delivered, and
    /// how many messages in a row that holds for.
    Handed { delivery: i64, runs: Vec<Run>, attempts: Vec<(i32, i64)> },

    /// Invoke: says what becomes of messages of a subscription.
    Settle { topic: Arc<str>, consumer: Arc<str>, settlements: Vec<Settlement> },
    /// Ok: how many messages each of the settlements applied to.
    Settled { applied: Vec<i32> },

    /// Fail or info, of any operation; it ends a stream.
    Refused { code: String, reason: String, message: String },

    /// Note: a row of the tables, read in a transaction that began after the previous line of the
    /// same client.
    Position { topic: Arc<str>, consumer: Arc<str>, position: i64, epoch: i64 },
    /// Note: the same for a topic's log.
    LogEnds { topic: Arc<str>, first: i64, head: i64 },

    /// Note, at the end: what the tables have of a subscription: its position, and the offsets of
    /// the messages that are parked, and of those that are delivered again.
    Subscription {
        topic: Arc<str>,
        consumer: Arc<str>,
        floor: i64,
        parked: Vec<Offsets>,
        retried: Vec<Offsets>,
    },

    /// Note: a fault starts or ends.
    Fault { name: String, begins: bool },

    /// Note, at the end, after all faults were healed and all clients had ended: all messages of a
    /// topic in the tables, in order.
    Table { topic: Arc<str>, first: i64, head: i64, runs: Vec<Run> },
    /// Note, at the end: what a new consumer on a broker got from the oldest message on.
    FreshRead { topic: Arc<str>, broker: String, runs: Vec<Run> },
}

/// Consecutive values of one producer; no other producer publishes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Values {
    pub producer: Arc<str>,
    pub first: i64,
    pub count: i64,
}

/// Consecutive values at consecutive offsets.
///
/// A message whose payload or producer does not belong to its value is noted as one of the producer
/// `corrupt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub offset: i64,
    #[serde(flatten)]
    pub values: Values,
}

impl Run {
    /// The offset after the last one.
    pub fn end(&self) -> i64 {
        self.offset + self.values.count
    }
}

/// Consecutive offsets: the first one, and the one after the last.
pub type Offsets = (i64, i64);

/// What becomes of messages of one delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    pub delivery: i64,
    /// They do not overlap.
    pub ranges: Vec<Offsets>,
    pub verdict: Verdict,
}

/// What a worker makes of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Acknowledge,
    /// They are delivered again, after this time if there is one.
    Retry {
        after_ms: Option<i32>,
    },
    Reject,
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

/// A history that all clients of a run write.
pub struct History {
    started: Instant,
    operations: AtomicU64,
    lines: Mutex<Lines>,
    path: PathBuf,
}

struct Lines {
    events: Vec<Event>,
    file: BufWriter<File>,
}

impl History {
    /// Creates a history, and its file.
    pub fn create(path: &Path) -> Arc<Self> {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = BufWriter::new(File::create(path).unwrap());
        Arc::new(Self {
            started: Instant::now(),
            operations: AtomicU64::new(1),
            lines: Mutex::new(Lines { events: Vec::new(), file }),
            path: path.to_owned(),
        })
    }

    /// Starts an operation; returns its number.
    pub fn invoke(&self, client: &Arc<str>, what: What) -> u64 {
        let op = self.operations.fetch_add(1, Ordering::Relaxed);
        self.write(client, op, Stage::Invoke, what);
        op
    }

    /// Notes an observation outside of all operations.
    pub fn note(&self, client: &Arc<str>, what: What) {
        self.write(client, 0, Stage::Note, what);
    }

    pub fn write(&self, client: &Arc<str>, op: u64, stage: Stage, what: What) {
        let mut lines = self.lines.lock().unwrap();
        // Read under the lock, so that the lines are in the order of their times.
        let at = self.started.elapsed().as_nanos() as u64;
        let event = Event { at, client: client.clone(), op, stage, what };
        serde_json::to_writer(&mut lines.file, &event).unwrap();
        lines.file.write_all(b"\n").unwrap();
        lines.events.push(event);
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All lines so far, which are also in the file.
    pub fn events(&self) -> Vec<Event> {
        let mut lines = self.lines.lock().unwrap();
        lines.file.flush().unwrap();
        lines.events.clone()
    }
}
