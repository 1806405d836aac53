//! Errors that tell a program what it can do about them.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::proto::PublishRefusal;

/// Why a call of the library failed.
///
/// ```no_run
/// # async fn example(producer: trunkline::client::Producer) {
/// use trunkline::client::Error;
///
/// match producer.publish("an order").await {
///     Ok(offset) => println!("stored at {offset}"),
///     Err(error) if error.reason() == Some("PRODUCER_FENCED") => println!("a newer instance took over"),
///     Err(Error::Refused(refusal)) => println!("{refusal}: {:?}", refusal.metadata),
///     Err(error) => println!("{error}"),
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A message or an option that no broker would accept; nothing was sent.
    #[error("{field} {problem}")]
    Invalid {
        /// The message's part or the option.
        field: &'static str,
        /// What is wrong with it, and the limit if there is one.
        problem: String,
    },
    /// The broker refused. A refused publish stored nothing, unless an earlier attempt stored it and
    /// the answer to that was lost.
    #[error("{0}")]
    Refused(Refusal),
    /// The broker was lost and not reached again in time, or something did not end in time. Messages of a
    /// producer without an answer may or may not be stored. Of a [`Worker`](super::Worker), handlers did not end
    /// in time after it was to stop, or its stream was lost meanwhile: messages whose verdicts are not stored
    /// are delivered again.
    #[error("{reason}")]
    Lost {
        /// What went wrong last.
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
    /// The reason in UPPER_SNAKE, `TOPIC_NOT_FOUND` for example; empty if the answer is not
    /// Trunkline's.
    pub reason: String,
    /// The reason in words.
    pub message: String,
    /// Every value that the message mentions.
    pub metadata: HashMap<String, String>,
}

/// Why no connection to a broker was made.
///
/// ```no_run
/// # async fn example() {
/// use trunkline::client::{Client, ConnectError};
///
/// match Client::connect("http://127.0.0.1:50051").await {
///     Ok(client) => println!("{client:?}"),
///     Err(ConnectError::Unreachable { endpoint, reason }) => println!("{endpoint}: {reason}"),
///     Err(error) => println!("{error}"),
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// An endpoint is neither `HOST` nor `HOST:PORT`, nor one of them after `http://` or `https://`.
    #[error(
        "read the endpoint {endpoint:?}: it must have the form HOST:PORT, http://HOST:PORT or \
         https://HOST:PORT"
    )]
    Endpoint {
        /// The text that was given.
        endpoint: String,
    },
    /// A certificate, a key or a token cannot be used.
    #[error("use the {what}: {reason}")]
    Credentials {
        /// Which of them.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// No broker answers.
    #[error("connect to {endpoint}: {reason}")]
    Unreachable {
        /// The endpoint; if there are several, all of them, separated by commas.
        endpoint: String,
        /// Why not; if there are several endpoints, the reason of each.
        reason: String,
    },
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
    pub(super) fn reason_or_code(&self) -> String {
        match self.reason.as_str() {
            "" => format!("{:?}", self.code),
            reason => reason.to_owned(),
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info();
        // A broker gives a reason for being unavailable; without one, no broker answered.
        let no_broker = status.code() == Code::Unavailable && info.is_none();
        if no_broker || is_broken_connection(&status) {
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

/// Whether a status stands for a broken connection. The transport's errors have a source; a status
/// that a broker sent has none.
pub fn is_broken_connection(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// A status as text for people: without its code, but with the cause of a broken connection.
pub fn explain(status: &Status) -> String {
    match is_broken_connection(status) {
        true => format!("the connection to the broker is broken: {}", root_cause(status)),
        false => status.message().to_owned(),
    }
}

/// Whether the same call may simply be retried.
pub(super) fn is_transient(status: &Status) -> bool {
    is_broken_connection(status)
        || match status.code() {
            Code::Unavailable | Code::Cancelled => true,
            // A broker gives a reason. Without one, a proxy or the transport made the status out of a
            // broken stream.
            Code::Unknown | Code::Internal | Code::DeadlineExceeded | Code::ResourceExhausted
                if reason(status).is_none() =>
            {
                true
            }
            // Such as a limit of streams, of which others end.
            _ => status.get_details_retry_info().is_some(),
        }
}

/// How long the broker asked to wait before the next try.
pub(super) fn retry_delay(status: &Status) -> Duration {
    let info = status.get_details_retry_info();
    info.and_then(|info| info.retry_delay).unwrap_or_default()
}

/// The innermost error: a transport's outer errors only say that there was one.
pub(super) fn root_cause<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> &'a dyn std::error::Error {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error)
}
