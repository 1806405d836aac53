//! Hands messages to the workers that wait for them: first those that are due again, then new ones.

use std::{collections::VecDeque, sync::Arc};

use tokio::{sync::oneshot, time::Instant};

use crate::{
    broker::{
        budget::Hold,
        consume::delivery::Delivery as Reading,
        error::Error,
        log::{
            cursor::Cursor,
            messages::{FrameLimits, Messages, encoded_bytes},
            topics::LogReader,
        },
        subscription::{
            deliveries::WorkerId,
            request::{Delivery, Receive, Received, Settlement},
            state::State,
            storing::{Caller, SettleOutcome},
        },
    },
    model::{Batch, Offset, TopicName},
};

/// How many messages may be with workers. Beyond that, nothing is handed out until some are settled.
const MAX_OUTSTANDING: usize = 100_000;

/// How many messages may be delivered again. Beyond that, no new ones are handed out until some are settled.
const MAX_EXCEPTIONS: usize = 200_000;

/// How many reads an answer may take for messages that are delivered again, once it has some.
const MAX_READS: usize = 64;

/// What a delivery takes in an answer besides its messages.
const DELIVERY_FRAMING: usize = 64;

/// At most so many bytes of an answer are not deliveries.
const ANSWER_FRAMING: usize = 64;

/// What is asked of an owner.
pub(super) enum Command {
    Receive(Receiver),
    Settle { settlements: Vec<Settlement>, reply: oneshot::Sender<SettleOutcome> },
}

/// A worker that waits for messages.
pub(super) struct Receiver {
    pub request: Receive,
    /// When it gets an empty answer.
    pub until: Instant,
    pub reply: oneshot::Sender<Result<Received, Error>>,
}

/// The messages of a subscription, and the workers that wait for them.
pub(super) struct Handout {
    pub delivery: Arc<Reading>,
    pub topic: TopicName,
    pub log: LogReader,
    pub cursor: Cursor,
    pub state: State,
    /// New messages that did not fit into the last answer.
    pub set_aside: Option<Messages>,
    pub receivers: VecDeque<Receiver>,
    /// How many workers there were.
    pub workers: u64,
}

/// What a worker gets, as it is gathered.
struct Gathered {
    worker: WorkerId,
    deliveries: Vec<Delivery>,
    messages_left: usize,
    bytes_left: usize,
    /// The bytes of the answer.
    bytes: usize,
}

impl Command {
    pub(super) fn refuse(self, error: &Error) {
        match self {
            Self::Receive(receiver) => receiver.answer(Err(error.clone())),
            // A caller that has gone does not receive it.
            Self::Settle { reply, .. } => drop(reply.send(Err(error.clone()))),
        }
    }
}

impl Receiver {
    pub(super) fn answer(self, answer: Result<Received, Error>) {
        // A caller that has gone does not receive it.
        let _ = self.reply.send(answer);
    }
}

impl Handout {
    /// Carries verdicts out.
    pub(super) fn settle(
        &mut self,
        settlements: &[Settlement],
        reply: oneshot::Sender<SettleOutcome>,
        now: Instant,
    ) -> Caller {
        // A delivery ends at its deadline, and not when somebody looks.
        self.state.expire(now);
        let applied = settlements.iter().map(|it| self.state.settle(it, now)).collect();
        Caller { applied, reply }
    }

    /// Takes messages back whose deadlines have passed, and forgets workers that have gone.
    pub(super) fn expire(&mut self, now: Instant) {
        self.state.expire(now);
        self.receivers.retain(|receiver| !receiver.reply.is_closed());
    }

    /// Answers workers that have waited for long enough.
    pub(super) fn answer_late(&mut self, now: Instant) {
        if !self.receivers.iter().any(|receiver| receiver.until <= now) {
            return;
        }
        let head = *self.log.head.borrow();
        let receivers = std::mem::take(&mut self.receivers);
        for receiver in receivers {
            match receiver.until <= now {
                true => receiver.answer(Ok(Received { head, ..Received::default() })),
                false => self.receivers.push_back(receiver),
            }
        }
    }

