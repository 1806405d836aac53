//! Why the broker refuses or ends something.

use std::time::Duration;

use crate::{
    model::{ConsumerId, Epoch, InvalidInput, Offset, ProducerId, Sequence, TopicName},
    storage,
};

/// Why a call was refused or a stream ended. Cheap to clone: one failed flush refuses many calls.
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say what each is.
pub enum Error {
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    #[error("topic {topic} does not exist")]
    TopicNotFound { topic: TopicName },
    #[error("topic {topic} exists already")]
    TopicExists { topic: TopicName },
    #[error("producer {producer} is not registered on topic {topic}")]
    ProducerNotFound { topic: TopicName, producer: ProducerId },
    #[error("producer {producer} is registered on topic {topic} already")]
    ProducerExists { topic: TopicName, producer: ProducerId },
    #[error("producer {producer} may not publish to topic {topic}: it is not registered there")]
    ProducerNotRegistered { topic: TopicName, producer: ProducerId },
    #[error(
        "producer {producer} with epoch {epoch} has been fenced on topic {topic}: its epoch is {current}"
    )]
    ProducerFenced { topic: TopicName, producer: ProducerId, epoch: Epoch, current: Epoch },
    #[error(
        "sequence {sequence} of producer {producer} on topic {topic} leaves a gap: {expected} is expected"
    )]
    SequenceGap { topic: TopicName, producer: ProducerId, sequence: Sequence, expected: Sequence },
    #[error(
        "sequence {sequence} of producer {producer} on topic {topic} was passed too long ago to say where it is stored: {expected} is expected"
    )]
    SequencePassed {
        topic: TopicName,
        producer: ProducerId,
        sequence: Sequence,
        expected: Sequence,
    },
    #[error("the head of topic {topic} is {head}, not {expected_head} as expected")]
    HeadMoved { topic: TopicName, expected_head: Offset, head: Offset },
    #[error("consumer {consumer} is not registered on topic {topic}")]
    ConsumerNotFound { topic: TopicName, consumer: ConsumerId },
    #[error("consumer {consumer} is registered on topic {topic} already")]
    ConsumerExists { topic: TopicName, consumer: ConsumerId },
    #[error("offset {offset} lies outside of topic {topic}, which runs from {first} to {head}")]
    OffsetOutOfRange { topic: TopicName, offset: Offset, first: Offset, head: Offset },
    #[error("the lease of consumer {consumer} on topic {topic} is held by {holder}")]
    LeaseHeld { topic: TopicName, consumer: ConsumerId, holder: String },
    #[error(
        "the lease of consumer {consumer} on topic {topic} with epoch {epoch} is over; consume again to get a new one"
    )]
    LeaseLost { topic: TopicName, consumer: ConsumerId, epoch: Epoch },
    #[error("the lease of consumer {consumer} on topic {topic} was taken over by {by}")]
    LeaseTakenOver { topic: TopicName, consumer: ConsumerId, by: String },
    #[error("position {asked} lies behind the stored position {position}, which never goes back")]
    CommitBehind { asked: Offset, position: Offset },
    #[error("position {asked} lies beyond what was delivered, which ends at {delivered}")]
    CommitBeyond { asked: Offset, delivered: Offset },
    #[error(
        "the database has lost messages of topic {topic} from offset {first} to before {end}, and gives these offsets to others; consume again, or seek, to go on"
    )]
    MessagesLost { topic: TopicName, first: Offset, end: Offset },
    #[error(
        "this database has no {what} number left: 2,147,483,647 have been given, and none is given twice; what exists can be used, anything new needs another database"
    )]
    NumbersUsedUp { what: &'static str },
    #[error("topic {topic} is locked by another session of the database; nothing was stored")]
    TopicBusy { topic: TopicName },
    #[error("the database does not answer; try again")]
    DatabaseUnavailable,
    #[error(
        "the database was lost before it answered: it may have been done or not; look before trying again"
    )]
    OutcomeUnknown,
    #[error("the client's deadline has passed")]
    DeadlineExceeded,
    #[error("the broker is stopping; connect again")]
    Draining,
    #[error("the broker met an error of its own; its log tells more")]
    Internal,
}

impl Error {
    /// How long to wait before another try, where that may help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TopicBusy { .. } | Self::Draining => Some(Duration::from_millis(500)),
            Self::DatabaseUnavailable | Self::OutcomeUnknown => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// For a statement that only reads, or that may be done twice: a lost connection then says
    /// nothing but that the database is down.
    pub(crate) fn of_read(error: storage::Error) -> Self {
        match Self::from(error) {
            Self::OutcomeUnknown => Self::DatabaseUnavailable,
            other => other,
        }
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        match error {
            storage::Error::Unavailable(_)
            | storage::Error::NoSession(_)
            | storage::Error::Locked(_) => {
                tracing::warn!(%error, "refuse a call");
                Self::DatabaseUnavailable
            }
            storage::Error::Closed => Self::Draining,
            storage::Error::ConnectionLost(_) => {
                tracing::warn!(%error, "lose a call's outcome");
                Self::OutcomeUnknown
            }
            storage::Error::Taken
            | storage::Error::ChangedMeanwhile
            // Where a client's value was refused, whoever gave it to the database has said which:
            // this is one that was stored, or made here.
            | storage::Error::Refused(_)
            | storage::Error::ParentGone
            | storage::Error::NumbersUsedUp
            | storage::Error::NewerSchema { .. }
            | storage::Error::Url(_)
            | storage::Error::Setting(_)
            | storage::Error::Pooled
            | storage::Error::LocksDoNotExclude
            | storage::Error::DifferentDatabases
            | storage::Error::MissingPrivileges { .. }
            | storage::Error::Forbidden(_)
            | storage::Error::Migration(_)
            | storage::Error::Unexpected(_) => {
                tracing::error!(%error, "fail a call");
                Self::Internal
            }
        }
    }
}
