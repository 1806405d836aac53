//! Why no session could be opened: each server's own reason.

use std::time::Duration;

use tokio_postgres::error::DbError;

use crate::storage::error::{Error, describe};

/// Why one server gave no session.
pub(crate) struct Refusal {
    /// Its host and port.
    pub server: String,
    pub reason: Reason,
}

/// What became of a request for a session.
pub(crate) enum Reason {
    /// No answer in time.
    Silent(Duration),
    /// The others took all the time that there was.
    NotTried,
    /// The name cannot be looked up.
    Unknown(String),
    /// The server takes no writes.
    Standby,
    /// What the server, or the network, answered.
    Answer(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Reason {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Answer(error)
    }
}

impl Refusal {
    /// Whether the server does not take what the request asks for besides a session.
    pub(crate) fn is_of_the_request(&self) -> bool {
        let Some(answer) = self.answer() else { return false };
        match answer.code().code() {
            // An unknown setting; its value; a setting that takes a privilege.
            "42704" | "22023" | "0A000" | "42501" => true,
            // PgBouncer gives all errors of its own this code. Only `unsupported startup
            // parameter` stays; the others pass: its server is down, or it has too many clients.
            "08P01" => answer.message().contains("startup parameter"),
            _ => false,
        }
    }

    /// Whether the server would say the same next time: a wrong password, no such role, no such
    /// database, a setting that it does not take.
    fn is_final(&self) -> bool {
        self.is_of_the_request()
            || self.code().is_some_and(|code| code.starts_with("28") || code == "3D000")
    }

    /// Whether the role may not connect to the database. The text is in the server's language, so
    /// the function that refused it tells.
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
            Reason::Unknown(problem) => problem.clone(),
            Reason::Standby => {
                "it is a hot standby, which is read-only until it is promoted".to_owned()
            }
            Reason::Answer(error) => {
                match (error.as_db_error(), std::error::Error::source(error)) {
                    // The driver's own words only say that there was an error.
                    (None, Some(cause)) => cause.to_string(),
                    _ => describe(error),
                }
            }
        };
        format!("{}: {reason}", self.server)
    }
}

/// All servers with their reasons.
pub(crate) fn tell(refusals: &[Refusal]) -> String {
    let all: Vec<String> = refusals.iter().map(Refusal::describe).collect();
    all.join("; ")
}

/// The error of a session that no server gave: transient if one of them may give it later.
pub(crate) fn error(refusals: &[Refusal]) -> Error {
    if refusals.is_empty() {
        return Error::Unavailable("the database URL's hosts have no address".to_owned());
    }
    if !refusals.iter().all(Refusal::is_final) {
        return Error::Unavailable(tell(refusals));
    }
    match refusals.iter().all(Refusal::lacks_connect) {
        true => Error::Forbidden(tell(refusals)),
        false => Error::NoSession(tell(refusals)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_without_an_address_are_waited_for_and_said() {
        let error = error(&[]);
        assert!(error.is_transient() && error.to_string().contains("no address"), "{error}");
    }
}
