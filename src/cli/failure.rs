//! The errors that end the command, and their exit codes.

use std::{io, io::Write as _, process::ExitCode};

use tonic::{Code, Status};

use super::escape::printable;
use crate::client::{ConnectError, Error, Refusal};

/// An error that ends the command.
#[derive(Debug)]
pub(super) struct Failure {
    exit_code: u8,
    /// One line for standard error, if there is anything to print.
    message: Option<String>,
    /// The reason code of a broker's refusal.
    reason: Option<String>,
    /// The name that does not exist, if that is the refusal.
    unknown: Option<Unknown>,
}

/// A name that a broker does not know.
#[derive(Clone, Debug)]
pub(super) enum Unknown {
    Topic(String),
    Consumer { topic: String, id: String },
    Producer { topic: String, id: String },
    Subscription { topic: String, id: String },
}

impl Unknown {
    fn of(refusal: &Refusal) -> Option<Self> {
        let value = |name: &str| refusal.metadata.get(name).cloned();
        let topic = value("topic")?;
        Some(match refusal.reason.as_str() {
            "TOPIC_NOT_FOUND" => Self::Topic(topic),
            "CONSUMER_NOT_FOUND" => Self::Consumer { topic, id: value("consumer_id")? },
            "PRODUCER_NOT_FOUND" => Self::Producer { topic, id: value("producer_id")? },
            _ => return None,
        })
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Topic(name) => name,
            Self::Consumer { id, .. }
            | Self::Producer { id, .. }
            | Self::Subscription { id, .. } => id,
        }
    }
}

const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const TAKEN_OVER: u8 = 3;
const UNAVAILABLE: u8 = 69;
const INTERRUPTED: u8 = 130;

impl Failure {
    fn new(exit_code: u8, message: impl Into<String>) -> Self {
        Self { exit_code, message: Some(message.into()), reason: None, unknown: None }
    }

    /// Something was refused or failed.
    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self::new(REFUSED, message)
    }

    /// The command line is wrong.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    /// No broker could be reached.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(UNAVAILABLE, message)
    }

    /// The user pressed Ctrl-C.
    pub(super) fn interrupted() -> Self {
        Self { exit_code: INTERRUPTED, message: None, reason: None, unknown: None }
    }

    /// Whether the failure is that no broker could be reached.
    pub(super) fn is_unavailable(&self) -> bool {
        self.exit_code == UNAVAILABLE
    }

    /// Whether the failure is an interruption by Ctrl-C.
    pub(super) fn is_interruption(&self) -> bool {
        self.exit_code == INTERRUPTED
    }

    /// The reason code of the broker, if a broker refused.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The name that does not exist, if that is the failure.
    pub(super) fn unknown(&self) -> Option<Unknown> {
        self.unknown.clone()
    }

    /// What is printed.
    pub(super) fn message(&self) -> &str {
        self.message.as_deref().unwrap_or_default()
    }

    /// The same failure, whose message also says what was done before it.
    pub(super) fn after(mut self, summary: &str) -> Self {
        self.message = Some(match self.message {
            Some(message) => format!("{message}; {summary}"),
            None => summary.to_owned(),
        });
        self
    }

    /// Prints the message, and returns the exit code.
    pub(super) fn report(self) -> ExitCode {
        if let Some(message) = self.message {
            print_notice(&message);
        }
        self.exit_code.into()
    }
}

/// Prints a line on standard error, which may be closed.
pub(super) fn print_notice(message: &str) {
    let _ = io::stderr().write_all(notice_line(message).as_bytes());
}

/// A notice as it is printed.
pub(super) fn notice_line(message: &str) -> String {
    format!("trunkline: {}\n", printable(message))
}

/// What the user can do about a refusal, if anything.
fn remedy(refusal: &Refusal) -> Option<&'static str> {
    Some(match refusal.reason.as_str() {
        "TOPIC_NOT_FOUND" => "`trunkline topic list` lists the topics",
        "CONSUMER_NOT_FOUND" => {
            "`trunkline consumer register` or --register creates it; `trunkline subscription create` \
             creates one that workers share"
        }
        "CONSUMER_IS_SHARED" => "`trunkline work` works on its messages",
        "DEAD_LETTER_TOPIC_NOT_FOUND" => "`trunkline topic create` creates it",
        "NOT_A_SUBSCRIPTION" => "`trunkline consume` prints its messages",
        "FILTER_UNREADABLE" => "`trunkline subscription update --filter` sets it",
        "PRODUCER_NOT_FOUND" | "PRODUCER_NOT_REGISTERED" => {
            "`trunkline producer register` or --register creates it"
        }
        "LEASE_HELD" | "LEASE_TAKEN_OVER" => "--take-over takes the lease",
        "PRODUCER_FENCED" => "another instance of this producer has been opened since then",
        "SEQUENCE_GAP" | "SEQUENCE_PASSED" => {
            "another program publishes as this producer: give each program its own producer id"
        }
        "TOKEN_MISSING" => "give a token in --token-file, TRUNKLINE_TOKEN_FILE or TRUNKLINE_TOKEN",
        "TOKEN_UNKNOWN" | "TOKEN_EXPIRED" | "TOKEN_REVOKED" => {
            "an administrator makes another with `trunkline token create`"
        }
        "NOT_GRANTED" => "`trunkline whoami` says what you may do",
        "" if refusal.code == Code::Unimplemented => {
            "the server at the endpoint is not this version of Trunkline"
        }
        _ => return None,
    })
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Refused(refusal) => {
                let message = match remedy(&refusal) {
                    Some(remedy) => format!("{message}: {remedy}"),
                    None => message,
                };
                let exit_code = match refusal.reason.as_str() {
                    _ if refusal.code == Code::Unavailable => UNAVAILABLE,
                    "PRODUCER_FENCED" | "LEASE_TAKEN_OVER" => TAKEN_OVER,
                    _ => REFUSED,
                };
                let unknown = Unknown::of(&refusal);
                Self { exit_code, message: Some(message), reason: Some(refusal.reason), unknown }
            }
            Error::Lost { .. } => Self::unavailable(message),
            Error::Invalid { .. } | Error::Closed => Self::refused(message),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Error::from(status).into()
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Endpoint { .. } | ConnectError::Credentials { .. } => {
                Self::usage(error.to_string())
            }
            ConnectError::Unreachable { .. } => Self::unavailable(format!(
                "{error}: is a broker running there? `trunkline serve` starts one, --endpoint selects \
                 another"
            )),
        }
    }
}

/// A failure to write to standard output. A reader that closes the pipe, such as `head`, has read
/// all it wants, so that is a success.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => {
                Self { exit_code: 0, message: None, reason: None, unknown: None }
            }
            _ => Self::refused(format!("write to standard output: {error}")),
        }
    }
}
