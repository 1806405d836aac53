//! Pulls: messages for clients that ask for them instead of holding a stream.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{self, Instant};

use crate::{
    broker::{
        budget::{Hold, Share},
        consume::delivery::Delivery,
        error::Error,
        lease::{queue::Priority, registry::Waiter},
        log::messages::{FrameLimits, Messages, fit},
    },
    model::{Batch, ConsumerId, Offset, OffsetRange, TopicName},
    storage::{self, Choice},
};

/// A request for the next messages.
#[derive(Clone, Debug)]
pub struct Pull {
    /// The topic.
    pub topic: TopicName,
    /// The consumer whose position moves.
    pub consumer: ConsumerId,
    /// How many messages to take at most.
    pub max_messages: usize,
    /// How long to wait for a message when there is none.
    pub wait: Duration,
    /// When the client stops waiting, if it set a deadline.
    pub deadline: Option<Instant>,
    /// What the answer is charged to, before the position moves.
    pub answers: Option<Share>,
}

/// What a pull took.
#[derive(Debug)]
pub struct Pulled {
    /// The messages, if there were any.
    pub messages: Messages,
    /// Messages that retention removed before they were taken.
    pub gap: Option<OffsetRange>,
    /// The offset that the topic's next message gets.
    pub head: Offset,
    /// The room that was taken for the answer.
    pub room: Option<Hold>,
}

/// Where a pull takes the room for its answer: in its transaction, when it has its session and its
/// rows, and before the position moves. An answer that is refused afterwards would lose its messages.
struct Room<'a> {
    share: Option<&'a Share>,
    /// The room that a pull which found none has waited for.
    waited_for: Mutex<Option<Hold>>,
    /// The bytes of the messages that were chosen last.
    chosen: AtomicUsize,
}

/// How long pulls of one consumer queue behind each other before they fail.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait before a retry, after something else moved the position.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// How long a pull waits for the lock, which a pull on another broker holds until it ends, or for its
/// consumer's row.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// At most so many bytes of an answer are not messages.
const ANSWER_FRAMING: usize = 256;

/// How long a pull waits for its client to read other answers.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// How much of the wait for the lock it may wait on a session at a time.
const SESSION_LOCK_WAIT: Duration = Duration::from_millis(100);

impl Delivery {
    /// Takes the next messages, and moves the position past them.
    pub async fn pull(&self, pull: Pull) -> Result<Pulled, Error> {
        self.calls.admit()?;
        self.calls.track(self.pull_or_wait(&pull)).await
    }

    async fn pull_or_wait(&self, pull: &Pull) -> Result<Pulled, Error> {
        let wait_until = Instant::now() + pull.wait;
        let deadline = pull.deadline.filter(|deadline| *deadline < wait_until);
        let (_, mut log) = self.begin_reading(&pull.topic, &pull.consumer).await?;
        let deleted = log.deleted();
        loop {
            log.head.borrow_and_update();
            let pulled = self.pull_once(pull).await?;
            let has_some = pulled.messages.count() > 0 || pulled.gap.is_some();
            if has_some || Instant::now() >= wait_until {
                return Ok(pulled);
            }
            tokio::select! {
                _ = log.head.changed() => {}
                () = deleted.cancelled() => {
                    return Err(Error::TopicNotFound { topic: pull.topic.clone() });
                }
                () = time::sleep_until(deadline.unwrap_or(wait_until)) => match deadline {
                    Some(_) => return Err(Error::DeadlineExceeded),
                    None => return Ok(pulled),
                },
                () = self.calls.draining().cancelled() => return Err(Error::Draining),
            }
        }
    }

