//! What becomes of a message.

use std::sync::Arc;

use tokio::sync::SetOnce;

use super::super::Error;

/// What became of a request: the offset of its first message, or why it was not stored.
pub(super) type Outcome = Arc<SetOnce<Result<i64, Error>>>;

/// What became of a message that was sent; from [`Producer::send`](super::Producer::send).
///
/// Dropped, it changes nothing: the message is stored all the same.
#[derive(Clone, Debug)]
pub struct Acknowledgement {
    /// Shared by all messages of a request.
    outcome: Outcome,
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
    /// [`Error::Refused`] if it was not stored, [`Error::Lost`] if that is not known.
    pub async fn offset(&self) -> Result<i64, Error> {
        self.of(self.outcome.wait().await)
    }

    /// The same without waiting: `None` as long as it is not known.
    pub fn try_offset(&self) -> Option<Result<i64, Error>> {
        self.outcome.get().map(|outcome| self.of(outcome))
    }

    fn of(&self, outcome: &Result<i64, Error>) -> Result<i64, Error> {
        outcome.clone().map(|first| first + self.index as i64)
    }
}
