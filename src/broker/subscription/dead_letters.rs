//! Copies messages that are moved to a dead-letter topic.
//!
//! Reads them beside the owner's other work, as the messages that it hands out. What cannot be copied is parked,
//! and a message that was removed from the log meanwhile is merely settled.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{
    broker::{consume::delivery::Delivery, error::Error, log::topics::LogReader},
    model::{
        Batch, ConsumerId, Draft, Epoch, InvalidValue, Labels, Message, MessageRef, NewMessages,
        Offset, ProducerId, TopicName,
    },
    storage::{LogSlice, MessageChange},
};

/// How many bytes of batches one read takes from the database.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// What the names of the headers begin with that a copy gets.
const HEADERS: &str = "trunkline-dead-letter-";

/// A message that is to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub offset: Offset,
    /// How often it was delivered.
    pub attempts: u32,
    /// Why it would be parked.
    pub reason: Arc<str>,
}

/// Copies of messages, and what is to become of those that cannot be copied.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// The copies.
    pub draft: Draft,
    /// Those that they are of.
    pub copied: Vec<Letter>,
    /// Messages whose copies would break a limit, and which one.
    pub refused: Vec<(Letter, InvalidValue)>,
    /// Messages that were removed from the log.
    pub removed: Vec<Letter>,
}

/// Copies messages of a subscription.
pub(super) struct Copier {
    pub delivery: Arc<Delivery>,
    pub log: Arc<LogReader>,
    pub source: Source,
}

/// Where messages come from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub topic: TopicName,
    pub subscription: ConsumerId,
}

impl Letter {
    /// What becomes of the message if the dead-letter topic cannot take it.
    pub(super) fn parked(&self, to: &TopicName, why: &str) -> MessageChange {
        let reason = format!("{}; dead-letter topic {to} {why}", self.reason);
        MessageChange::Park { attempts: self.attempts, reason: reason.into() }
    }
}

impl Copier {
    /// Copies messages, whose offsets differ.
    pub(super) async fn copy(&self, letters: &[Letter]) -> Result<Copies, Error> {
        let mut left: BTreeMap<Offset, Letter> =
            letters.iter().map(|letter| (letter.offset, letter.clone())).collect();
        let mut copies = Copies::default();
        loop {
            // Messages before the log start offset are removed, though they may still be cached.
            copies.take_removed(&mut left, self.log.start());
            let Some((&first, _)) = left.first_key_value() else { return Ok(copies) };
            let cached = self.log.cached(first, 1);
            let batches = match cached.is_empty() {
                false => cached,
                true => self.read(&mut left, &mut copies).await?,
            };
            for batch in batches {
                self.source.copy_those_of(&batch, &mut left, &mut copies);
            }
        }
    }

    /// Reads batches with the first of the messages that are left, and with others.
    async fn read(
        &self,
        left: &mut BTreeMap<Offset, Letter>,
        copies: &mut Copies,
    ) -> Result<Vec<Arc<Batch>>, Error> {
        let wanted: Vec<Offset> = left.keys().copied().collect();
        let topic = self.log.topic();
        let read = self.delivery.storage.read_batches_of(topic, &wanted, READ_BYTES).await;
        let Some(LogSlice { batches, ends }) = read.map_err(Error::of_read)? else {
            return Err(Error::TopicNotFound { topic: self.source.topic.clone() });
        };
        copies.take_removed(left, ends.start);
        let has = |offset: Offset| {
            batches.iter().any(|batch| batch.base <= offset && offset < batch.end())
        };
        match left.keys().next() {
            // It was delivered, so the log was truncated, or a server answered that is not the primary.
            Some(first) if !has(*first) => Err(Error::unavailable()),
            _ => Ok(batches),
        }
    }
}

impl Copies {
    /// Takes those messages that lie before the log start offset.
    fn take_removed(&mut self, left: &mut BTreeMap<Offset, Letter>, start: Offset) {
        let kept = left.split_off(&start);
        self.removed.extend(std::mem::replace(left, kept).into_values());
    }
}

impl Source {
    fn copy_those_of(
        &self,
        batch: &Batch,
        left: &mut BTreeMap<Offset, Letter>,
        copies: &mut Copies,
    ) {
        let mut wanted = left.range(batch.base..batch.end()).map(|(offset, _)| *offset);
        let Some(first) = wanted.next() else { return };
        let last = wanted.next_back().unwrap_or(first);
        for message in batch.messages_from(first).take_while(|message| message.offset <= last) {
            let Some(letter) = left.remove(&message.offset) else { continue };
            match self.copy(&letter, &message) {
                Ok(copy) => {
                    copies.draft.add(&ProducerId::dead_letters(), Epoch(0), None, &copy);
                    copies.copied.push(letter);
                }
                Err(invalid) => copies.refused.push((letter, invalid)),
            }
        }
    }

