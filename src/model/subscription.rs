//! Shared subscriptions: consumers whose messages many workers share.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{filter::Filter, name::TopicName, page::Entry, position::Offset};

/// How many characters the reason may have for which a message is parked.
pub const MAX_REASON_CHARACTERS: usize = 1_024;

/// How the messages of a subscription are delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryPolicy {
    /// How long a worker has for a message before it is delivered again. Whole milliseconds.
    pub ack_deadline: Duration,
    /// How long to wait before a message is delivered again.
    pub backoff: Backoff,
    /// After how many deliveries a message is parked, if it is at all.
    pub max_deliveries: Option<u32>,
    /// Which messages are delivered; `None` for all.
    pub filter: Option<Arc<Filter>>,
    /// Where messages are moved that would be parked; `None` if they are parked.
    pub dead_letter_topic: Option<TopicName>,
    /// Whether no message is delivered while an earlier delivery of it may still be settled.
    pub exactly_once: bool,
    /// How many messages all workers can have together; `None` for the most.
    pub outstanding_messages: Option<u32>,
    /// How many bytes of messages all workers can have together; `None` if there is no limit.
    pub outstanding_bytes: Option<u64>,
}

/// How long to wait before a message is delivered again: a time that doubles from the shortest to the
/// longest one. Whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first delivery.
    pub shortest: Duration,
    /// At most.
    pub longest: Duration,
}

impl DeliveryPolicy {
    /// How long to wait after a message was delivered for the `attempt`th time.
    pub fn retry_delay(&self, attempt: u32) -> Duration {
        let Backoff { shortest, longest } = self.backoff;
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        shortest.saturating_mul(doubled).min(longest)
    }

    /// Whether a message is parked, and not delivered again, after the `attempt`th delivery.
    pub fn is_last(&self, attempt: u32) -> bool {
        self.max_deliveries.is_some_and(|most| attempt >= most)
    }
}

impl Default for DeliveryPolicy {
    fn default() -> Self {
        Self {
            ack_deadline: Duration::from_secs(30),
            backoff: Backoff { shortest: Duration::from_secs(1), longest: Duration::from_secs(60) },
            max_deliveries: None,
            filter: None,
            dead_letter_topic: None,
            exactly_once: false,
            outstanding_messages: None,
            outstanding_bytes: None,
        }
    }
}

/// How workers share a consumer's messages.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// How the messages are delivered.
    pub policy: DeliveryPolicy,
    /// How many messages are kept to be delivered again.
    pub retried: i64,
    /// How many messages are parked.
    pub parked: i64,
}

/// A message that is not delivered any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedMessage {
    /// The message.
    pub offset: Offset,
    /// How often it was delivered.
    pub attempts: u32,
    /// Why it was parked.
    pub reason: Arc<str>,
    /// When.
    pub parked_at: SystemTime,
}

impl Entry for ParkedMessage {
    fn name(&self) -> Cow<'_, str> {
        Cow::Owned(self.offset.0.to_string())
    }

    fn bytes(&self) -> usize {
        self.reason.len()
    }
}
