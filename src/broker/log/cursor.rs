//! Reads a topic's log in pieces that fit in a frame.

use std::{collections::VecDeque, sync::Arc};

use tokio_util::task::AbortOnDropHandle;

use crate::{
    broker::{
        error::Error,
        log::{seen::Asked, topics::LogReader},
    },
    model::{Batch, MessageRef, Offset},
    storage::{self, LogSlice, Storage},
};

/// What a frame may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// How many messages.
    pub messages: usize,
    /// How many bytes on the wire; a single message may take more.
    pub bytes: usize,
    /// The offset behind the last message.
    pub end: Offset,
}

impl FrameLimits {
    /// The most that a frame may hold: far below the 4 MiB that a client decodes by default, and
    /// enough that a frame's own cost does not count.
    pub const MAX: Self = Self { messages: 10_000, bytes: 1024 * 1024, end: Offset(i64::MAX) };

    /// What a unary answer may hold: it must stay below the 4 MiB that a client decodes by
    /// default, one message of the largest size included.
    pub(crate) fn of_answer(messages: usize) -> Self {
        Self { messages, bytes: 2 * 1024 * 1024, ..Self::MAX }
    }
}

/// Bytes of payload that one read takes from the database.
const READ_BYTES: usize = 2 * 1024 * 1024;

/// Messages to be handed out: those from `from` to before `to`.
#[derive(Clone, Debug)]
pub struct Messages {
    batches: Vec<Arc<Batch>>,
    /// The offset of the first message.
    pub from: Offset,
    /// The offset behind the last message.
    pub to: Offset,
}

impl Messages {
    pub(crate) fn new(batches: Vec<Arc<Batch>>, from: Offset, to: Offset) -> Self {
        Self { batches, from, to }
    }

    /// The messages, in order.
    pub fn messages(&self) -> impl Iterator<Item = MessageRef<'_>> {
        self.batches
            .iter()
            .flat_map(|batch| batch.messages_from(self.from))
            .take_while(|message| message.offset < self.to)
    }

    /// The batches that the messages are of, each with the places of its messages: from and to
    /// before one.
    pub fn parts(&self) -> impl Iterator<Item = (&Batch, usize, usize)> {
        self.batches.iter().map(|batch| {
            let place = |offset: Offset| {
                let place = usize::try_from(offset.since(batch.base)).unwrap_or(0);
                place.min(batch.payloads.len())
            };
            (&**batch, place(self.from), place(self.to))
        })
    }

    /// How many messages there are.
    pub fn count(&self) -> usize {
        usize::try_from(self.to.since(self.from)).unwrap_or(0)
    }
}

/// The offset behind the messages that fit, from an offset on: at least one, if there is one and
/// any are allowed.
pub(crate) fn end_of_fit<'a>(
    batches: impl Iterator<Item = &'a Arc<Batch>>,
    from: Offset,
    limits: FrameLimits,
) -> Offset {
    let mut bytes = 0;
    let mut end = from;
    let messages = batches.flat_map(|batch| batch.messages_from(from)).take(limits.messages);
    for message in messages {
        bytes += message.wire_bytes();
        if (bytes > limits.bytes && end > from) || message.offset >= limits.end {
            break;
        }
        end = message.offset.after(1);
    }
    end
}

/// A place in a topic's log, and what was read ahead of it.
pub(crate) struct Cursor {
    position: Offset,
    ahead: VecDeque<Arc<Batch>>,
    /// The topic's head, as of the last read.
    head: Offset,
    /// Messages that were removed before they were read, and that nobody was told of yet.
    gap: Option<(Offset, Offset)>,
    /// A read of what follows, begun while what is there is handed out.
    reading: Option<ReadAhead>,
}

/// A read that is under way.
struct ReadAhead {
    from: Offset,
    asked: Asked,
    read: AbortOnDropHandle<Read>,
}

/// What a read found; nothing if the topic is gone.
type Read = Result<Option<LogSlice>, storage::Error>;

impl Cursor {
    pub(crate) fn new(position: Offset, head: Offset) -> Self {
        Self { position, ahead: VecDeque::new(), head, gap: None, reading: None }
    }

    /// The offset of the next message.
    pub(crate) fn position(&self) -> Offset {
        self.position
    }

    /// The topic's head, as of the last read.
    pub(crate) fn head(&self) -> Offset {
        self.head
    }

    /// Reads ahead, unless something is there. What other streams of the topic have just read, or
    /// read now, is not read again. False if the topic is gone.
    pub(crate) async fn fill(
        &mut self,
        storage: &Arc<Storage>,
        log: &LogReader,
    ) -> Result<bool, Error> {
        if self.has_at_hand(log) {
            return Ok(true);
        }
        let shared = log.is_shared();
        let _alone = match shared {
            true => log.begin_read(self.position).await,
            false => None,
        };
        // Whoever read meanwhile may have found it. If not, all who waited read for themselves: one
        // after the other they would wait too long.
        if shared && self.take_cached(log) {
            return Ok(true);
        }
        let (asked, read) = match self.finish_reading(log).await {
            Some(read) => read,
            None => {
                let asked = log.asked();
                let read = storage.read_batches(log.topic(), self.position, READ_BYTES).await;
                let Some(read) = read.map_err(Error::of_read)? else { return Ok(false) };
                (asked, read)
            }
        };
        if log.saw(&read, asked) && shared {
            log.share(&read.batches);
        }
        if !shared
            && let Some(end) = read.batches.last().map(|last| last.end())
            && end < read.head
        {
            self.read_ahead(storage, log, end);
        }
        self.take_in(read);
        Ok(true)
    }

