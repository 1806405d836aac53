//! Why no session could be opened: the reason of each server.

use std::time::Duration;

use tokio_postgres::error::DbError;

use crate::storage::{
    connector::tls::Failure,
    error::{Error, describe},
};

/// Why one server gave no session.
pub(crate) struct Refusal {
    /// Its host and port.
    pub server: String,
    pub reason: Reason,
}

/// Why a request for a session failed.
pub(crate) enum Reason {
    /// No answer in time.
    Silent(Duration),
    /// The other servers took all the time.
    NotTried,
    /// The name cannot be looked up.
    UnknownName(String),
    /// The server accepts no writes.
    Standby,
    /// TLS failed, or what the URL asks for of it.
    Tls(Failure),
    /// What the server, or the network, answered.
    Answer(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Reason {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Answer(error)
    }
}

impl Refusal {
    /// Whether the server rejects a startup option of the request.
    pub(crate) fn concerns_startup_options(&self) -> bool {
        let Some(answer) = self.answer() else { return false };
        match answer.code().code() {
            // An unknown setting; its value; a setting that requires a privilege.
            "42704" | "22023" | "0A000" | "42501" => true,
            // PgBouncer uses this code for all its own errors. Only `unsupported startup parameter`
            // concerns the options. The others are transient, such as a server that is down or too
            // many clients.
            "08P01" => answer.message().contains("startup parameter"),
            _ => false,
        }
    }

    /// Whether a retry would fail in the same way: a wrong password, an unknown role or database, a
    /// certificate that is not trusted, or a startup option that the server rejects.
    fn is_final(&self) -> bool {
        matches!(&self.reason, Reason::Tls(failure) if failure.is_final)
            || self.concerns_startup_options()
            || self.code().is_some_and(|code| code.starts_with("28") || code == "3D000")
    }

    /// Whether the role may not connect to the database. Recognised by the server's function that
    /// refused it, as the text is in the server's language.
    fn lacks_connect(&self) -> bool {
        self.answer().is_some_and(|answer| {
            answer.code().code() == "42501" && answer.routine() == Some("CheckMyDatabase")
        })
    }

    fn code(&self) -> Option<&str> {
        self.answer().map(|answer| answer.code().code())
    }

    fn answer(&self) -> Option<&DbError> {
        match &self.reason {
            Reason::Answer(error) => error.as_db_error(),
            _ => None,
        }
    }

    fn describe(&self) -> String {
        let reason = match &self.reason {
            Reason::Silent(limit) => format!("no answer in {limit:.1?}"),
            Reason::NotTried => "not tried, as there was no time left".to_owned(),
            Reason::UnknownName(problem) => problem.clone(),
            Reason::Standby => {
                "it is a hot standby, which is read-only until it is promoted".to_owned()
            }
            Reason::Tls(failure) => failure.problem.clone(),
            Reason::Answer(error) => {
                match (error.as_db_error(), std::error::Error::source(error)) {
                    // The driver's own text says only that there was an error.
                    (None, Some(cause)) => cause.to_string(),
                    _ => describe(error),
                }
            }
        };
        format!("{}: {reason}", self.server)
    }
}

/// All servers with their reasons.
pub(crate) fn describe_all(refusals: &[Refusal]) -> String {
    let all: Vec<String> = refusals.iter().map(Refusal::describe).collect();
    all.join("; ")
}

/// The error when no server gave a session: transient if one of them may give one later.
pub(crate) fn error(refusals: &[Refusal]) -> Error {
    if refusals.is_empty() {
        return Error::Unavailable("the database URL's hosts have no address".to_owned());
    }
    if !refusals.iter().all(Refusal::is_final) {
        return Error::Unavailable(describe_all(refusals));
    }
    match refusals.iter().all(Refusal::lacks_connect) {
        true => Error::Forbidden(describe_all(refusals)),
        false => Error::NoSession(describe_all(refusals)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_without_an_address_are_a_transient_error() {
        let error = error(&[]);
        assert!(error.is_transient() && error.to_string().contains("no address"), "{error}");
    }
}
