//! Limits how many streams a broker serves.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::broker::{budget::Used, error::Error};

/// The streams that may still be opened.
pub(crate) struct StreamLimit {
    left: Arc<Semaphore>,
    limit: usize,
}

impl StreamLimit {
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { left: Arc::new(Semaphore::new(limit)), limit }
    }

    /// How many streams there are, and how many there may be.
    pub(crate) fn used(&self) -> Used {
        Used { used: self.limit - self.left.available_permits(), limit: self.limit }
    }

    /// Counts a stream until the permit is dropped.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let admitted = self.left.clone().try_acquire_owned();
        admitted.map_err(|_| Error::TooManyStreams { limit: self.limit })
    }
}