    async fn pull_once(&self, pull: &Pull) -> Result<Pulled, Error> {
        let Pull { topic, consumer, max_messages, .. } = pull;
        let waiter = self.leases.waiter(topic, consumer);
        // Pulls queue here rather than in the database, where each would occupy a session.
        if waiter.holder().is_some() {
            return Err(self.lease_held(&waiter, pull).await?);
        }
        let give_up = Instant::now() + QUEUE_TIMEOUT;
        let permit = time::timeout_at(pull.until(give_up), waiter.enqueue(Priority::Normal)).await;
        let Ok(Ok(_permit)) = permit else {
            pull.refuse_when_late()?;
            return Err(self.lease_held(&waiter, pull).await?);
        };
        let limits = FrameLimits::of_answer(*max_messages);
        let room = Room {
            share: pull.answers.as_ref(),
            waited_for: Mutex::default(),
            chosen: AtomicUsize::new(0),
        };
        let choose = |batches: &[_], from| room.choose(batches, from, limits);
        let mut has_waited = false;
        let (key, outcome) = loop {
            let key = self.catalogue.position(topic, consumer).await?.key;
            let lock_until = pull.until(Instant::now() + LOCK_WAIT);
            let take = || {
                let left = lock_until.duration_since(Instant::now());
                self.storage.pull(key, limits.bytes, left.min(SESSION_LOCK_WAIT), choose)
            };
            let outcome = match take().await {
                Err(storage::Error::Locked(_)) => {
                    let row_locks = self.storage.row_locks();
                    row_locks.of_consumer_until(lock_until, topic, consumer, take).await
                }
                outcome => outcome,
            };
            if let Ok(storage::Pull::NoRoom { bytes }) = outcome
                && !has_waited
            {
                has_waited = true;
                room.wait_for(bytes, pull).await?;
                continue;
            }
            // Something else moved the position, or the consumer was unregistered and perhaps
            // registered again.
            let changed = matches!(
                outcome,
                Ok(storage::Pull::NotRegistered) | Err(storage::Error::ChangedMeanwhile)
            );
            if !changed || Instant::now() >= pull.until(give_up) {
                break (key, outcome);
            }
            time::sleep(RETRY_PAUSE).await;
        };
        match outcome {
            Ok(storage::Pull::Took(taken)) => {
                let chosen = &room.chosen;
                let storage::Pulled { batches, position, from, to, head, room } = taken;
                let gap = (position < from).then_some(OffsetRange { start: position, end: from });
                let range = OffsetRange { start: from, end: to };
                let messages = Messages::new(batches, range, chosen.load(Relaxed));
                let traffic = &self.metrics.traffic;
                traffic.count_consumed(key.topic, messages.count(), messages.bytes());
                Ok(Pulled { messages, gap, head, room })
            }
            Err(storage::Error::Locked(_)) => {
                pull.refuse_when_late()?;
                Err(self.lease_held(&waiter, pull).await?)
            }
            Ok(storage::Pull::NoRoom { .. }) => Err(room.unread()),
            // Nothing was taken: the position keeps moving, or the consumer keeps being registered
            // again, faster than this broker can read.
            Ok(storage::Pull::NotRegistered) | Err(storage::Error::ChangedMeanwhile) => {
                Err(Error::unavailable())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn lease_held(&self, waiter: &Waiter, pull: &Pull) -> Result<Error, Error> {
        let (topic, consumer) = (pull.topic.clone(), pull.consumer.clone());
        let holder = self.find_holder(waiter, &topic, &consumer).await?;
        Ok(Error::LeaseHeld { topic, consumer, holder })
    }
}

impl Pull {
    /// A time, or the client's deadline if that is earlier.
    fn until(&self, time: Instant) -> Instant {
        self.deadline.map_or(time, |deadline| deadline.min(time))
    }

    fn refuse_when_late(&self) -> Result<(), Error> {
        match self.deadline {
            Some(deadline) if deadline <= Instant::now() => Err(Error::DeadlineExceeded),
            _ => Ok(()),
        }
    }
}

impl Room<'_> {
    /// Chooses the messages to take, as many as fit in an answer for which there is room.
    fn choose(
        &self,
        batches: &[Arc<Batch>],
        from: Offset,
        mut limits: FrameLimits,
    ) -> Choice<Option<Hold>> {
        let waited_for = self.waited_for.lock().take();
        if let Some(hold) = &waited_for {
            // More may have been published since.
            limits.bytes = limits.bytes.min(hold.bytes().saturating_sub(ANSWER_FRAMING));
        }
        let (end, bytes) = fit(batches.iter(), from, limits);
        self.chosen.store(bytes, Relaxed);
        let Some(share) = self.share.filter(|_| end > from) else {
            return Choice::UpTo { end, room: None };
        };
        let bytes = bytes + ANSWER_FRAMING;
        let room = match waited_for {
            Some(mut hold) if hold.bytes() >= bytes => Some(hold.split(bytes)),
            _ => share.try_hold(bytes),
        };
        match room {
            Some(_) => Choice::UpTo { end, room },
            None => Choice::NoRoom { bytes },
        }
    }

    /// Waits until the client has read other answers.
    async fn wait_for(&self, bytes: usize, pull: &Pull) -> Result<(), Error> {
        let Some(share) = self.share else { return Ok(()) };
        let until = pull.until(Instant::now() + ROOM_WAIT);
        let Ok(hold) = time::timeout_at(until, share.clone().hold(bytes)).await else {
            pull.refuse_when_late()?;
            return Err(self.unread());
        };
        *self.waited_for.lock() = Some(hold);
        Ok(())
    }

    fn unread(&self) -> Error {
        Error::AnswersUnread { limit: self.share.map_or(0, Share::most) }
    }
}
