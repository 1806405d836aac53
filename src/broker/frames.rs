//! The frames of a stream on their way to its client.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures::Stream;
use tokio::sync::mpsc;

use super::{Error, Event};
use crate::model::Epoch;

/// Frames that may wait for a slow client. When they do, the stream stops reading: a slow client
/// slows only itself, and costs a few megabytes at the most.
const FRAMES_AHEAD: usize = 3;

/// The frames of a stream. After an error there are no more; an end without one is a success.
pub struct Frames {
    waiting: mpsc::Receiver<Frame>,
    fence: Fence,
}

/// A frame with the epoch that it was made under.
pub(super) struct Frame {
    pub epoch: Epoch,
    pub event: Result<Event, Error>,
}

pub(super) type Sender = mpsc::Sender<Frame>;

/// Holds back the messages of earlier epochs: what waits for the client when a seek moves the
/// position must not come after it.
#[derive(Clone, Default)]
pub(super) struct Fence(Arc<AtomicI64>);

impl Fence {
    /// Holds back all messages of before this epoch.
    pub(super) fn raise(&self, epoch: Epoch) {
        self.0.store(epoch.0, Ordering::Release);
    }

    fn holds_back(&self, frame: &Frame) -> bool {
        matches!(frame.event, Ok(Event::Batch(_))) && frame.epoch.0 < self.0.load(Ordering::Acquire)
    }
}

/// A way for a stream's frames.
pub(super) fn channel() -> (Sender, Fence, Frames) {
    let (sender, waiting) = mpsc::channel(FRAMES_AHEAD);
    let fence = Fence::default();
    (sender, fence.clone(), Frames { waiting, fence })
}

impl Stream for Frames {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(frame) = ready!(self.waiting.poll_recv(context)) else {
                return Poll::Ready(None);
            };
            if !self.fence.holds_back(&frame) {
                return Poll::Ready(Some(frame.event));
            }
        }
    }
}
