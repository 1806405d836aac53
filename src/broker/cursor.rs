//! Reads a topic's log in pieces that fit in a frame.

use std::{collections::VecDeque, sync::Arc};

use super::{Error, feed::Subscription};
use crate::{
    model::{Batch, MessageRef, Offset},
    storage::{Log, Storage},
};

/// Bytes that a frame may take on the wire: far below the 4 MiB that a client decodes by default,
/// and enough that a frame's own cost does not count.
const FRAME_BYTES: usize = 1024 * 1024;

/// Messages that a frame may hold.
const FRAME_MESSAGES: usize = 10_000;

/// Bytes of payload that one read takes from the database.
const READ_BYTES: usize = 2 * 1024 * 1024;

/// Messages to be handed out: those from `from` to before `to`.
#[derive(Clone, Debug)]
pub struct Delivery {
    batches: Vec<Arc<Batch>>,
    /// The offset of the first message.
    pub from: Offset,
    /// The offset behind the last message.
    pub to: Offset,
}

impl Delivery {
    pub(super) fn new(batches: Vec<Arc<Batch>>, from: Offset, to: Offset) -> Self {
        Self { batches, from, to }
    }

    /// The messages, in order.
    pub fn messages(&self) -> impl Iterator<Item = MessageRef<'_>> {
        self.batches
            .iter()
            .flat_map(|batch| batch.messages_from(self.from))
            .take_while(|message| message.offset < self.to)
    }

    /// How many messages there are.
    pub fn count(&self) -> usize {
        usize::try_from(self.to.since(self.from)).unwrap_or(0)
    }
}

/// The offset behind the messages that fit, from an offset on: at least one, if there is one.
pub(super) fn end_of_fit<'a>(
    batches: impl Iterator<Item = &'a Arc<Batch>>,
    from: Offset,
    max_messages: usize,
    max_bytes: usize,
) -> Offset {
    let mut bytes = 0;
    let mut end = from;
    let messages = batches.flat_map(|batch| batch.messages_from(from)).take(max_messages);
    for message in messages {
        bytes += message.wire_bytes();
        if bytes > max_bytes && end > from {
            break;
        }
        end = message.offset.after(1);
    }
    end
}

/// A place in a topic's log, and what was read ahead of it.
pub(super) struct Cursor {
    position: Offset,
    ahead: VecDeque<Arc<Batch>>,
    /// The topic's head, as of the last read.
    head: Offset,
}

impl Cursor {
    pub(super) fn new(position: Offset, head: Offset) -> Self {
        Self { position, ahead: VecDeque::new(), head }
    }

    /// The offset of the next message.
    pub(super) fn position(&self) -> Offset {
        self.position
    }

    /// The topic's head, as of the last read.
    pub(super) fn head(&self) -> Offset {
        self.head
    }

    /// Reads ahead, unless something is there. A cursor `at_tail` shares what other streams of the
    /// topic read; one that is far behind would only hold them up. False if the topic is gone.
    pub(super) async fn fill(
        &mut self,
        storage: &Storage,
        log: &Subscription,
        at_tail: bool,
    ) -> Result<bool, Error> {
        if !self.ahead.is_empty() {
            return Ok(true);
        }
        if self.take_from_tail(log) {
            return Ok(true);
        }
        let _alone = if at_tail {
            let alone = log.feed().read_alone().await;
            // Whoever read meanwhile may have found it.
            if self.take_from_tail(log) {
                return Ok(true);
            }
            Some(alone)
        } else {
            None
        };
        let read = storage.read_batches(log.topic(), self.position, READ_BYTES).await;
        let Some(Log { batches, head, .. }) = read.map_err(Error::of_read)? else {
            return Ok(false);
        };
        if at_tail {
            let mut tail = log.feed().tail();
            batches.iter().for_each(|batch| tail.add(batch.clone()));
        }
        log.saw_head(head);
        self.head = head;
        self.ahead.extend(batches);
        Ok(true)
    }

    /// The next messages, as many as fit in a frame; none if none were read ahead.
    pub(super) fn next_frame(&mut self) -> Option<Delivery> {
        let from = self.position;
        let to = end_of_fit(self.ahead.iter(), from, FRAME_MESSAGES, FRAME_BYTES);
        let last = self.ahead.partition_point(|batch| batch.base < to);
        let batches = self.ahead.range(..last).cloned().collect();
        while self.ahead.front().is_some_and(|batch| batch.end() <= to) {
            self.ahead.pop_front();
        }
        self.position = to;
        (to > from).then(|| Delivery::new(batches, from, to))
    }

    fn take_from_tail(&mut self, log: &Subscription) -> bool {
        let newest = log.feed().tail().from(self.position);
        let Some(last) = newest.last() else { return false };
        self.head = self.head.max(last.end());
        self.ahead.extend(newest);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;

    use super::*;
    use crate::model::{ProducerId, ProducerRun};

    fn batch(base: i64, sizes: &[usize]) -> Arc<Batch> {
        Arc::new(Batch {
            base: Offset(base),
            published_at: SystemTime::UNIX_EPOCH,
            payloads: sizes.iter().map(|size| Bytes::from(vec![0; *size])).collect(),
            keys: None,
            headers: None,
            producers: vec![ProducerRun { producer: ProducerId::stored("p"), count: sizes.len() }],
        })
    }

    #[test]
    fn frames_follow_each_other_and_stay_within_their_size() {
        let large = FRAME_BYTES / 2;
        let mut cursor = Cursor::new(Offset(1), Offset(6));
        cursor.ahead.extend([batch(0, &[1, large, large - 200]), batch(3, &[2 * large, 1, 1])]);
        let mut frames = Vec::new();
        while let Some(frame) = cursor.next_frame() {
            assert_eq!(frame.messages().count(), frame.count());
            frames.push((frame.from.0, frame.to.0));
        }
        assert_eq!(frames, [(1, 3), (3, 4), (4, 6)]);
        assert_eq!(cursor.position(), Offset(6));
        assert!(cursor.ahead.is_empty());
    }
}
