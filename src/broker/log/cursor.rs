//! Reads a topic's log from a position on, and cuts it into frames.

use std::{collections::VecDeque, sync::Arc};

use tokio_util::task::AbortOnDropHandle;

use crate::{
    broker::{
        error::Error,
        log::{
            messages::{FrameLimits, Messages, fit},
            topics::{LogReader, Observation},
        },
    },
    model::{Batch, Offset, OffsetRange, TopicId},
    storage::{self, LogSlice, SessionShare, Storage},
};

/// How many bytes one read takes from the database.
const READ_BYTES: usize = 2 * 1024 * 1024;

/// Where logs are read from: the database, or a model of it.
pub(crate) trait LogSource: Send + Sync + 'static {
    /// As [`Storage::read_batches`].
    fn read_batches(
        &self,
        topic: TopicId,
        from: Offset,
        max_bytes: usize,
    ) -> impl Future<Output = Read> + Send;
}

/// What a read found; `None` if the topic does not exist.
type Read = Result<Option<LogSlice>, storage::Error>;

impl LogSource for Storage {
    async fn read_batches(&self, topic: TopicId, from: Offset, max_bytes: usize) -> Read {
        self.read_batches(topic, from, max_bytes).await
    }
}

/// A position in a topic's log, and the batches that were read from there on.
pub(crate) struct Cursor {
    position: Offset,
    batches: VecDeque<Arc<Batch>>,
    /// The topic's head, as of the last read.
    head: Offset,
    /// Removed messages that the cursor passed over, until [`Self::take_gap`] reports them.
    gap: Option<OffsetRange>,
    /// The read of what follows `batches`, under way while those are handed out.
    read_ahead: Option<ReadAhead>,
}

struct ReadAhead {
    from: Offset,
    observation: Observation,
    read: AbortOnDropHandle<Read>,
}

impl Cursor {
    pub(crate) fn new(position: Offset, head: Offset) -> Self {
        Self { position, batches: VecDeque::new(), head, gap: None, read_ahead: None }
    }

    /// The offset of the next message.
    pub(crate) fn position(&self) -> Offset {
        self.position
    }

    /// The topic's head, as of the last read.
    pub(crate) fn head(&self) -> Offset {
        self.head
    }

    /// Whether nothing was read that is not handed out.
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Moves to a later offset, and keeps what was read from there on.
    pub(crate) fn skip_to(&mut self, offset: Offset) {
        while self.batches.front().is_some_and(|batch| batch.end() <= offset) {
            self.batches.pop_front();
        }
        self.position = offset;
    }

    /// Reads batches, unless the cursor has some. Does not repeat reads that other readers of the
    /// topic have made or are making. Returns false if the topic no longer exists.
    pub(crate) async fn fill(
        &mut self,
        source: &Arc<impl LogSource>,
        log: &LogReader,
    ) -> Result<bool, Error> {
        if self.fill_from_cache(log) {
            return Ok(true);
        }
        let shared = log.is_shared();
        let _permit = match shared {
            true => log.begin_read(self.position).await,
            false => None,
        };
        // Another reader may have read these batches meanwhile. If not, all readers that waited now
        // read at the same time, as taking turns would take too long.
        if shared && self.take_cached(log) {
            return Ok(true);
        }
        let (observation, read) = match self.finish_read_ahead(log).await {
            Some(finished) => finished,
            None => {
                let observation = log.begin();
                let read = source.read_batches(log.topic(), self.position, READ_BYTES).await;
                let Some(read) = read.map_err(Error::of_read)? else { return Ok(false) };
                (observation, read)
            }
        };
        log.count_miss();
        if log.observe(&read, &observation) && shared {
            log.share(&read.batches);
        }
        if !shared
            && let Some(end) = read.batches.last().map(|last| last.end())
            && end < read.ends.head
        {
            self.begin_read_ahead(source, log, end);
        }
        self.add(read);
        Ok(true)
    }

    /// As [`Self::fill`], without a read. Returns false if one is needed.
    pub(crate) fn fill_from_cache(&mut self, log: &LogReader) -> bool {
        // Messages that have been removed since are not handed out, though they are still here.
        if self.position < log.start() {
            self.batches.clear();
        }
        !self.batches.is_empty() || self.take_cached(log)
    }

    /// Adds what a read from the position found, and skips removed messages.
    fn add(&mut self, LogSlice { batches, ends }: LogSlice) {
        if self.position < ends.start {
            let start = self.gap.map_or(self.position, |gap| gap.start);
            self.gap = Some(OffsetRange { start, end: ends.start });
            self.position = ends.start;
        }
        self.head = ends.head;
        self.batches.extend(batches);
    }