    /// Whether something to hand out is here, or other streams have just read it.
    pub(crate) fn has_at_hand(&mut self, log: &LogReader) -> bool {
        // What was removed meanwhile is not handed out, though it is still here.
        if self.position < log.floor() {
            self.ahead.clear();
        }
        !self.ahead.is_empty() || self.take_cached(log)
    }

    /// Takes in what a read from the position found, and passes over what it did not find.
    pub(crate) fn take_in(&mut self, LogSlice { batches, head, first }: LogSlice) {
        if self.position < first {
            self.gap = Some((self.gap.map_or(self.position, |(from, _)| from), first));
            self.position = first;
        }
        self.head = head;
        self.ahead.extend(batches);
    }

    /// Begins to read what follows what was just read.
    fn read_ahead(&mut self, storage: &Arc<Storage>, log: &LogReader, from: Offset) {
        let (storage, topic) = (storage.clone(), log.topic());
        let asked = log.asked();
        let read = async move { storage.read_batches(topic, from, READ_BYTES).await };
        let read = AbortOnDropHandle::new(tokio::spawn(read));
        self.reading = Some(ReadAhead { from, asked, read });
    }

    /// What the read that was begun found, if it was begun here and nothing of it was removed
    /// meanwhile. What failed then need not fail now.
    async fn finish_reading(&mut self, log: &LogReader) -> Option<(Asked, LogSlice)> {
        let ReadAhead { from, asked, read } = self.reading.take()?;
        let read = (from == self.position).then_some(read)?.await.ok()?.ok()??;
        (from >= log.floor()).then_some((asked, read))
    }

    /// The messages that the cursor passed over, from and to before an offset, as they were
    /// removed.
    pub(crate) fn take_gap(&mut self) -> Option<(Offset, Offset)> {
        self.gap.take()
    }

    /// The next messages, as many as fit in a frame; none if none were read ahead.
    pub(crate) fn next_frame(&mut self, limits: FrameLimits) -> Option<Messages> {
        let from = self.position;
        let to = end_of_fit(self.ahead.iter(), from, limits);
        let last = self.ahead.partition_point(|batch| batch.base < to);
        let batches = self.ahead.range(..last).cloned().collect();
        while self.ahead.front().is_some_and(|batch| batch.end() <= to) {
            self.ahead.pop_front();
        }
        self.position = to;
        (to > from).then(|| Messages::new(batches, from, to))
    }

    fn take_cached(&mut self, log: &LogReader) -> bool {
        // What lies before the floor is removed, though it may still be kept here.
        if self.position < log.floor() {
            return false;
        }
        let recent = log.recent(self.position, READ_BYTES);
        let Some(last) = recent.last() else { return false };
        self.head = self.head.max(last.end());
        self.ahead.extend(recent);
        self.reading = None;
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
            encoded: Default::default(),
        })
    }

    #[test]
    fn frames_follow_each_other_and_stay_within_their_size() {
        let large = FrameLimits::MAX.bytes / 2;
        let mut cursor = Cursor::new(Offset(1), Offset(6));
        cursor.ahead.extend([batch(0, &[1, large, large - 200]), batch(3, &[2 * large, 1, 1])]);
        let mut frames = Vec::new();
        while let Some(frame) = cursor.next_frame(FrameLimits::MAX) {
            assert_eq!(frame.messages().count(), frame.count());
            frames.push((frame.from.0, frame.to.0));
        }
        assert_eq!(frames, [(1, 3), (3, 4), (4, 6)]);
        assert_eq!(cursor.position(), Offset(6));
        assert!(cursor.ahead.is_empty());
    }

    #[test]
    fn frames_keep_to_their_limits() {
        let mut cursor = Cursor::new(Offset(0), Offset(6));
        cursor.ahead.extend([batch(0, &[1; 3]), batch(3, &[1; 3])]);
        let mut next = |limits| cursor.next_frame(limits).map(|frame| (frame.from.0, frame.to.0));
        assert_eq!(next(FrameLimits { messages: 2, ..FrameLimits::MAX }), Some((0, 2)));
        assert_eq!(next(FrameLimits { bytes: 1, ..FrameLimits::MAX }), Some((2, 3)));
        assert_eq!(next(FrameLimits { end: Offset(5), ..FrameLimits::MAX }), Some((3, 5)));
        assert_eq!(next(FrameLimits { end: Offset(5), ..FrameLimits::MAX }), None);
        assert_eq!(next(FrameLimits { messages: 0, ..FrameLimits::MAX }), None);
        assert_eq!(next(FrameLimits::MAX), Some((5, 6)));
    }
}
