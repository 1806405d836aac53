//! Topics, producers and consumers as the catalogue has them.

use std::time::{Duration, SystemTime};

use super::{
    access::Principal,
    labels::Labels,
    name::{ConsumerId, ProducerId, TopicName},
    position::{ConsumerKey, Epoch, Offset, Sequence},
    subscription::Sharing,
};

/// A topic.
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
    /// The log start offset: the offset of the oldest message kept, or the head if there is none.
    pub first_offset: Offset,
    /// The offset of the next message to be stored.
    pub head: Offset,
    /// When the newest message was stored; `None` if there has been none.
    pub last_published_at: Option<SystemTime>,
    /// How long messages are kept.
    pub retention: Retention,
    /// Bytes of payloads, keys and headers of the messages kept.
    pub bytes: i64,
}

/// How long messages are kept: the oldest are removed when any of the limits is exceeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The age up to which a message is kept.
    pub max_age: Option<Duration>,
    /// The most bytes kept.
    pub max_bytes: Option<i64>,
    /// The most messages kept.
    pub max_messages: Option<i64>,
    /// Whether messages that the slowest consumer has not read are kept, whatever the limits say.
    pub keep_unread: bool,
}

impl Retention {
    /// As it is stored: an age has whole milliseconds, rounded up, so that no message expires before
    /// its time.
    pub fn as_stored(self) -> Self {
        let whole = |age| Duration::from_millis(Self::stored_age(age).unsigned_abs());
        Self { max_age: self.max_age.map(whole), ..self }
    }

    /// The milliseconds that an age is stored as.
    pub fn stored_age(age: Duration) -> i64 {
        i64::try_from(age.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
    }
}

/// Changes to a topic: whatever is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicChanges {
    /// The new description.
    pub description: Option<String>,
    /// The new labels, which replace all old ones.
    pub labels: Option<Labels>,
    /// The new age limit, or none.
    pub max_age: Option<Option<Duration>>,
    /// The new limit on bytes, or none.
    pub max_bytes: Option<Option<i64>>,
    /// The new limit on messages, or none.
    pub max_messages: Option<Option<i64>>,
    /// Whether messages that the slowest consumer has not read are kept.
    pub keep_unread: Option<bool>,
}

/// A producer on its topic.
#[derive(Clone, Debug)]
pub struct Producer {
    /// Its id.
    pub id: ProducerId,
    /// When it was registered.
    pub created_at: SystemTime,
    /// When it last published, if it ever did.
    pub last_published_at: Option<SystemTime>,
    /// The offset of the last message that it published, if it ever did.
    pub last_offset: Option<Offset>,
    /// Its epoch, which grows each time it is fenced.
    pub epoch: Epoch,
    /// The sequence of the last message that it published with one, if it ever did.
    pub last_sequence: Option<Sequence>,
    /// The principal that it belongs to, if it belongs to one.
    pub owner: Option<Principal>,
}

/// A producer's registration, against which its publishes are checked.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The producer.
    pub producer: ProducerId,
    /// Its epoch, which grows each time it is fenced.
    pub epoch: Epoch,
    /// The sequence that its next message must have.
    pub next_sequence: Sequence,
    /// Its last runs of messages that were stored together, the newest first.
    pub recent: Vec<SequenceRun>,
}

/// Messages of one producer whose sequences and offsets both follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceRun {
    /// The sequence of the first message.
    pub sequence: Sequence,
    /// The offset of the first message.
    pub offset: Offset,
}

/// Messages that are stored one behind the other, in their producer's count and in their topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRun {
    /// The sequence of the first one.
    pub sequence: Sequence,
    /// The offset of the first one.
    pub offset: Offset,
    /// How many they are, at least one.
    pub count: usize,
}

impl Registration {
    /// Where those of some messages that were published before are stored, as far as that is
    /// known, in the order of their sequences. Only the first ones may be unknown, as they were
    /// stored too long ago, and only the last ones may be new.
    pub fn find_stored(&self, first: Sequence, count: usize) -> Vec<StoredRun> {
        let end = first.after(count);
        let mut found: Vec<StoredRun> = Vec::new();
        let mut end_of_run = self.next_sequence;
        for run in &self.recent {
            let sequence = run.sequence.max(first);
            let count = end_of_run.min(end).since(sequence);
            end_of_run = run.sequence;
            let Ok(count @ 1..) = usize::try_from(count) else { continue };
            let offset = Offset(run.offset.0 + sequence.since(run.sequence));
            match found.last_mut() {
                Some(next) if next.offset == offset.after(count) => {
                    *next = StoredRun { sequence, offset, count: count + next.count };
                }
                _ => found.push(StoredRun { sequence, offset, count }),
            }
        }
        found.reverse();
        found
    }
}

/// A consumer on its topic.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Its id.
    pub id: ConsumerId,
    /// The database's numbers for it.
    pub key: ConsumerKey,
    /// Its position: the offset of the next message that it gets.
    pub position: Offset,
    /// The topic's log start offset.
    pub first: Offset,
    /// The topic's head.
    pub head: Offset,
    /// The epoch of the lease's last acquisition.
    pub epoch: Epoch,
    /// Who holds the lease, if anybody does.
    pub holder: Option<String>,
    /// When it was registered.
    pub created_at: SystemTime,
    /// When the position last moved or the lease last changed hands.
    pub updated_at: SystemTime,
    /// The principal that it belongs to, if it belongs to one.
    pub owner: Option<Principal>,
    /// If it is a subscription: how workers share its messages.
    pub sharing: Option<Sharing>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A registration with these runs, each a sequence number and an offset.
    fn registration(recent: &[(i64, i64)]) -> Registration {
        let run = |&(sequence, offset): &(i64, i64)| SequenceRun {
            sequence: Sequence(sequence),
            offset: Offset(offset),
        };
        Registration {
            producer: ProducerId::stored("p"),
            epoch: Epoch(0),
            next_sequence: Sequence(30),
            recent: recent.iter().map(run).collect(),
        }
    }

    #[test]
    fn messages_stored_before_are_found_in_the_recent_runs() {
        let registration = registration(&[(20, 700), (10, 400)]);
        let found = |first, count| {
            let found = registration.find_stored(Sequence(first), count).into_iter();
            found.map(|run| (run.sequence.0, run.offset.0, run.count)).collect::<Vec<_>>()
        };
        assert_eq!(found(20, 10), [(20, 700, 10)]);
        assert_eq!(found(25, 5), [(25, 705, 5)]);
        assert_eq!(found(12, 3), [(12, 402, 3)]);
        // Across the end of a run, beyond the last one, and before the first that is known.
        assert_eq!(found(15, 10), [(15, 405, 5), (20, 700, 5)]);
        assert_eq!(found(25, 6), [(25, 705, 5)]);
        assert_eq!(found(9, 1), []);
        assert_eq!(found(9, 40), [(10, 400, 10), (20, 700, 10)]);
        assert_eq!(found(30, 1), []);
    }

    #[test]
    fn runs_that_follow_each_other_in_the_topic_are_found_as_one() {
        let registration = registration(&[(27, 107), (20, 100), (10, 90), (0, 79)]);
        let stored = |sequence, offset, count| StoredRun {
            sequence: Sequence(sequence),
            offset: Offset(offset),
            count,
        };
        assert_eq!(registration.find_stored(Sequence(15), 14), [stored(15, 95, 14)]);
        let found = registration.find_stored(Sequence(0), 30);
        assert_eq!(found, [stored(0, 79, 10), stored(10, 90, 20)]);
    }
}