    /// Hands out what there is, to those who have waited the longest.
    pub(super) async fn hand_out(&mut self, now: Instant) {
        while let Some(receiver) = self.receivers.front() {
            let request = &receiver.request;
            let (messages, share) = (request.max_messages, request.answers.clone());
            let mut gathered = Gathered::new(WorkerId(self.workers), messages);
            self.workers += 1;
            let outcome = self.gather(&mut gathered, now).await;
            let Gathered { worker, deliveries, bytes, .. } = gathered;
            let answer = match (outcome, share) {
                (Ok(()), _) if deliveries.is_empty() => return,
                // If there are some, the next call finds the error.
                (Err(error), _) if deliveries.is_empty() => {
                    let error = error.logged("read messages of a subscription");
                    for receiver in self.receivers.drain(..) {
                        receiver.answer(Err(error.clone()));
                    }
                    return;
                }
                (_, None) => Ok((deliveries, None)),
                (_, Some(share)) => match share.try_hold(bytes) {
                    Some(room) => Ok((deliveries, Some(room))),
                    None => Err(Error::AnswersUnread { limit: share.most() }),
                },
            };
            self.answer(worker, answer, now);
        }
    }

    /// Answers the first receiver.
    fn answer(
        &mut self,
        worker: WorkerId,
        answer: Result<(Vec<Delivery>, Option<Hold>), Error>,
        now: Instant,
    ) {
        let Some(receiver) = self.receivers.pop_front() else { return };
        let head = *self.log.head.borrow();
        let answer = answer.map(|(deliveries, room)| Received { deliveries, head, room });
        if let Ok(received) = &answer {
            let traffic = &self.delivery.metrics.traffic;
            for Delivery { messages, .. } in &received.deliveries {
                traffic.count_consumed(self.log.topic(), messages.count(), messages.bytes());
            }
        }
        let is_refused = answer.is_err();
        if receiver.reply.send(answer).is_err() || is_refused {
            // Nobody has them.
            self.state.take_back(worker, now);
        }
    }

    /// Gathers messages, and hands them to the worker.
    async fn gather(&mut self, gathered: &mut Gathered, now: Instant) -> Result<(), Error> {
        let due = self.state.due(now, gathered.messages_left.min(self.room()));
        let (mut due, mut batch, mut reads) = (&due[..], None::<Arc<Batch>>, 0);
        while let Some(&first) = due.first() {
            let known = batch.filter(|batch| batch.base <= first && first < batch.end());
            let found = match known {
                Some(known) => known,
                // What is far apart takes a read each. A worker gets what there is by then.
                None if reads >= MAX_READS && !gathered.deliveries.is_empty() => return Ok(()),
                None => {
                    reads += 1;
                    match self.batch_of(first).await? {
                        Some(found) => found,
                        None => {
                            let left = due.iter().position(|it| self.state.is_exception(*it));
                            due = &due[left.unwrap_or(due.len())..];
                            batch = None;
                            continue;
                        }
                    }
                }
            };
            // As many as follow each other in this batch.
            let follow = due.iter().zip(first.0..found.end().0);
            let count = follow.take_while(|(due, next)| due.0 == *next).count();
            let limits = FrameLimits { end: first.after(count), ..gathered.limits() };
            let messages = Messages::that_fit(vec![found.clone()], first, limits);
            if messages.count() == 0 || !gathered.has_room_for(&messages) {
                return Ok(());
            }
            due = &due[messages.count()..];
            batch = Some(found);
            self.add(messages, gathered);
        }
        while gathered.messages_left > 0
            && self.has_room()
            && let Some(messages) = self.next_new(gathered.limits()).await?
        {
            if !gathered.has_room_for(&messages) {
                self.set_aside = Some(messages);
                return Ok(());
            }
            self.add(messages, gathered);
        }
        Ok(())
    }

    fn add(&mut self, messages: Messages, gathered: &mut Gathered) {
        let sizes: Vec<(Offset, u32)> = messages
            .iter()
            .map(|message| {
                let bytes = u32::try_from(encoded_bytes(&message)).unwrap_or(u32::MAX);
                (message.offset, bytes)
            })
            .collect();
        // The reads before may have taken a while.
        let now = Instant::now();
        let (id, delivered) = self.state.hand_out(gathered.worker, &sizes, now);
        let attempts = delivered.iter().map(|message| message.attempt).collect();
        gathered.add(Delivery { id: id.0, messages, attempts });
    }

