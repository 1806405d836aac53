//! The only place that makes statuses: each error of the broker gets its code, its reason, and
//! every value that its text names.

mod describe;
mod limits;

use std::{collections::HashMap, sync::Arc};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    access,
    broker::Error,
    model::{InvalidInput, RegistrationId, RegistrationKey},
    proto::PublishRefusal,
};

pub(crate) use limits::{
    answer_dropped, answers_unread, deadline_with_unknown_outcome, malformed, metadata_too_large,
    stalled, too_large, too_many_calls, too_many_metadata_entries, too_many_publishes,
};

use describe::{DOMAIN, Metadata, describe, describe_access};

/// Why a call is refused: by the broker, or because of who makes it.
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    Broker(Error),
    Access(access::Error),
    /// Because of who makes it, which the caller must not learn: it is told of something else.
    Hidden {
        told: Error,
        denied: access::Error,
    },
    /// By another broker, which was asked on behalf of the caller.
    Forwarded(Status),
}

impl Refused {
    /// Whether the call may have been done.
    pub(crate) fn has_unknown_outcome(&self) -> bool {
        match self {
            Self::Broker(error) => matches!(error, Error::OutcomeUnknown(_)),
            Self::Forwarded(status) => {
                let info = status.get_details_error_info();
                info.is_some_and(|info| info.reason == "OUTCOME_UNKNOWN")
            }
            Self::Access(_) | Self::Hidden { .. } => false,
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Broker(error)
    }
}

impl From<InvalidInput> for Refused {
    fn from(invalid: InvalidInput) -> Self {
        Self::Broker(invalid.into())
    }
}

/// What is hidden from a caller is refused with the very error of what does not exist.
impl From<access::Error> for Refused {
    fn from(error: access::Error) -> Self {
        Self::Broker(match error {
            access::Error::TopicHidden { ref topic } => {
                let told = Error::TopicNotFound { topic: topic.clone() };
                return Self::Hidden { told, denied: error };
            }
            access::Error::RegistrationHidden(ref key) => {
                return Self::Hidden { told: not_registered(key.clone()), denied: error };
            }
            access::Error::NotRegistered(key) => not_registered(key),
            access::Error::OwnerFull { principal, what, limit } => {
                Error::TooManyOfPrincipal { principal, what, limit }
            }
            access::Error::Unconfirmed => Error::unavailable(),
            access::Error::Invalid(invalid) => invalid.into(),
            access::Error::Read(error) => Error::of_read(error),
            access::Error::Write(error) => error.into(),
            other => return Self::Access(other),
        })
    }
}

fn not_registered(RegistrationKey { topic, id }: RegistrationKey) -> Error {
    match id {
        RegistrationId::Producer(producer) => Error::ProducerNotFound { topic, producer },
        RegistrationId::Consumer(consumer) => Error::ConsumerNotFound { topic, consumer },
    }
}

/// The status that refuses a call or ends a stream. Logs the database's error, if there is one.
pub(crate) fn refuse(error: impl Into<Refused>) -> Status {
    match error.into() {
        Refused::Broker(error) => {
            error.log_cause("refuse a call");
            of(&error)
        }
        Refused::Access(error) => {
            let (code, reason, metadata) = describe_access(&error);
            let mut details = ErrorDetails::with_error_info(reason, DOMAIN, owned(metadata));
            if let Some(delay) = error.retry_after() {
                details.set_retry_info(Some(delay));
            }
            denied(Status::with_error_details(code, error.to_string(), details), error)
        }
        Refused::Hidden { told, denied: error } => denied(of(&told), error),
        Refused::Forwarded(status) => status,
    }
}

/// Attaches why a call was denied to its status, for the audit. It is never sent.
fn denied(mut status: Status, error: access::Error) -> Status {
    status.set_source(Arc::new(error));
    status
}

/// The reason by which the audit knows a denied call: what its caller was told, unless that was something
/// else. `None` for what is refused for another reason than who calls.
pub(crate) fn denial(error: &access::Error) -> Option<&'static str> {
    use access::Error::*;
    match error {
        TopicHidden { .. } => Some("TOPIC_HIDDEN"),
        RegistrationHidden(_) => Some("REGISTRATION_HIDDEN"),
        TokenHidden { .. } => Some("TOKEN_HIDDEN"),
        TokenNotFound { .. } | NotRegistered(_) | Unconfirmed | Invalid(_) | Read(_) | Write(_) => {
            None
        }
        error => {
            let (code, reason, _) = describe_access(error);
            matches!(code, Code::Unauthenticated | Code::PermissionDenied).then_some(reason)
        }
    }
}

/// An error as a status.
pub(crate) fn of(error: &Error) -> Status {
    let (code, reason, metadata) = describe(error);
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, owned(metadata));
    if let Error::Invalid(invalid) = error {
        details.add_bad_request_violation(&invalid.field, &invalid.problem);
    }
    if let Error::LeaseHeld { topic, consumer, .. } = error {
        let subject = format!("{topic}/{consumer}");
        details.add_precondition_failure_violation("LEASE", subject, error.to_string());
    }
    if let Error::ProducerFenced { topic, producer, .. } = error {
        let subject = format!("{topic}/{producer}");
        details.add_precondition_failure_violation("EPOCH", subject, error.to_string());
    }
    if let Some(delay) = error.retry_after() {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code, error.to_string(), details)
}

/// What a publish stream answers in place of a receipt.
pub(crate) fn refusal(error: &Refused) -> PublishRefusal {
    let ((code, reason, metadata), message, retry_after) = match error {
        Refused::Broker(error) | Refused::Hidden { told: error, .. } => {
            (describe(error), error.to_string(), error.retry_after())
        }
        Refused::Access(error) => (describe_access(error), error.to_string(), error.retry_after()),
        // Publishes are not forwarded.
        Refused::Forwarded(status) => {
            ((status.code(), "", Vec::new()), status.message().to_owned(), None)
        }
    };
    PublishRefusal {
        code: code as i32,
        reason: reason.to_owned(),
        message,
        metadata: metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        retry_delay: retry_after.and_then(|delay| delay.try_into().ok()),
    }
}

fn owned(metadata: Metadata) -> HashMap<String, String> {
    metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
