//! When a consumer commits and stops, and what happens on its stream.

use crate::client::{error::Error, message::Message};

/// When a consumer's position moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// A message counts as processed when the next one is asked for, or when the consumer is
    /// closed. It is then committed in the background. No message is skipped; the last ones may be
    /// delivered again after a crash.
    Auto,
    /// A message is committed when [`Consumer::commit`](super::Consumer::commit) is called. No
    /// message is skipped; messages that are not committed are delivered again after a crash.
    Manual,
    /// The broker commits a message before it hands it out. No message arrives twice; messages on
    /// their way, or read ahead, when the connection broke or the consumer was closed are not
    /// delivered again.
    AtMostOnce,
}

/// When a consumer ends by itself; for [`ConsumerBuilder::stop`](super::super::ConsumerBuilder::stop).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// When nothing is left to read.
    CaughtUp,
    /// When all messages before an offset have been read.
    Offset(i64),
    /// When this many messages have been read, counting messages that a seek brings again.
    Messages(u64),
}

/// What happens on a consumer's stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The stream holds the lease.
    Attached {
        /// The stored position. Messages that this consumer has already received are not repeated,
        /// unless a seek moved the position while its connection was broken.
        position: i64,
    },
    /// Another stream holds the lease, and this one waits for it.
    Standby {
        /// Who holds it.
        holder: String,
    },
    /// Messages, at least one.
    Messages(Vec<Message>),
    /// A seek moved the position: the next messages follow from there.
    Repositioned {
        /// The offset of the next message.
        position: i64,
    },
    /// Retention removed messages before they could be read.
    Gap {
        /// The first removed offset.
        from: i64,
        /// The offset after the last removed one.
        to: i64,
    },
    /// Nothing is left to read for now.
    CaughtUp,
    /// The broker was lost, or gave the lease to another stream; the consumer tries again.
    Broken(Error),
}
