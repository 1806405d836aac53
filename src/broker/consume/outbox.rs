//! The frames of a stream on their way to its client.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{
    broker::{consume::request::Frame, error::Error},
    model::Epoch,
};

/// Frames that may wait for a slow client. When so many wait, the stream stops reading: a slow client
/// slows only itself, and costs a few megabytes at most.
const FRAMES_AHEAD: usize = 3;

/// The frames of a stream. None follows an error; an end without an error is a success.
pub struct Frames {
    waiting: mpsc::Receiver<Outgoing>,
    fence: Fence,
}

/// A frame with the epoch that it was made under.
pub(crate) struct Outgoing {
    pub epoch: Epoch,
    pub frame: Result<Frame, Error>,
}

pub(crate) type Sender = mpsc::Sender<Outgoing>;

/// Drops messages, and the frame that says that there are no more, of earlier epochs: what waits for
/// the client when a seek moves the position must not follow the seek.
#[derive(Clone, Default)]
pub(crate) struct Fence(Arc<Mutex<Passing>>);

#[derive(Default)]
struct Passing {
    /// Frames of earlier epochs are dropped.
    epoch: Epoch,
    /// How many messages have passed.
    messages: u64,
}

impl Fence {
    /// Drops all messages of earlier epochs from now on; returns how many messages have passed.
    pub(crate) fn raise(&self, epoch: Epoch) -> u64 {
        let mut passing = self.0.lock();
        passing.epoch = epoch;
        passing.messages
    }

    fn lets_pass(&self, outgoing: &Outgoing) -> bool {
        let count = match &outgoing.frame {
            Ok(Frame::Batch(messages)) => messages.count(),
            Ok(Frame::CaughtUp { .. }) => 0,
            _ => return true,
        };
        let mut passing = self.0.lock();
        let passes = outgoing.epoch >= passing.epoch;
        if passes {
            passing.messages += count as u64;
        }
        passes
    }
}

/// A queue for a stream's frames.
pub(crate) fn channel() -> (Sender, Fence, Frames) {
    let (sender, waiting) = mpsc::channel(FRAMES_AHEAD);
    let fence = Fence::default();
    (sender, fence.clone(), Frames { waiting, fence })
}

impl Stream for Frames {
    type Item = Result<Frame, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(outgoing) = ready!(self.waiting.poll_recv(context)) else {
                return Poll::Ready(None);
            };
            if self.fence.lets_pass(&outgoing) {
                return Poll::Ready(Some(outgoing.frame));
            }
        }
    }
}