    /// The next messages that were never handed out.
    async fn next_new(&mut self, limits: FrameLimits) -> Result<Option<Messages>, Error> {
        loop {
            let head = *self.log.head.borrow_and_update();
            let Some(range) = self.state.next_new(head) else { return Ok(None) };
            if let Some(messages) = self.set_aside.take() {
                let is_next = messages.range.start == range.start
                    && messages.range.end <= range.end
                    && messages.range.start >= self.log.start();
                if is_next && messages.count() <= limits.messages {
                    return Ok(Some(messages));
                }
                self.cursor = Cursor::new(range.start, head);
            }
            match self.cursor.position() <= range.start {
                true => self.cursor.skip_to(range.start),
                false => self.cursor = Cursor::new(range.start, head),
            }
            if !self.cursor.fill(&self.delivery.storage, &self.log).await? {
                return Err(Error::TopicNotFound { topic: self.topic.clone() });
            }
            if let Some(gap) = self.cursor.take_gap() {
                self.state.skip_before(gap.end);
                continue;
            }
            let limits = FrameLimits { end: limits.end.min(range.end), ..limits };
            return Ok(self.cursor.next_messages(limits));
        }
    }

    /// The batch of a message; `None` if it was removed from the log.
    async fn batch_of(&mut self, offset: Offset) -> Result<Option<Arc<Batch>>, Error> {
        if offset >= self.log.start()
            && let Some(batch) = self.log.cached(offset, 1).into_iter().next()
        {
            return Ok(Some(batch));
        }
        let read = self.delivery.storage.read_batches(self.log.topic(), offset, 1).await;
        let Some(read) = read.map_err(Error::of_read)? else {
            return Err(Error::TopicNotFound { topic: self.topic.clone() });
        };
        if offset < read.ends.start {
            self.state.skip_before(read.ends.start);
            return Ok(None);
        }
        if offset >= read.ends.head {
            self.state.forget_from(read.ends.head);
            return Ok(None);
        }
        let batch = read.batches.into_iter().next().filter(|batch| batch.base <= offset);
        batch.map(Some).ok_or_else(Error::unavailable)
    }

    /// Waits until there are more messages, if somebody waits for them.
    pub(super) async fn more(&mut self) {
        // Cannot fail: the sender lives as long as the reader.
        if self.receivers.is_empty() || !self.has_room() || self.log.head.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether new messages may be handed out.
    fn has_room(&self) -> bool {
        self.room() > 0 && self.state.exceptions() < MAX_EXCEPTIONS
    }

    /// How many more messages workers may have.
    fn room(&self) -> usize {
        MAX_OUTSTANDING.saturating_sub(self.state.outstanding().messages)
    }

    /// When something is to be done although nobody asks.
    pub(super) fn next_event(&self) -> Option<Instant> {
        let waits_until = self.receivers.iter().map(|receiver| receiver.until).min();
        // What is due cannot be handed out while workers have too much. A settlement changes that.
        let can_hand_out = !self.receivers.is_empty() && self.room() > 0;
        let due = self.state.next_due().filter(|_| can_hand_out);
        [self.state.next_deadline(), due, waits_until].into_iter().flatten().min()
    }

    /// Whether workers have messages, or wait for some.
    pub(super) fn is_busy(&self) -> bool {
        !self.receivers.is_empty() || self.state.outstanding().messages > 0
    }
}

impl Gathered {
    fn new(worker: WorkerId, messages: usize) -> Self {
        let limits = FrameLimits::of_answer(messages);
        Self {
            worker,
            deliveries: Vec::new(),
            messages_left: limits.messages,
            bytes_left: limits.bytes,
            bytes: ANSWER_FRAMING,
        }
    }

    /// What the next delivery may hold.
    fn limits(&self) -> FrameLimits {
        let bytes = self.bytes_left.saturating_sub(DELIVERY_FRAMING);
        FrameLimits { messages: self.messages_left, bytes, ..FrameLimits::MAX }
    }

    /// Whether messages fit. The first one always does, whatever its size.
    fn has_room_for(&self, messages: &Messages) -> bool {
        self.deliveries.is_empty() || messages.bytes() + DELIVERY_FRAMING <= self.bytes_left
    }

    fn add(&mut self, delivery: Delivery) {
        let bytes = delivery.messages.bytes() + DELIVERY_FRAMING;
        self.bytes += bytes;
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.messages_left = self.messages_left.saturating_sub(delivery.messages.count());
        self.deliveries.push(delivery);
    }
}