    fn begin_read_ahead(&mut self, source: &Arc<impl LogSource>, log: &LogReader, from: Offset) {
        let (source, topic) = (source.clone(), log.topic());
        let observation = log.begin();
        let read = async move { source.read_batches(topic, from, READ_BYTES).await };
        let read = AbortOnDropHandle::new(tokio::spawn(SessionShare::inherit(read)));
        self.read_ahead = Some(ReadAhead { from, observation, read });
    }

    /// What the read-ahead found, if it began at the position and nothing of it has been removed
    /// since. If it failed, the caller reads again.
    async fn finish_read_ahead(&mut self, log: &LogReader) -> Option<(Observation, LogSlice)> {
        let ReadAhead { from, observation, read } = self.read_ahead.take()?;
        let read = (from == self.position).then_some(read)?.await.ok()?.ok()??;
        (from >= log.start()).then_some((observation, read))
    }

    /// The removed messages that the cursor has skipped since the last call.
    pub(crate) fn take_gap(&mut self) -> Option<OffsetRange> {
        self.gap.take()
    }

    /// The next messages, as many as fit in a frame; `None` if the cursor has none.
    pub(crate) fn next_messages(&mut self, limits: FrameLimits) -> Option<Messages> {
        let messages = self.peek_messages(limits)?;
        self.skip_to(messages.range.end);
        Some(messages)
    }

    /// As [`Self::next_messages`], and stays where it is.
    pub(crate) fn peek_messages(&self, limits: FrameLimits) -> Option<Messages> {
        let start = self.position;
        let (end, bytes) = fit(self.batches.iter(), start, limits);
        let last = self.batches.partition_point(|batch| batch.base < end);
        let batches = self.batches.range(..last).cloned().collect();
        (end > start).then(|| Messages::new(batches, OffsetRange { start, end }, bytes))
    }

    /// Takes cached batches from the position on; false if there are none.
    fn take_cached(&mut self, log: &LogReader) -> bool {
        // Messages before the log start offset are removed, though they may still be cached.
        if self.position < log.start() {
            return false;
        }
        let cached = log.cached(self.position, READ_BYTES);
        let Some(last) = cached.last() else { return false };
        self.head = self.head.max(last.end());
        self.batches.extend(cached);
        self.read_ahead = None;
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
        cursor.batches.extend([batch(0, &[1, large, large - 200]), batch(3, &[2 * large, 1, 1])]);
        let mut frames = Vec::new();
        while let Some(frame) = cursor.next_messages(FrameLimits::MAX) {
            assert_eq!(frame.iter().count(), frame.count());
            frames.push((frame.range.start.0, frame.range.end.0));
        }
        assert_eq!(frames, [(1, 3), (3, 4), (4, 6)]);
        assert_eq!(cursor.position(), Offset(6));
        assert!(cursor.batches.is_empty());
    }

    #[test]
    fn what_was_read_is_kept_when_a_cursor_skips_messages() {
        let mut cursor = Cursor::new(Offset(0), Offset(9));
        cursor.batches.extend([batch(0, &[1; 3]), batch(3, &[1; 3]), batch(6, &[1; 3])]);
        let mut next = |from| {
            cursor.skip_to(Offset(from));
            let frame = cursor.next_messages(FrameLimits { messages: 2, ..FrameLimits::MAX });
            frame.map(|frame| (frame.range.start.0, frame.range.end.0))
        };
        assert_eq!(next(1), Some((1, 3)));
        assert_eq!(next(5), Some((5, 7)));
        assert_eq!(next(9), None);
    }

    #[test]
    fn frames_keep_to_their_limits() {
        let mut cursor = Cursor::new(Offset(0), Offset(6));
        cursor.batches.extend([batch(0, &[1; 3]), batch(3, &[1; 3])]);
        let mut next = |limits| {
            cursor.next_messages(limits).map(|frame| (frame.range.start.0, frame.range.end.0))
        };
        assert_eq!(next(FrameLimits { messages: 2, ..FrameLimits::MAX }), Some((0, 2)));
        assert_eq!(next(FrameLimits { bytes: 1, ..FrameLimits::MAX }), Some((2, 3)));
        assert_eq!(next(FrameLimits { end: Offset(5), ..FrameLimits::MAX }), Some((3, 5)));
        assert_eq!(next(FrameLimits { end: Offset(5), ..FrameLimits::MAX }), None);
        assert_eq!(next(FrameLimits { messages: 0, ..FrameLimits::MAX }), None);
        assert_eq!(next(FrameLimits::MAX), Some((5, 6)));
    }
}
