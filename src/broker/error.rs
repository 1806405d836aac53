//! Why the broker refuses or ends something.

use std::{sync::Arc, time::Duration};

use crate::{
    model::{
        ConsumerId, Epoch, InvalidInput, LogEnds, Offset, OffsetRange, ProducerId, Sequence,
        StoredRun, TopicName,
    },
    storage,
};

/// What the database said, for the log and never for a client. None where that has been logged, or
/// where the database was not asked. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Cause(Option<Arc<storage::Error>>);

/// Why a call was refused or a stream ended. Cheap to clone: one failed flush refuses many calls.
///
/// Making one logs nothing: the error's last holder calls [`Error::log_cause`].
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
        "sequence {sequence} of producer {producer} on topic {topic} was passed {}",
        passed(*sequence, *expected, stored)
    )]
    SequencePassed {
        topic: TopicName,
        producer: ProducerId,
        sequence: Sequence,
        expected: Sequence,
        /// What is known of the request's messages, which has more than one first offset, or is
        /// not all of them.
        stored: Vec<StoredRun>,
    },
    #[error("the head of topic {topic} is {head}, not {expected_head} as expected")]
    HeadMoved { topic: TopicName, expected_head: Offset, head: Offset },
    #[error("consumer {consumer} is not registered on topic {topic}")]
    ConsumerNotFound { topic: TopicName, consumer: ConsumerId },
    #[error("consumer {consumer} is registered on topic {topic} already")]
    ConsumerExists { topic: TopicName, consumer: ConsumerId },
    #[error(
        "offset {offset} lies outside of topic {topic}, which runs from {} to {}",
        .ends.start, .ends.head
    )]
    OffsetOutOfRange { topic: TopicName, offset: Offset, ends: LogEnds },
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
        "the database has lost messages of topic {topic} from offset {} to before {}, and gives these offsets to others; consume again, or seek, to go on",
        .lost.start, .lost.end
    )]
    MessagesLost { topic: TopicName, lost: OffsetRange },
    #[error(
        "this database has no {what} number left: 2,147,483,647 have been given, and none is given twice; what exists can be used, anything new needs another database"
    )]
    NumbersUsedUp { what: &'static str },
    #[error("topic {topic} is locked by another session of the database; nothing was stored")]
    TopicBusy { topic: TopicName },
    #[error("the database is unavailable; try again")]
    DatabaseUnavailable(Cause),
    #[error(
        "the connection to the database was lost before it answered: the outcome is unknown; check before retrying"
    )]
    OutcomeUnknown(Cause),
    #[error("the client's deadline has passed")]
    DeadlineExceeded,
    #[error("the broker is stopping; connect again")]
    Draining,
    #[error("internal error; the broker's log has the details")]
    Internal(Cause),
}

impl Error {
    /// The database is unavailable, which is logged already or needs no cause.
    pub(crate) fn unavailable() -> Self {
        Self::DatabaseUnavailable(Cause::default())
    }

    /// A writer ended without an answer: it may have written.
    pub(crate) fn outcome_unknown() -> Self {
        Self::OutcomeUnknown(Cause::default())
    }

    /// An internal error that is logged already.
    pub(crate) fn internal() -> Self {
        Self::Internal(Cause::default())
    }

    /// How long to wait before another try, where that may help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TopicBusy { .. } | Self::Draining => Some(Duration::from_millis(500)),
            Self::DatabaseUnavailable(_) | Self::OutcomeUnknown(_) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// For a statement that only reads, or that may run twice: after a lost connection nothing is
    /// uncertain, the database is just unavailable.
    pub(crate) fn of_read(error: storage::Error) -> Self {
        match Self::from(error) {
            Self::OutcomeUnknown(cause) => Self::DatabaseUnavailable(cause),
            other => other,
        }
    }

    /// Logs the cause, if there is one that has not been logged. `action` is what failed, as verb
    /// and object.
    pub fn log_cause(&self, action: &str) {
        match self {
            Self::DatabaseUnavailable(Cause(Some(error)))
            | Self::OutcomeUnknown(Cause(Some(error))) => tracing::warn!(%error, "{action}"),
            Self::Internal(Cause(Some(error))) => tracing::error!(%error, "{action}"),
            _ => {}
        }
    }

    /// Logs the cause, and returns the error without it: for an error that goes to many callers.
    pub(crate) fn logged(self, action: &str) -> Self {
        self.log_cause(action);
        match self {
            Self::DatabaseUnavailable(_) => Self::unavailable(),
            Self::OutcomeUnknown(_) => Self::outcome_unknown(),
            Self::Internal(_) => Self::internal(),
            other => other,
        }
    }
}

/// What is known of a request that was passed, and where its producer can go on.
fn passed(sequence: Sequence, expected: Sequence, stored: &[StoredRun]) -> String {
    let Some(first) = stored.first() else {
        return format!("too long ago to say where it is stored: {expected} is expected");
    };
    let range = |what: &str, from: i64, count: usize| match count {
        1 => format!("{what} {from}"),
        _ => format!("{what}s {from} to {}", from + count as i64 - 1),
    };
    let mut told = Vec::new();
    if sequence < first.sequence {
        let unknown = first.sequence.since(sequence) as usize;
        let is = if unknown == 1 { "is" } else { "are" };
        let range = range("sequence", sequence.0, unknown);
        told.push(format!("where {range} {is} stored is not known any more"));
    }
    for StoredRun { sequence, offset, count } in stored {
        let is = if *count == 1 { "is" } else { "are" };
        let (sequences, offsets) =
            (range("sequence", sequence.0, *count), range("offset", offset.0, *count));
        told.push(format!("{sequences} {is} stored at {offsets}"));
    }
    format!(
        "and cannot be answered as a repetition: {}; go on with sequence {expected}",
        told.join(", ")
    )
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        let kind: fn(Cause) -> Self = match error {
            storage::Error::Closed => return Self::Draining,
            storage::Error::Unavailable(_)
            | storage::Error::NoSession(_)
            | storage::Error::Locked(_) => Self::DatabaseUnavailable,
            storage::Error::ConnectionLost(_) => Self::OutcomeUnknown,
            storage::Error::Taken
            | storage::Error::ChangedMeanwhile
            // A value that a client gave is refused by name where it is given to the database: this
            // one was stored, or made by the broker.
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
            | storage::Error::Fault(_)
            | storage::Error::Failed(_)
            | storage::Error::Unexpected(_) => Self::Internal,
        };
        kind(Cause(Some(Arc::new(error))))
    }
}