    /// A copy that says where it comes from.
    fn copy(&self, letter: &Letter, message: &MessageRef<'_>) -> Result<NewMessages, InvalidValue> {
        let headers = message.headers.map(Labels::entries).cloned();
        let mut headers = headers.unwrap_or_default();
        for (name, value) in [
            ("topic", self.topic.as_str()),
            ("subscription", self.subscription.as_str()),
            ("offset", letter.offset.to_string().as_str()),
            ("attempts", letter.attempts.to_string().as_str()),
            ("reason", &*letter.reason),
        ] {
            headers.insert(format!("{HEADERS}{name}"), value.to_owned());
        }
        // A slice would keep the whole batch in memory.
        let own = |value: &Bytes| Bytes::copy_from_slice(value);
        let copy = Message {
            payload: own(message.payload),
            key: message.key.map(own),
            headers: Labels::parse(headers)
                .map_err(|invalid| invalid.in_part("the size of its headers"))?,
        };
        NewMessages::parse(vec![copy]).map_err(|invalid| invalid.in_part("the size of the copy"))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::OnceLock, time::SystemTime};

    use super::*;
    use crate::model::{MAX_MESSAGE_BYTES, ProducerRun};

    fn source() -> Source {
        let (topic, subscription) = (TopicName::stored("jobs"), ConsumerId::stored("pool"));
        Source { topic, subscription }
    }

    fn letter(offset: i64) -> Letter {
        Letter { offset: Offset(offset), attempts: 3, reason: "no picture".into() }
    }

    /// A batch that begins at offset 10.
    fn batch(messages: Vec<Message>) -> Batch {
        let producer = ProducerId::stored("shop");
        Batch {
            base: Offset(10),
            published_at: SystemTime::UNIX_EPOCH,
            payloads: messages.iter().map(|message| message.payload.clone()).collect(),
            keys: Some(messages.iter().map(|message| message.key.clone()).collect()),
            producers: vec![ProducerRun { producer, count: messages.len() }],
            headers: Some(messages.into_iter().map(|message| message.headers).collect()),
            encoded: OnceLock::new(),
        }
    }

    fn headers(entries: impl IntoIterator<Item = (String, String)>) -> Labels {
        Labels::stored(entries.into_iter().collect())
    }

    fn copied(messages: Vec<Message>, offsets: &[i64]) -> (Copies, Vec<Offset>) {
        let mut left = offsets.iter().map(|offset| (Offset(*offset), letter(*offset))).collect();
        let mut copies = Copies::default();
        source().copy_those_of(&batch(messages), &mut left, &mut copies);
        (copies, left.into_keys().collect())
    }

    #[test]
    fn a_copy_keeps_everything_and_says_where_it_comes_from() {
        let own = |name: &str| (name.to_owned(), format!("{name} of the message"));
        let message = |payload: &'static str| Message {
            payload: payload.into(),
            key: Some("key".into()),
            headers: headers([own("kind"), own("trunkline-dead-letter-offset")]),
        };
        let (copies, left) = copied(["a", "b", "c"].map(message).into(), &[10, 12, 13]);
        assert_eq!(left, [Offset(13)]);
        assert_eq!(copies.copied, [letter(10), letter(12)]);
        assert_eq!(copies.draft.payloads, [Bytes::from("a"), Bytes::from("c")]);
        assert_eq!(copies.draft.keys.unwrap()[1], Some(Bytes::from("key")));
        let entries = copies.draft.headers.unwrap()[1].entries().clone();
        let expected = [
            ("kind", "kind of the message"),
            ("trunkline-dead-letter-attempts", "3"),
            ("trunkline-dead-letter-offset", "12"),
            ("trunkline-dead-letter-reason", "no picture"),
            ("trunkline-dead-letter-subscription", "pool"),
            ("trunkline-dead-letter-topic", "jobs"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(entries, BTreeMap::from(expected));
        let [run] = &copies.draft.producers[..] else { panic!("one run") };
        assert_eq!((run.producer.as_str(), run.count), ("trunkline.dead-letters", 2));
    }

    #[test]
    fn a_copy_that_would_break_a_limit_is_refused() {
        let large =
            Message { payload: vec![b'x'; MAX_MESSAGE_BYTES - 20].into(), ..Message::default() };
        let many = (0..60).map(|number| (format!("n{number}"), String::new()));
        let many = Message { headers: headers(many), ..Message::default() };
        let long = [("n".to_owned(), "v".repeat(Labels::MAX_BYTES - 20))];
        let long = Message { headers: headers(long), ..Message::default() };
        let offsets: Vec<i64> = (10..14).collect();
        let (copies, _) = copied(vec![large, many, long, Message::default()], &offsets);
        assert_eq!(copies.copied, [letter(13)]);
        let refused = copies.refused.into_iter();
        let refused: Vec<_> =
            refused.map(|(letter, invalid)| (letter.offset.0, invalid.limit)).collect();
        assert_eq!(refused, [(10, Some(1_048_576)), (11, Some(64)), (12, Some(16_384))]);
    }

    #[test]
    fn what_lies_before_the_log_start_offset_is_removed() {
        let mut left = [3, 5, 7].map(|offset| (Offset(offset), letter(offset))).into();
        let mut copies = Copies::default();
        copies.take_removed(&mut left, Offset(5));
        assert_eq!(copies.removed, [letter(3)]);
        assert_eq!(left.len(), 2);
    }
}
