//! What workers ask of a subscription.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    broker::{
        budget::{Hold, Share},
        log::messages::Messages,
        subscription::{deliveries::Outstanding, unsent::UnsentAnswer},
    },
    model::{ConsumerId, Offset, OffsetRange, TopicName},
};

/// A request for the next messages.
#[derive(Clone, Debug)]
pub struct Receive {
    /// The topic.
    pub topic: TopicName,
    /// The subscription.
    pub subscription: ConsumerId,
    /// How many messages to hand out at most.
    pub max_messages: usize,
    /// How long to wait for a message when there is none.
    pub wait: Duration,
    /// When the client stops waiting, if it set a deadline.
    pub deadline: Option<Instant>,
    /// What the answer is charged to.
    pub answers: Option<Share>,
}

/// What a worker gets.
#[derive(Debug, Default)]
pub struct Received {
    /// The messages, if there were any.
    pub deliveries: Vec<Delivery>,
    /// The offset that the topic's next message gets.
    pub head: Offset,
    /// The room that was taken for the answer.
    pub room: Option<Hold>,
    /// Why there are no messages, for a stream that did not know.
    pub idle: Option<Idle>,
    /// How much the worker has now.
    pub outstanding: Outstanding,
    /// Takes the messages of a call back unless they are sent.
    pub unsent: Option<UnsentAnswer>,
}

/// Why a worker gets no messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// There are none that could be delivered now.
    CaughtUp,
    /// There are some, and a limit has been reached.
    Stalled(Limit),
}

/// What keeps messages from being delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The worker has as many messages as it can have.
    WorkerMessages,
    /// The worker has as many bytes of messages as it can have.
    WorkerBytes,
    /// All workers together have as many messages as they can have.
    Outstanding,
    /// All workers together have as many bytes of messages as they can have.
    OutstandingBytes,
    /// Too many messages wait to be delivered again.
    Retried,
}

/// How much a worker with a stream can have at a time.
#[derive(Clone, Copy, Debug)]
pub struct WorkerLimits {
    /// Messages.
    pub messages: usize,
    /// Bytes of messages, encoded.
    pub bytes: usize,
}

/// A request for a worker's stream.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The topic.
    pub topic: TopicName,
    /// The subscription.
    pub subscription: ConsumerId,
    /// How much the worker can have at a time.
    pub limits: WorkerLimits,
    /// How many messages it gets together.
    pub max_batch_messages: usize,
}

/// Which parked messages a call is about.
#[derive(Clone, Debug)]
pub struct Parked {
    /// The topic.
    pub topic: TopicName,
    /// The subscription.
    pub subscription: ConsumerId,
    /// The messages, in ranges that do not overlap; none for all of them.
    pub ranges: Vec<OffsetRange>,
}

/// How many parked messages a call was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unparked {
    /// How many there were.
    pub count: usize,
    /// Whether there are more.
    pub has_more: bool,
}

/// Consecutive messages that a worker gets together.
#[derive(Debug)]
pub struct Delivery {
    /// The number that settlements name.
    pub id: u64,
    /// The messages.
    pub messages: Messages,
    /// How often each of them was delivered, with this time.
    pub attempts: Vec<u32>,
}

/// Verdicts on messages.
#[derive(Clone, Debug)]
pub struct Settle {
    /// The topic.
    pub topic: TopicName,
    /// The subscription.
    pub subscription: ConsumerId,
    /// Each is carried out by itself, in order.
    pub settlements: Arc<[Settlement]>,
}

/// A worker's verdict on messages of one delivery.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The number of the delivery.
    pub delivery: u64,
    /// The messages, in ranges that do not overlap; none for all of them.
    pub ranges: Vec<OffsetRange>,
    /// What becomes of them.
    pub verdict: Verdict,
}

/// What a worker makes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Acknowledge,
    /// It is to be delivered again.
    Retry {
        /// After this time; `None` for the one that the policy says.
        delay: Option<Duration>,
    },
    /// It cannot be processed, and is parked.
    Reject {
        /// Why.
        reason: Arc<str>,
    },
    /// The worker has not begun with it: it is delivered again at once, and this delivery does not count as
    /// an attempt.
    Release,
    /// The worker needs more time.
    Extend {
        /// So much, from now on; `None` for as much as the policy gives for a delivery.
        by: Option<Duration>,
    },
}
