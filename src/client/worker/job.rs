//! Messages as a worker gets them, and what becomes of each.

use std::{fmt::Display, ops::Deref, time::Duration};

use crate::client::message::Message;

/// A message to work on. Its fields are those of [`Message`].
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    message: Message,
    attempt: u32,
    delivery: i64,
}

/// What becomes of a message.
///
/// ```
/// use std::time::Duration;
///
/// use trunkline::client::Verdict;
///
/// let soon = Verdict::retry_after(Duration::from_secs(5));
/// let never = Verdict::reject("not an order");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is done.
    Acknowledge,
    /// It is delivered again.
    Retry {
        /// After this time, at most 24 hours; `None` for the time that the subscription's policy
        /// says.
        delay: Option<Duration>,
    },
    /// It was not begun: it is delivered again at once, and this attempt does not count.
    Release,
    /// It cannot be processed, and is parked.
    Reject {
        /// Why, for people. The broker gets the first 1,024 characters.
        reason: String,
    },
}

/// What a handler may return: a [`Verdict`]; nothing, which acknowledges; or a result, whose error
/// asks for a retry after the time that the policy says.
pub trait IntoVerdict {
    /// What becomes of the message.
    fn into_verdict(self) -> Verdict;
}

impl Job {
    pub(super) fn new(message: Message, attempt: u32, delivery: i64) -> Self {
        Self { message, attempt, delivery }
    }

    /// How often the message was delivered, with this time: 1 the first time.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The number of its delivery, which settlements of a
    /// [`WorkerStream`](crate::client::WorkerStream) name.
    pub fn delivery(&self) -> i64 {
        self.delivery
    }

    /// The message alone.
    pub fn into_message(self) -> Message {
        self.message
    }
}

impl Deref for Job {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl Verdict {
    /// The message is delivered again, after the time that the policy says.
    pub fn retry() -> Self {
        Self::Retry { delay: None }
    }

    /// The message is delivered again after this time, at most 24 hours.
    pub fn retry_after(delay: Duration) -> Self {
        Self::Retry { delay: Some(delay) }
    }

    /// The message cannot be processed, and is parked.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject { reason: reason.into() }
    }
}

impl IntoVerdict for Verdict {
    fn into_verdict(self) -> Verdict {
        self
    }
}

impl IntoVerdict for () {
    fn into_verdict(self) -> Verdict {
        Verdict::Acknowledge
    }
}

impl<V: IntoVerdict, E: Display> IntoVerdict for Result<V, E> {
    fn into_verdict(self) -> Verdict {
        match self {
            Ok(done) => done.into_verdict(),
            Err(error) => {
                tracing::debug!(%error, "a handler failed");
                Verdict::retry()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_handler_returns_says_what_becomes_of_its_message() {
        assert_eq!(().into_verdict(), Verdict::Acknowledge);
        assert_eq!(Ok::<(), String>(()).into_verdict(), Verdict::Acknowledge);
        assert_eq!(Err::<(), _>("no").into_verdict(), Verdict::retry());
        let rejected = Ok::<_, String>(Verdict::reject("why"));
        assert_eq!(rejected.into_verdict(), Verdict::Reject { reason: "why".to_owned() });
    }
}
