//! Why the broker refuses or ends something.

use std::{sync::Arc, time::Duration};

use crate::{
    model::{
        Claimant, ConsumerId, Endpoint, Epoch, InvalidInput, Limit, LogEnds, Offset, OffsetRange,
        Principal, ProducerId, Sequence, StoredRun, TopicName,
    },
    storage,
};

/// The database's error, for the log and never for a client. Empty if it has been logged already,
/// or if the database was not asked. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Cause(Option<Arc<storage::Error>>);

/// Why a call was refused or a stream ended. Cheap to clone: one failed flush refuses many calls.
///
/// Creating an error logs nothing: the code that finally handles it calls [`Error::log_cause`].
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages document the variants.
pub enum Error {
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    #[error("topic {topic} does not exist")]
    TopicNotFound { topic: TopicName },
    #[error("topic {topic} exists already")]
    TopicExists { topic: TopicName },
    #[error("topic {topic} exists already, with another {}", .fields.join(" and another "))]
    TopicDiffers {
        topic: TopicName,
        /// The fields of the request that the topic differs in.
        fields: Vec<&'static str>,
    },
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
        /// The runs of the request's messages that are known to be stored: several, or not all of
        /// the messages. One run of all of them would be answered with a receipt.
        stored: Vec<StoredRun>,
    },
    #[error("the head of topic {topic} is {head}, not {expected_head} as expected")]
    HeadMoved { topic: TopicName, expected_head: Offset, head: Offset },
    #[error("consumer {consumer} is not registered on topic {topic}")]
    ConsumerNotFound { topic: TopicName, consumer: ConsumerId },
    #[error("consumer {consumer} is registered on topic {topic} already")]
    ConsumerExists { topic: TopicName, consumer: ConsumerId },
    #[error(
        "consumer {consumer} on topic {topic} is a subscription: workers share its messages, and no stream, pull or commit can take them"
    )]
    ConsumerIsShared { topic: TopicName, consumer: ConsumerId },
    #[error(
        "consumer {consumer} on topic {topic} is not a subscription: no workers share its messages"
    )]
    NotASubscription { topic: TopicName, consumer: ConsumerId },
    #[error(
        "the filter of subscription {consumer} on topic {topic} cannot be read, so nothing is delivered until it is set again: {problem}"
    )]
    FilterUnreadable { topic: TopicName, consumer: ConsumerId, problem: String },
    #[error(
        "topic {topic}, to which messages are to be moved in place of being parked, does not exist"
    )]
    DeadLetterTopicNotFound { topic: TopicName },
    #[error("another broker hands out the messages of subscription {consumer} on topic {topic}")]
    SubscriptionElsewhere {
        topic: TopicName,
        consumer: ConsumerId,
        /// Where the other broker takes calls, if it does.
        endpoint: Option<Arc<Endpoint>>,
    },
    #[error(
        "offset {offset} lies outside of topic {topic}, which runs from {} to {}",
        .ends.start, .ends.head
    )]
    OffsetOutOfRange { topic: TopicName, offset: Offset, ends: LogEnds },
    #[error("the lease of consumer {consumer} on topic {topic} is held by {holder}")]
    LeaseHeld { topic: TopicName, consumer: ConsumerId, holder: String },
    #[error(
        "the lease of consumer {consumer} on topic {topic} with epoch {epoch} has ended; consume again to get a new one"
    )]
    LeaseLost { topic: TopicName, consumer: ConsumerId, epoch: Epoch },
    #[error("the lease of consumer {consumer} on topic {topic} was taken over by {by}")]
    LeaseTakenOver { topic: TopicName, consumer: ConsumerId, by: String },
    #[error("position {asked} lies behind the stored position {position}, which never goes back")]
    CommitBehind { asked: Offset, position: Offset },
    #[error("position {asked} lies beyond what was delivered, which ends at {delivered}")]
    CommitBeyond { asked: Offset, delivered: Offset },
    #[error(
        "the database has lost messages of topic {topic} from offset {} to before {}, and reuses these offsets; consume again, or seek, to continue",
        .lost.start, .lost.end
    )]
    MessagesLost { topic: TopicName, lost: OffsetRange },
    #[error(
        "this database has used up its {what} numbers: all 2,147,483,647 have been assigned, and none is reused; what exists still works, anything new needs another database"
    )]
    NumbersUsedUp { what: &'static str },
    #[error("the database has {limit} topics, and the limit is {limit}; delete one first")]
    TooManyTopics { limit: usize },
    #[error("topic {topic} has {limit} producers, and the limit is {limit}; unregister one first")]
    TooManyProducers { topic: TopicName, limit: usize },
    #[error("topic {topic} has {limit} consumers, and the limit is {limit}; unregister one first")]
    TooManyConsumers { topic: TopicName, limit: usize },
    #[error("{principal} has {limit} {what}, which is its limit; remove one first")]
    TooManyOfPrincipal { principal: Principal, what: Limit, limit: usize },
    #[error("at most {limit} messages may wait to be delivered again; settle some, and try again")]
    TooManyRetried { limit: usize },
    #[error("this broker serves {limit} streams, and the limit is {limit}; try another broker")]
    TooManyStreams { limit: usize },
    #[error(
        "{limit} bytes of answers to this client wait to be read, which is the limit; nothing was taken"
    )]
    AnswersUnread { limit: usize },
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
    /// Whether the broker or its database is to blame, and not the request.
    pub(crate) fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::DatabaseUnavailable(_)
                | Self::DeadlineExceeded
                | Self::Draining
                | Self::Internal(_)
                | Self::OutcomeUnknown(_)
                | Self::TopicBusy { .. }
        )
    }

    /// The database is unavailable; the cause has been logged, or there is none.
    pub(crate) fn unavailable() -> Self {
        Self::DatabaseUnavailable(Cause::default())
    }

    /// A writer ended without an answer, and may have written.
    pub(crate) fn outcome_unknown() -> Self {
        Self::OutcomeUnknown(Cause::default())
    }

    /// A principal has as many of something as it may; without a principal, none is limited.
    pub(crate) fn owner_full(owner: Option<&Claimant>, what: Limit) -> Self {
        match owner.cloned() {
            Some(Claimant { principal, limit }) => {
                Self::TooManyOfPrincipal { principal, what, limit }
            }
            None => Self::internal(),
        }
    }

    /// An internal error whose cause has been logged.
    pub(crate) fn internal() -> Self {
        Self::Internal(Cause::default())
    }

    /// How long to wait before a retry, if one may help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TopicBusy { .. } | Self::AnswersUnread { .. } | Self::Draining => {
                Some(Duration::from_millis(500))
            }
            Self::DatabaseUnavailable(_)
            | Self::OutcomeUnknown(_)
            | Self::SubscriptionElsewhere { .. }
            // Streams end.
            | Self::TooManyStreams { .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// For a statement that only reads, or that may safely run twice: after a lost connection no
    /// outcome is unknown, the database is just unavailable.
    pub(crate) fn of_read(error: impl Into<Arc<storage::Error>>) -> Self {
        match Self::from(error.into()) {
            Self::OutcomeUnknown(cause) => Self::DatabaseUnavailable(cause),
            other => other,
        }
    }

    /// Logs the cause, unless it has been logged or there is none. `action` says what failed, as
    /// verb and object.
    pub fn log_cause(&self, action: &str) {
        match self {
            Self::DatabaseUnavailable(Cause(Some(error)))
            | Self::OutcomeUnknown(Cause(Some(error))) => {
                tracing::warn!(%error, action, "hit a database error");
            }
            Self::Internal(Cause(Some(error))) => {
                tracing::error!(%error, action, "hit a database error");
            }
            _ => {}
        }
    }

    /// Logs the cause and returns the error without it: for an error that many callers get.
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

/// Where the messages of a passed sequence are stored, as far as that is known, and which sequence
/// its producer must continue with.
fn passed(sequence: Sequence, expected: Sequence, stored: &[StoredRun]) -> String {
    let Some(first) = stored.first() else {
        return format!("too long ago to say where it is stored: {expected} is expected");
    };
    let range = |what: &str, from: i64, count: usize| match count {
        1 => format!("{what} {from}"),
        _ => format!("{what}s {from} to {}", from + count as i64 - 1),
    };
    let mut parts = Vec::new();
    if sequence < first.sequence {
        let unknown = first.sequence.since(sequence) as usize;
        let is = if unknown == 1 { "is" } else { "are" };
        let range = range("sequence", sequence.0, unknown);
        parts.push(format!("where {range} {is} stored is no longer known"));
    }
    for StoredRun { sequence, offset, count } in stored {
        let is = if *count == 1 { "is" } else { "are" };
        let (sequences, offsets) =
            (range("sequence", sequence.0, *count), range("offset", offset.0, *count));
        parts.push(format!("{sequences} {is} stored at {offsets}"));
    }
    format!(
        "and cannot be answered as a repetition: {}; go on with sequence {expected}",
        parts.join(", ")
    )
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        Arc::new(error).into()
    }
}

impl From<Arc<storage::Error>> for Error {
    fn from(error: Arc<storage::Error>) -> Self {
        let kind: fn(Cause) -> Self = match *error {
            storage::Error::Closed => return Self::Draining,
            storage::Error::Unavailable(_)
            | storage::Error::NoSession(_)
            | storage::Error::Locked(_) => Self::DatabaseUnavailable,
            storage::Error::ConnectionLost(_) => Self::OutcomeUnknown,
            storage::Error::Taken
            | storage::Error::ChangedMeanwhile
            // A refused value of a client's is reported with its field where it is sent to the
            // database. This one was stored before, or the broker made it.
            | storage::Error::Refused(_)
            | storage::Error::ParentGone
            | storage::Error::NumbersUsedUp
            | storage::Error::Full
            | storage::Error::OwnerFull
            | storage::Error::NewerSchema { .. }
            | storage::Error::OlderSchema { .. }
            | storage::Error::OtherFunctions { .. }
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
        kind(Cause(Some(error)))
    }
}
