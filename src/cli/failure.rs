//! How the command ends when it did not do all it was asked to.

use std::{io, io::Write as _, process::ExitCode};

use tonic::{Code, Status};

use crate::client::{self, ConnectError};

/// What went wrong, and the exit code that says so.
#[derive(Debug)]
pub(super) struct Failure {
    exit_code: u8,
    /// One line for standard error; none where nothing needs to be said.
    message: Option<String>,
}

const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const UNAVAILABLE: u8 = 69;
const INTERRUPTED: u8 = 130;

impl Failure {
    /// Something was refused or failed.
    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self { exit_code: REFUSED, message: Some(message.into()) }
    }

    /// No broker could be reached.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { exit_code: UNAVAILABLE, message: Some(message.into()) }
    }

    /// Ctrl-C.
    pub(super) fn interrupted() -> Self {
        Self { exit_code: INTERRUPTED, message: None }
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
    let _ = writeln!(io::stderr(), "trunkline: {message}");
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let message = match client::reason(&status) {
            Some(reason) => format!("{} ({reason})", client::explain(&status)),
            None => format!("{} ({:?})", client::explain(&status), status.code()),
        };
        let unavailable =
            status.code() == Code::Unavailable || client::is_broken_connection(&status);
        let exit_code = if unavailable { UNAVAILABLE } else { REFUSED };
        Self { exit_code, message: Some(message) }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let exit_code = match error {
            ConnectError::Endpoint { .. } => USAGE,
            ConnectError::Unreachable { .. } => UNAVAILABLE,
        };
        Self { exit_code, message: Some(error.to_string()) }
    }
}

/// Writing to standard output failed. A reader that has gone, such as `head`, had enough.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { exit_code: 0, message: None },
            _ => Self::refused(format!("write to standard output: {error}")),
        }
    }
}
