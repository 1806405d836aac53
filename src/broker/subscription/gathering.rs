//! What a worker gets, as it is gathered.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    broker::{
        log::messages::{FrameLimits, Messages, encoded_bytes},
        subscription::{
            deliveries::WorkerId,
            limits::Allowance,
            request::{Delivery, Limit},
            state::State,
        },
    },
    model::{Batch, Offset},
};

/// What a delivery takes in an answer besides its messages.
const DELIVERY_FRAMING: usize = 64;

/// At most so many bytes of an answer are not deliveries.
const ANSWER_FRAMING: usize = 64;

/// What a worker gets.
pub(super) struct Gathered {
    worker: WorkerId,
    deliveries: Vec<Delivery>,
    messages_left: usize,
    bytes_left: usize,
    /// How many bytes the first message can have.
    first_bytes: usize,
    bytes_limit: Limit,
    /// The bytes of the answer.
    bytes: usize,
}

impl Gathered {
    /// Nothing yet, of so many messages at most, and what the worker can be given.
    pub(super) fn new(worker: WorkerId, messages: usize, allowance: Allowance) -> Self {
        let Allowance { bytes, first_bytes, bytes_limit, .. } = allowance;
        let limits = FrameLimits::of_answer(messages.min(allowance.messages));
        Self {
            worker,
            deliveries: Vec::new(),
            messages_left: limits.messages,
            bytes_left: limits.bytes.min(bytes),
            first_bytes: match first_bytes >= limits.bytes {
                true => usize::MAX,
                false => first_bytes,
            },
            bytes_limit,
            bytes: ANSWER_FRAMING,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    pub(super) fn messages_left(&self) -> usize {
        self.messages_left
    }

    /// The deliveries, and the bytes of the answer.
    pub(super) fn into_deliveries(self) -> (Vec<Delivery>, usize) {
        (self.deliveries, self.bytes)
    }

    /// What the next delivery may hold.
    pub(super) fn limits(&self) -> FrameLimits {
        let bytes = self.bytes_left.saturating_sub(DELIVERY_FRAMING);
        FrameLimits { messages: self.messages_left, bytes, ..FrameLimits::MAX }
    }

    /// Whether messages fit.
    pub(super) fn has_room_for(&self, messages: &Messages) -> bool {
        let bytes = messages.bytes() + DELIVERY_FRAMING;
        bytes <= self.bytes_left || (self.deliveries.is_empty() && bytes <= self.first_bytes)
    }

    /// What has been reached if the first messages do not fit.
    pub(super) fn bytes_limit(&self) -> Limit {
        self.bytes_limit
    }

    /// Those of a batch's `count` messages from `first` on that fit; `None` if none do.
    pub(super) fn fit_of(
        &self,
        batch: Arc<Batch>,
        first: Offset,
        count: usize,
    ) -> Option<Messages> {
        let limits = FrameLimits { end: first.after(count), ..self.limits() };
        let messages = Messages::that_fit(vec![batch], first, limits);
        (messages.count() > 0 && self.has_room_for(&messages)).then_some(messages)
    }

    /// Hands messages to the worker.
    pub(super) fn add(&mut self, messages: Messages, state: &mut State) {
        let sizes: Vec<(Offset, u32)> = messages
            .iter()
            .map(|message| {
                let bytes = u32::try_from(encoded_bytes(&message)).unwrap_or(u32::MAX);
                (message.offset, bytes)
            })
            .collect();
        let (id, delivered) = state.hand_out(self.worker, &sizes, Instant::now());
        let attempts = delivered.iter().map(|message| message.attempt).collect();
        let bytes = messages.bytes() + DELIVERY_FRAMING;
        self.bytes += bytes;
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.messages_left = self.messages_left.saturating_sub(messages.count());
        self.deliveries.push(Delivery { id: id.0, messages, attempts });
    }
}
