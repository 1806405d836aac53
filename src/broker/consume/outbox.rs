//! The frames of a stream on their way to its client.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
};

use futures::Stream;
use tokio::sync::mpsc;

use crate::{
    broker::{consume::request::Frame, error::Error},
    model::Epoch,
};

/// Frames that may wait for a slow client. When they do, the stream stops reading: a slow client
/// slows only itself, and costs a few megabytes at the most.
const FRAMES_AHEAD: usize = 3;

/// The frames of a stream. After an error there are no more; an end without one is a success.
pub struct Frames {
    waiting: mpsc::Receiver<Outgoing>,
    fence: Fence,
}

/// A frame with the epoch that it was made under.
pub(crate) struct Outgoing {
    pub epoch: Epoch,
    pub event: Result<Frame, Error>,
}

pub(crate) type Sender = mpsc::Sender<Outgoing>;

/// Holds back the messages of earlier epochs, and the word that there are no more: what waits for
/// the client when a seek moves the position must not come after it.
#[derive(Clone, Default)]
pub(crate) struct Fence(Arc<Mutex<Passing>>);

#[derive(Default)]
struct Passing {
    /// What is older does not pass.
    epoch: Epoch,
    /// Messages that have passed.
    messages: u64,
}

impl Fence {
    /// Holds back all messages of before this epoch; returns how many have passed.
    pub(crate) fn raise(&self, epoch: Epoch) -> u64 {
        let mut passing = self.passing();
        passing.epoch = epoch;
        passing.messages
    }

    fn lets_pass(&self, frame: &Outgoing) -> bool {
        let count = match &frame.event {
            Ok(Frame::Batch(delivery)) => delivery.count(),
            Ok(Frame::CaughtUp { .. }) => 0,
            _ => return true,
        };
        let mut passing = self.passing();
        let passes = frame.epoch >= passing.epoch;
        if passes {
            passing.messages += count as u64;
        }
        passes
    }

    fn passing(&self) -> MutexGuard<'_, Passing> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A way for a stream's frames.
pub(crate) fn channel() -> (Sender, Fence, Frames) {
    let (sender, waiting) = mpsc::channel(FRAMES_AHEAD);
    let fence = Fence::default();
    (sender, fence.clone(), Frames { waiting, fence })
}

impl Stream for Frames {
    type Item = Result<Frame, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(frame) = ready!(self.waiting.poll_recv(context)) else {
                return Poll::Ready(None);
            };
            if self.fence.lets_pass(&frame) {
                return Poll::Ready(Some(frame.event));
            }
        }
    }
}
