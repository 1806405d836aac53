//! The broker's answer to a message.

use std::sync::Arc;

use tokio::sync::SetOnce;

use crate::client::error::Error;

/// The answer to a request: the offset of its first message, or why it was not stored.
pub(super) type Outcome = Arc<SetOnce<Result<i64, Error>>>;

/// The answer to a message that was sent; from [`Producer::send`](super::Producer::send).
///
/// Dropping it changes nothing: the message is stored all the same.
#[derive(Clone, Debug)]
pub struct Acknowledgement {
    /// Shared by all messages of a request.
    outcome: Outcome,
    /// The message's index in the request.
    index: usize,
}

impl Acknowledgement {
    pub(super) fn new(outcome: Outcome, index: usize) -> Self {
        Self { outcome, index }
    }

    /// Waits until the message is on disk; returns its offset.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the message was not stored, [`Error::Lost`] if that is unknown.
    pub async fn offset(&self) -> Result<i64, Error> {
        self.offset_of(self.outcome.wait().await)
    }

    /// As [`Self::offset`], without waiting: `None` while there is no answer.
    pub fn try_offset(&self) -> Option<Result<i64, Error>> {
        self.outcome.get().map(|outcome| self.offset_of(outcome))
    }

    fn offset_of(&self, outcome: &Result<i64, Error>) -> Result<i64, Error> {
        outcome.clone().map(|first| first + self.index as i64)
    }
}
