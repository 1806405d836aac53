//! The frames of a stream on their way to its client.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{
    broker::{consume::request::Frame, error::Error},
    model::Epoch,
};

/// How many frames may wait for a slow client. When that many wait, the stream stops reading, so a
/// slow client slows only itself and costs a few megabytes at most.
const FRAMES_AHEAD: usize = 3;

/// The frames of a stream. An error is the last item; a stream that ends without one succeeded.
pub struct Frames {
    waiting: mpsc::Receiver<Outgoing>,
    fence: Fence,
}

/// A frame, and the epoch it was made under.
pub(crate) struct Outgoing {
    pub epoch: Epoch,
    pub frame: Result<Frame, Error>,
}

pub(crate) type FrameSender = mpsc::Sender<Outgoing>;

/// Drops messages, and caught-up frames, of earlier epochs: what waits for the client when a seek
/// moves the position must not reach it after the seek.
#[derive(Clone, Default)]
pub(crate) struct Fence(Arc<Mutex<Passed>>);

#[derive(Default)]
struct Passed {
    /// The epoch before which frames are dropped.
    epoch: Epoch,
    /// How many messages have passed.
    messages: u64,
}

impl Fence {
    /// Drops all messages of epochs before this one from now on; returns how many messages have
    /// passed.
    pub(crate) fn raise(&self, epoch: Epoch) -> u64 {
        let mut passed = self.0.lock();
        passed.epoch = epoch;
        passed.messages
    }

    fn lets_pass(&self, outgoing: &Outgoing) -> bool {
        let count = match &outgoing.frame {
            Ok(Frame::Messages(messages)) => messages.count(),
            Ok(Frame::CaughtUp { .. }) => 0,
            _ => return true,
        };
        let mut passed = self.0.lock();
        let passes = outgoing.epoch >= passed.epoch;
        if passes {
            passed.messages += count as u64;
        }
        passes
    }
}

/// A queue for a stream's frames.
pub(crate) fn channel() -> (FrameSender, Fence, Frames) {
    let (sender, waiting) = mpsc::channel(FRAMES_AHEAD);
    let fence = Fence::default();
    (sender, fence.clone(), Frames { waiting, fence })
}

impl futures::Stream for Frames {
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
