//! How the command ends when it did not do all it was asked to.

use std::{io, io::Write as _, process::ExitCode};

use tonic::{Code, Status};

use super::escape::printable;
use crate::client::{ConnectError, Error, Refusal};

/// What went wrong, and the exit code that says so.
#[derive(Debug)]
pub(super) struct Failure {
    exit_code: u8,
    /// One line for standard error; none where nothing needs to be said.
    message: Option<String>,
    /// The reason that a broker gave.
    reason: Option<String>,
}

const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const UNAVAILABLE: u8 = 69;
const INTERRUPTED: u8 = 130;

impl Failure {
    fn new(exit_code: u8, message: impl Into<String>) -> Self {
        Self { exit_code, message: Some(message.into()), reason: None }
    }

    /// Something was refused or failed.
    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self::new(REFUSED, message)
    }

    /// The command line says something that cannot be.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    /// No broker could be reached.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(UNAVAILABLE, message)
    }

    /// Ctrl-C.
    pub(super) fn interrupted() -> Self {
        Self { exit_code: INTERRUPTED, message: None, reason: None }
    }

    /// Whether no broker could be reached.
    pub(super) fn is_unavailable(&self) -> bool {
        self.exit_code == UNAVAILABLE
    }

    /// Whether it was Ctrl-C.
    pub(super) fn is_interruption(&self) -> bool {
        self.exit_code == INTERRUPTED
    }

    /// The reason that a broker gave, if it was one that refused.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The same, with more to say of what was done before.
    pub(super) fn after(mut self, done: &str) -> Self {
        self.message = Some(match self.message {
            Some(message) => format!("{message}; {done}"),
            None => done.to_owned(),
        });
        self
    }

    /// Says it, and gives the exit code.
    pub(super) fn report(self) -> ExitCode {
        if let Some(message) = self.message {
            say(&message);
        }
        self.exit_code.into()
    }
}

/// Says a line on standard error, which may be gone.
pub(super) fn say(message: &str) {
    let _ = writeln!(io::stderr(), "trunkline: {}", printable(message));
}

/// What to do about a refusal, where there is something.
fn remedy(refusal: &Refusal) -> Option<&'static str> {
    Some(match refusal.reason.as_str() {
        "TOPIC_NOT_FOUND" => "`trunkline topic list` tells which there are",
        "CONSUMER_NOT_FOUND" => "`trunkline consumer register` or --register makes it",
        "PRODUCER_NOT_FOUND" | "PRODUCER_NOT_REGISTERED" => {
            "`trunkline producer register` or --register makes it"
        }
        "LEASE_HELD" | "LEASE_TAKEN_OVER" => "--take-over takes the lease",
        "PRODUCER_FENCED" => "another instance of this producer has been opened since",
        "SEQUENCE_GAP" | "SEQUENCE_PASSED" => {
            "another program publishes as this producer: give each an id of its own"
        }
        "" if refusal.code == Code::Unimplemented => {
            "what answers there is not this version of Trunkline"
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
                let unavailable = refusal.code == Code::Unavailable;
                let exit_code = if unavailable { UNAVAILABLE } else { REFUSED };
                Self { exit_code, message: Some(message), reason: Some(refusal.reason) }
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
                "{error}: is a broker running there? `trunkline serve` starts one, --endpoint names another"
            )),
        }
    }
}

/// Writing to standard output failed. A reader that has gone, such as `head`, had enough.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { exit_code: 0, message: None, reason: None },
            _ => Self::refused(format!("write to standard output: {error}")),
        }
    }
}
