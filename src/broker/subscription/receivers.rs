//! What is asked of an owner, and the workers that wait for messages.

use std::sync::Arc;

use tokio::{sync::oneshot, time::Instant};

use crate::{
    broker::{
        budget::Share,
        error::Error,
        subscription::{
            deliveries::{DeliveryId, Outstanding, WorkerId},
            request::{Idle, Received, Settlement, WorkerLimits},
            standing::Standing,
            storing::{CountOutcome, SettleOutcome},
            unsent::UnsentAnswer,
        },
    },
    model::{ConsumerKey, DeliveryPolicy, Epoch, Offset},
};

/// What is asked of an owner.
pub(super) enum Command {
    /// A worker waits for messages.
    Receive(Receiver),
    /// Messages are settled.
    Settle { settlements: Arc<[Settlement]>, reply: oneshot::Sender<SettleOutcome> },
    /// Deliveries did not reach the worker of a call.
    TakeBack(Vec<DeliveryId>),
    /// A worker has gone, and was never sent some of its deliveries.
    Leave { worker: WorkerId, unsent: Vec<DeliveryId> },
    /// Messages are delivered again that were parked in an epoch.
    Replay { epoch: Epoch, parked: Vec<Offset>, reply: oneshot::Sender<CountOutcome> },
    /// Messages are forgotten that were parked in an epoch.
    Discard { epoch: Epoch, parked: Vec<Offset>, reply: oneshot::Sender<CountOutcome> },
    /// Messages are delivered in another way from now on, as was stored in an epoch.
    SetPolicy { epoch: Epoch, policy: DeliveryPolicy, reply: oneshot::Sender<Result<(), Error>> },
    /// Somebody asks how messages are delivered.
    Describe(oneshot::Sender<Result<Description, Error>>),
    /// Somebody asks what is left to do, and who works on it.
    Stand(oneshot::Sender<Result<Standing, Error>>),
}

/// How a subscription stands.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its consumer.
    pub(crate) key: ConsumerKey,
    /// The epoch of the owner's lease.
    pub(crate) epoch: Epoch,
    /// How its messages are delivered.
    pub policy: DeliveryPolicy,
    /// The first message that is not settled.
    pub floor: Offset,
    /// The offset that the topic's next message gets.
    pub head: Offset,
}

/// A worker that waits for messages.
pub(super) struct Receiver {
    pub worker: Worker,
    /// How many messages it wants at most.
    pub max_messages: usize,
    /// What the answer is charged to.
    pub answers: Option<Share>,
    /// When it gets an empty answer, if it does: after a read that is under way then.
    pub until: Option<Instant>,
    /// When it gets an answer even so, if it does.
    pub deadline: Option<Instant>,
    /// Guards the messages of a call on their way to its client.
    pub unsent: Option<UnsentAnswer>,
    pub reply: oneshot::Sender<Result<Received, Error>>,
}

/// Who waits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Worker {
    /// A call, which takes messages once.
    Call(WorkerId),
    /// A stream, which has had messages before.
    Stream { id: WorkerId, limits: WorkerLimits, known: KnownIdle },
}

/// What a stream knows of why it gets no messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KnownIdle {
    caught_up: bool,
    stalled: bool,
}

impl KnownIdle {
    /// Notes what the stream learns.
    pub(crate) fn note(&mut self, idle: Idle) {
        match idle {
            Idle::CaughtUp => self.caught_up = true,
            Idle::Stalled(_) => self.stalled = true,
        }
    }

    fn has(self, idle: Idle) -> bool {
        match idle {
            Idle::CaughtUp => self.caught_up,
            Idle::Stalled(_) => self.stalled,
        }
    }
}

impl Worker {
    pub(super) fn id(self) -> WorkerId {
        match self {
            Self::Call(id) | Self::Stream { id, .. } => id,
        }
    }

    /// Whether it wants to know that it gets no messages.
    pub(super) fn wants_to_know(self, idle: Idle) -> bool {
        match self {
            Self::Call(_) => false,
            Self::Stream { known, .. } => !known.has(idle),
        }
    }

    /// How much more it can have, of which it has some.
    pub(super) fn room(self, has: Outstanding) -> Outstanding {
        match self {
            Self::Call(_) => Outstanding { messages: usize::MAX, bytes: usize::MAX },
            Self::Stream { limits, .. } => Outstanding {
                messages: limits.messages.saturating_sub(has.messages),
                bytes: limits.bytes.saturating_sub(has.bytes),
            },
        }
    }
}

impl Command {
    /// Answers whoever waits, if anybody does: a caller that has gone does not receive it.
    pub(super) fn refuse(self, error: &Error) {
        match self {
            Self::Receive(receiver) => drop(receiver.answer(Err(error.clone()))),
            Self::Settle { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Replay { reply, .. } | Self::Discard { reply, .. } => {
                drop(reply.send(Err(error.clone())));
            }
            Self::SetPolicy { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Describe(reply) => drop(reply.send(Err(error.clone()))),
            Self::Stand(reply) => drop(reply.send(Err(error.clone()))),
            Self::TakeBack(_) | Self::Leave { .. } => {}
        }
    }
}

impl Receiver {
    /// When it gets an empty answer.
    pub(super) fn answered_at(&self, is_looking: bool) -> Option<Instant> {
        let until = self.until.filter(|_| !is_looking);
        [until, self.deadline].into_iter().flatten().min()
    }

    /// Returns false if the caller has gone.
    pub(super) fn answer(self, answer: Result<Received, Error>) -> bool {
        self.reply.send(answer).is_ok()
    }
}
