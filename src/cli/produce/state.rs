//! What is stored of a producer's files.
//!
//! The broker is the authority on how many messages a producer has stored; the state says which
//! lines they were. It never says more than what was acknowledged: messages stored after it was
//! written are counted off from its last file.

use serde::{Deserialize, Serialize};

use super::file_state::FileState;
use crate::proto::Producer;

/// The version of the state that this program reads and writes.
pub(super) const VERSION: u32 = 1;

/// How many files that a run does not name are remembered.
const MAX_OTHER_FILES: usize = 256;

/// What is stored of a producer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProducerState {
    pub(super) version: u32,
    pub(super) topic: String,
    pub(super) producer: String,
    /// When the producer was registered, in microseconds since 1970. A producer that is registered
    /// again, or on another database, starts with a new state.
    pub(super) registered: i64,
    /// The sequence after the last message that is accounted for.
    pub(super) next_sequence: i64,
    /// Whether a run began to ship the last of the files and did not end well: it may have stored
    /// messages from `next_sequence` on, all of them from that file.
    pub(super) shipping: bool,
    /// Ordered by when they were last shipped; the most recent is last.
    pub(super) files: Vec<FileState>,
}

impl ProducerState {
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

    /// Forgets the files that were shipped longest ago, beyond the `named` ones of this run and
    /// [`MAX_OTHER_FILES`] others.
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
