//! Requests for streams, and the frames that streams send.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::log::messages::{FrameLimits, Messages},
    model::{ConsumerId, Epoch, Offset, OffsetRange, Origin, TopicName},
};

/// A request for a stream.
#[derive(Clone, Debug)]
pub struct Consume {
    /// The topic.
    pub topic: TopicName,
    /// The consumer whose position the stream advances.
    pub consumer: ConsumerId,
    /// When the position advances.
    pub commit_mode: CommitMode,
    /// What to do when another stream holds the lease.
    pub on_busy: OnBusy,
    /// When the stream ends by itself, if it does.
    pub stop: Option<Stop>,
    /// What a frame may hold.
    pub frame: FrameLimits,
    /// How many messages may be in flight beyond the committed position; `None` for any number.
    pub max_in_flight: Option<usize>,
    /// How long the stream may be idle before it sends a heartbeat.
    pub heartbeat: Duration,
    /// When the client stops waiting, if it set a deadline.
    pub deadline: Option<Instant>,
    /// The name by which other clients see the holder of the lease.
    pub holder: String,
    /// Whether the consumer was found not to be registered: the stream ends by saying so, even if
    /// somebody else registers it meanwhile.
    pub is_missing: bool,
    /// Who asks for it.
    pub origin: Origin,
    /// Cancelled when the client may no longer consume: the stream then ends without an error of its
    /// own, and releases its lease.
    pub withdrawn: CancellationToken,
}

/// When a stream's position advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMode {
    /// Before a frame is sent.
    Auto,
    /// When the client commits.
    Manual,
}

/// What a stream does when another one holds the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBusy {
    /// Waits as a standby.
    Wait,
    /// Ends.
    Fail,
    /// Takes the lease over.
    TakeOver,
}

/// When a stream ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// When it has reached the head.
    CaughtUp,
    /// When it has handed out all messages before an offset.
    Offset(Offset),
    /// When it has handed out this many messages.
    Messages(u64),
}

/// What a stream sends to its client.
#[derive(Clone, Debug)]
pub enum Frame {
    /// The stream holds the lease.
    Attached {
        /// The offset of the next message.
        position: Offset,
        /// The offset that the topic's next message gets.
        head: Offset,
        /// The epoch of the lease.
        epoch: Epoch,
        /// The epoch that the last seek began; 0 if there was none.
        seek_epoch: Epoch,
    },
    /// Another stream holds the lease.
    Standby {
        /// Who holds it.
        holder: String,
    },
    /// Messages at the position.
    Messages(Messages),
    /// A seek moved the position.
    Repositioned {
        /// The offset of the next message.
        position: Offset,
        /// The offset that the topic's next message gets.
        head: Offset,
        /// The epoch to commit with from now on.
        epoch: Epoch,
    },
    /// Messages that retention removed before they were handed out.
    Gap(OffsetRange),
    /// The stream has reached the head.
    CaughtUp {
        /// The offset that the topic's next message gets.
        head: Offset,
    },
    /// The stream is idle and alive.
    Heartbeat {
        /// The committed position.
        position: Offset,
        /// The offset that the topic's next message gets.
        head: Offset,
    },
}
