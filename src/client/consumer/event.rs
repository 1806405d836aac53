//! What a consumer can be asked for, and what it tells.

use super::super::{Error, Message};

/// When a consumer's position moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// A message counts as dealt with when the next one is asked for, or when the consumer is
    /// closed; that is committed in the background. None is passed over; after a crash the last
    /// ones may come again.
    Auto,
    /// When [`Consumer::commit`](super::Consumer::commit) says so. None is passed over; what was not
    /// committed comes again after a crash.
    Manual,
    /// Before a message is handed out, by the broker. None comes twice; what was on its way, or
    /// read ahead, when the connection broke or the consumer was closed is not repeated.
    AtMostOnce,
}

/// When a consumer ends by itself; for [`ConsumerBuilder::stop`](super::ConsumerBuilder::stop).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// When nothing is left to read.
    CaughtUp,
    /// When all messages before an offset have been had.
    Offset(i64),
    /// When so many messages have been read, those that a seek then brings again included.
    Messages(u64),
}

/// What a consumer tells besides its messages.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The stream holds the lease.
    Attached {
        /// The stored position. What this consumer has had already is not repeated, unless it was
        /// sought while it was away.
        position: i64,
    },
    /// Another stream holds the lease, and this one waits for it.
    Standby {
        /// Who holds it.
        holder: String,
    },
    /// Messages, at least one.
    Messages(Vec<Message>),
    /// A seek moved the position: messages follow from there.
    Repositioned {
        /// The offset of the next message.
        position: i64,
    },
    /// Retention removed messages before they could be had.
    Gap {
        /// The offset of the first one.
        from: i64,
        /// The offset behind the last one.
        to: i64,
    },
    /// Nothing is left to read for now.
    CaughtUp,
    /// The broker went away or gave the lease to another stream; it is being tried again.
    Broken(Error),
}
