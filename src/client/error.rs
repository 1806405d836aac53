//! What can go wrong, as a program must know it.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::connect::root_cause;
use crate::proto::PublishRefusal;

/// What went wrong.
///
/// ```no_run
/// # async fn example(producer: trunkline::client::Producer) {
/// use trunkline::client::Error;
///
/// match producer.publish("an order").await {
///     Ok(offset) => println!("stored at {offset}"),
///     Err(error) if error.reason() == Some("PRODUCER_FENCED") => println!("there is a newer one"),
///     Err(Error::Refused(refusal)) => println!("{refusal}: {:?}", refusal.metadata),
///     Err(error) => println!("{error}"),
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A message, or an option, is one that no broker would take; it was not sent.
    #[error("{field} {problem}")]
    Invalid {
        /// What is wrong.
        field: &'static str,
        /// What is wrong with it, with the limit if there is one.
        problem: String,
    },
    /// The broker refused. Of a publish nothing was stored, unless it was sent before and the
    /// answer to that was lost.
    #[error("{0}")]
    Refused(Refusal),
    /// The broker was lost, and not found again in time. What waited for its answer may be stored
    /// or not.
    #[error("{reason}")]
    Lost {
        /// What was seen last.
        reason: String,
    },
    /// The producer or consumer is closed.
    #[error("it is closed")]
    Closed,
}

/// Why the broker refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({})", self.reason_or_code())]
pub struct Refusal {
    /// The canonical gRPC code.
    pub code: Code,
    /// The reason in UPPER_SNAKE, `TOPIC_NOT_FOUND` for example; empty if it is not one of
    /// Trunkline's answers.
    pub reason: String,
    /// The reason in words.
    pub message: String,
    /// Every value that the message names.
    pub metadata: HashMap<String, String>,
}

impl Error {
    /// The reason of a refusal, `TOPIC_NOT_FOUND` for example.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => Some(&refusal.reason),
            _ => None,
        }
    }

    /// The canonical gRPC code of a refusal.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }
}

impl Refusal {
    fn reason_or_code(&self) -> String {
        match self.reason.as_str() {
            "" => format!("{:?}", self.code),
            reason => reason.to_owned(),
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info();
        // What is unavailable without saying why is not there.
        let not_there = status.code() == Code::Unavailable && info.is_none();
        if not_there || is_broken_connection(&status) {
            return Self::Lost { reason: explain(&status) };
        }
        let (reason, metadata) = info.map(|info| (info.reason, info.metadata)).unwrap_or_default();
        let message = status.message().to_owned();
        Self::Refused(Refusal { code: status.code(), reason, message, metadata })
    }
}

impl From<PublishRefusal> for Error {
    fn from(refusal: PublishRefusal) -> Self {
        Self::Refused(Refusal {
            code: Code::from_i32(refusal.code),
            reason: refusal.reason,
            message: refusal.message,
            metadata: refusal.metadata.into_iter().collect(),
        })
    }
}

/// The reason of a status that a broker gave, `TOPIC_NOT_FOUND` for example.
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

/// Whether a status tells of a broken connection: the transport's own errors are its source, and
/// what a broker says has none.
pub fn is_broken_connection(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// A status for people, without its code, and with the cause of a broken connection.
pub fn explain(status: &Status) -> String {
    match is_broken_connection(status) {
        true => format!("the connection to the broker is broken: {}", root_cause(status)),
        false => status.message().to_owned(),
    }
}

/// Whether the same may simply be tried again.
pub(super) fn is_transient(status: &Status) -> bool {
    is_broken_connection(status)
        || match status.code() {
            Code::Unavailable | Code::Cancelled => true,
            // A broker says why. Without that, it is what something in between makes of a stream
            // that broke.
            Code::Unknown | Code::Internal | Code::DeadlineExceeded => reason(status).is_none(),
            _ => false,
        }
}

/// How long a broker says to wait before another try.
pub(super) fn retry_delay(status: &Status) -> Duration {
    let info = status.get_details_retry_info();
    info.and_then(|info| info.retry_delay).unwrap_or_default()
}
