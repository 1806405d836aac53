//! What the catalogue tells of topics, producers and consumers.

use std::time::{Duration, SystemTime};

use super::{ConsumerId, ConsumerKey, Epoch, Labels, Offset, ProducerId, Sequence, TopicName};

/// A topic as it stands.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// Free text for people.
    pub description: String,
    /// Names and values for tools.
    pub labels: Labels,
    /// When it was created.
    pub created_at: SystemTime,
    /// When description or labels last changed.
    pub updated_at: SystemTime,
    /// Offset of the oldest message kept; the head if there is none.
    pub first_offset: Offset,
    /// The offset that the next message gets.
    pub head: Offset,
    /// When the newest message was stored, if there was one.
    pub last_published_at: Option<SystemTime>,
    /// How long messages are kept.
    pub retention: Retention,
    /// Bytes of payloads, keys and headers of the messages kept.
    pub bytes: i64,
}

/// How long messages are kept: the oldest go as soon as one of the limits is passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// How old a message may get.
    pub max_age: Option<Duration>,
    /// How many bytes are kept.
    pub max_bytes: Option<i64>,
    /// How many messages are kept.
    pub max_messages: Option<i64>,
    /// Whether what the slowest consumer has not read is kept, whatever the limits say.
    pub keep_unread: bool,
}

/// Changes to a topic: what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicChanges {
    /// The new description.
    pub description: Option<String>,
    /// The new labels, in place of all labels of before.
    pub labels: Option<Labels>,
    /// The new age limit, or none.
    pub max_age: Option<Option<Duration>>,
    /// The new limit of bytes, or none.
    pub max_bytes: Option<Option<i64>>,
    /// The new limit of messages, or none.
    pub max_messages: Option<Option<i64>>,
    /// Whether what the slowest consumer has not read is kept.
    pub keep_unread: Option<bool>,
}

/// A producer on its topic.
#[derive(Clone, Debug)]
pub struct Producer {
    /// Its id.
    pub id: ProducerId,
    /// When it was registered.
    pub created_at: SystemTime,
    /// When it last published, if it did.
    pub last_published_at: Option<SystemTime>,
    /// Offset of the last message it published, if it did.
    pub last_offset: Option<Offset>,
    /// How often it was fenced.
    pub epoch: Epoch,
    /// Sequence of the last message it published with one, if it did.
    pub last_sequence: Option<Sequence>,
}

/// What a publish is judged by: a producer's registration as it stands.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The producer.
    pub producer: ProducerId,
    /// How often it was fenced.
    pub epoch: Epoch,
    /// The sequence that its next message gets.
    pub next_sequence: Sequence,
    /// The last runs of messages that were stored together, the newest first.
    pub recent: Vec<SequenceRun>,
}

/// Messages of one producer that follow each other in its count and in their topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceRun {
    /// The sequence of the first one.
    pub sequence: Sequence,
    /// The offset of the first one.
    pub offset: Offset,
}

impl Registration {
    /// Where messages that were published before are stored; `None` if that is too long ago to be
    /// known.
    pub fn find_stored(&self, first: Sequence, count: usize) -> Option<Offset> {
        let mut end = self.next_sequence;
        for run in &self.recent {
            if run.sequence <= first {
                let skipped = usize::try_from(first.0 - run.sequence.0).ok()?;
                return (first.after(count) <= end).then(|| run.offset.after(skipped));
            }
            end = run.sequence;
        }
        None
    }
}

/// A consumer on its topic.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Its id.
    pub id: ConsumerId,
    /// The database's numbers for it.
    pub key: ConsumerKey,
    /// The offset that it gets next.
    pub position: Offset,
    /// The offset of the oldest message kept.
    pub first: Offset,
    /// The offset that the topic's next message gets.
    pub head: Offset,
    /// The number of the lease's last acquisition.
    pub epoch: Epoch,
    /// Who holds the lease now, if anybody does.
    pub holder: Option<String>,
    /// When it was registered.
    pub created_at: SystemTime,
    /// When the position last moved or the lease last changed hands.
    pub updated_at: SystemTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_before_is_found_within_the_recent_runs() {
        let run =
            |sequence, offset| SequenceRun { sequence: Sequence(sequence), offset: Offset(offset) };
        let registration = Registration {
            producer: ProducerId::stored("p"),
            epoch: Epoch(0),
            next_sequence: Sequence(30),
            recent: vec![run(20, 700), run(10, 400)],
        };
        let found = |first, count| registration.find_stored(Sequence(first), count).map(|o| o.0);
        assert_eq!(found(20, 10), Some(700));
        assert_eq!(found(25, 5), Some(705));
        assert_eq!(found(12, 3), Some(402));
        // Across the end of a run, beyond the last one, and before the first that is known.
        assert_eq!(found(15, 10), None);
        assert_eq!(found(25, 6), None);
        assert_eq!(found(9, 1), None);
    }
}
