//! A topic that files are shipped to, and what of it is on its way.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::super::problem::Problem;
use crate::client::{Acknowledgement, Error, Producer};

/// How long the origin of stored messages is remembered: if the database loses them, they are
/// shipped again.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The most portions that are remembered after they were stored.
const MAX_REMEMBERED: usize = 65_536;

pub(super) struct Destination {
    pub(super) topic: String,
    /// When the producer was registered, as the journal knows it.
    pub(super) registered: Option<i64>,
    /// The producer, while it is open.
    pub(super) producer: Option<Producer>,
    /// When to try to open it.
    pub(super) retry_at: Instant,
    pub(super) failed_tries: u32,
    /// The message that the broker has refused: its index in the first request that is not stored.
    pub(super) refusal: Option<(u64, Problem)>,
    /// Since when no broker was reached.
    pub(super) lost_since: Option<Instant>,
    /// When the producer was last opened again because its sequences did not fit.
    pub(super) reopened: Option<Instant>,
    /// Whether the topic appeared after the start.
    pub(super) is_late: bool,
    /// Counts the producers: what was gathered for an earlier one is not sent by the next.
    pub(super) generation: u64,
    /// The sequence of the next message that is added to the journal.
    pub(super) next_sequence: u64,
    /// In order. At least the last one is kept, which says how far the journal goes.
    pub(super) portions: VecDeque<JournaledPortion>,
    sent: VecDeque<SentPortion>,
    /// The bytes of what was sent and is not acknowledged.
    pub(super) in_flight: usize,
    /// How many messages were stored when the producer was opened first.
    pub(super) stored_before: Option<u64>,
    /// How many are stored, as far as is known.
    pub(super) stored: u64,
    pub(super) last_offset: i64,
    /// Whether people were told that the broker does not answer.
    pub(super) is_stalled: bool,
}

/// Consecutive messages of one content, as the journal has them.
pub(super) struct JournaledPortion {
    pub(super) first: u64,
    pub(super) messages: u64,
    /// When they were acknowledged.
    pub(super) settled: Option<Instant>,
}

impl JournaledPortion {
    pub(super) fn end(&self) -> u64 {
        self.first + self.messages
    }
}

pub(super) struct SentPortion {
    pub(super) content: u64,
    pub(super) first: u64,
    pub(super) messages: u64,
    /// The acknowledgement of the last message: requests are answered in order, so it stands for all.
    pub(super) last: Acknowledgement,
    pub(super) bytes: usize,
    pub(super) since: Instant,
}

impl Destination {
    pub(super) fn new(topic: String, is_late: bool) -> Self {
        Self {
            topic,
            registered: None,
            producer: None,
            retry_at: Instant::now(),
            failed_tries: 0,
            refusal: None,
            lost_since: None,
            reopened: None,
            is_late,
            generation: 0,
            next_sequence: 0,
            portions: VecDeque::new(),
            sent: VecDeque::new(),
            in_flight: 0,
            stored_before: None,
            stored: 0,
            last_offset: -1,
            is_stalled: false,
        }
    }

    pub(super) fn add_sent(&mut self, portion: SentPortion) {
        self.in_flight += portion.bytes;
        self.sent.push_back(portion);
    }

    /// Takes the acknowledgements that have come; fails with the first refusal.
    pub(super) fn take_answers(&mut self) -> Result<(), Error> {
        while let Some(answer) = self.sent.front().and_then(|sent| sent.last.try_offset()) {
            self.last_offset = answer?;
            let Some(sent) = self.sent.pop_front() else { break };
            self.in_flight -= sent.bytes;
            self.stored = sent.first + sent.messages;
            let found = self.portions.binary_search_by_key(&sent.first, |portion| portion.first);
            if let Ok(at) = found {
                self.portions[at].settled = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// How many messages were stored since the producer was opened first.
    pub(super) fn acknowledged(&self) -> u64 {
        self.stored.saturating_sub(self.stored_before.unwrap_or(self.stored))
    }

    /// The acknowledgement that comes next, if any is awaited.
    pub(super) fn awaited(&self) -> Option<Acknowledgement> {
        self.sent.front().map(|sent| sent.last.clone())
    }

    /// For how long the oldest message has waited for its acknowledgement.
    pub(super) fn stalled(&self) -> Option<Duration> {
        self.sent.front().map(|sent| sent.since.elapsed())
    }

    /// Whether messages of a content are on their way.
    pub(super) fn awaits(&self, content: u64) -> bool {
        self.sent.iter().any(|sent| sent.content == content)
    }

    /// Forgets what was sent and is not acknowledged, before another producer is opened.
    pub(super) fn forget_sent(&mut self) {
        self.sent.clear();
        self.in_flight = 0;
    }

    /// Forgets portions that were stored long ago; returns their first sequences.
    pub(super) fn prune(&mut self) -> Vec<u64> {
        let mut pruned = Vec::new();
        while self.portions.len() > 1 {
            let are_many = self.portions.len() > MAX_REMEMBERED;
            let is_old = |at: Instant| are_many || at.elapsed() > REMEMBERED;
            if !self.portions[0].settled.is_some_and(is_old) {
                break;
            }
            pruned.extend(self.portions.pop_front().map(|portion| portion.first));
        }
        pruned
    }
}
