//! What can go wrong with the database. The only place that reads SQLSTATE.

use deadpool::managed::{PoolError, TimeoutType};
use tokio_postgres::error::{Severity, SqlState};

use super::timeout::SESSION_TIMEOUT;

/// Why a statement failed, and what is known about its effect.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session could be opened, or the server refused the work: nothing was done.
    #[error("reach the database: {0}")]
    Unavailable(String),
    /// No server gives a session, and a retry would not help: a wrong password, or no such
    /// database. Nothing was done.
    #[error("connect to the database: {0}")]
    NoSession(String),
    /// A session cannot be given a setting that the broker relies on.
    #[error("set a session up: {0}")]
    Setting(String),
    /// The broker is stopping and has closed its connections: nothing was done.
    #[error("reach the database: its connections are closed")]
    Closed,
    /// The connection was lost while a statement ran: its outcome is unknown.
    #[error("receive from the database: {0}")]
    ConnectionLost(String),
    /// Another session held a lock for too long, or a deadlock was broken: nothing was done.
    #[error("lock a row: {0}")]
    Locked(String),
    /// What a statement had checked changed before it could write: nothing was done, and the
    /// statement may be retried at once.
    #[error("store a batch: a producer changed meanwhile")]
    ChangedMeanwhile,
    /// The name is taken.
    #[error("store a name: it is taken")]
    Taken,
    /// The database refuses one of a statement's values, without saying which: nothing was done,
    /// and a retry does not help.
    #[error("convert or store a value: {0}")]
    Refused(String),
    /// The row that a new row refers to is gone.
    #[error("store a row: the row that it refers to is gone")]
    ParentGone,
    /// All numbers that identify topics, or consumers, are used up.
    #[error("store a name: there is no number left for it")]
    NumbersUsedUp,
    /// There are as many topics, producers or consumers as allowed.
    #[error("store a name: there are as many as allowed")]
    Full,
    /// A principal has as many topics, producers or consumers as it may.
    #[error("store a name: its owner has as many as allowed")]
    OwnerFull,
    /// The database has a schema that this broker does not know.
    #[error(
        "use the schema: the database is at version {found}, and this broker knows up to {known}; \
         a newer broker, or its `trunkline migrate`, has changed it: run a newer broker"
    )]
    NewerSchema {
        /// The version the database is at.
        found: i32,
        /// The newest version this broker knows.
        known: i32,
    },
    /// The database has an older schema than this broker needs, or none, and the role may not change
    /// it.
    #[error(
        "use the schema: the database is at version {found}, this broker needs {known}, and role \
         {role} may not change it; run `trunkline migrate` of this version as {owner} first"
    )]
    OlderSchema {
        /// The version the database is at; 0 without tables.
        found: i32,
        /// The version that this broker needs.
        known: i32,
        /// The broker's role in the database.
        role: String,
        /// A role that owns the schema.
        owner: String,
    },
    /// The database has other functions than this broker needs, and the role may not change them.
    #[error(
        "use the schema: its functions are not those of this broker, and role {role} may not change \
         them; run `trunkline migrate` of this version as {owner} first"
    )]
    OtherFunctions {
        /// The broker's role in the database.
        role: String,
        /// A role that owns the schema.
        owner: String,
    },
    /// The URL cannot be used.
    #[error("read the database URL: {0}")]
    Url(String),
    /// A session does not stay the same one from transaction to transaction.
    #[error(
        "use the database: sessions do not last there, as behind a pooler in transaction mode \
         (PgBouncer), but leases and notifications need sessions that do; give --direct-database-url \
         (TRUNKLINE_DIRECT_DATABASE_URL) a URL that goes straight to PostgreSQL"
    )]
    Pooled,
    /// Two sessions held one advisory lock at the same time.
    #[error(
        "use the database: advisory locks do not exclude each other there, so that two streams \
         could read for one consumer at the same time; run Trunkline on PostgreSQL itself"
    )]
    LocksDoNotExclude,
    /// The database URL and the direct one lead to different databases.
    #[error(
        "use the database: the direct database URL leads to another one than the database URL does"
    )]
    DifferentDatabases,
    /// The role lacks privileges that a broker needs.
    #[error(
        "use the database: role {role} lacks privileges; a superuser or the owner grants them with:\n{}",
        list(.statements)
    )]
    MissingPrivileges {
        /// The broker's role in the database.
        role: String,
        /// Statements that grant everything that is missing.
        statements: Vec<String>,
    },
    /// The role lacks the privilege for a statement: nothing was done.
    #[error("run a statement that the broker's role has no privilege for: {0}")]
    Forbidden(String),
    /// The schema could not be brought up to date.
    #[error("migrate the schema: {0}")]
    Migration(String),
    /// The server met a fault of its own (XX000): nothing was done, and it may be tried again.
    #[error("run a statement: {0}")]
    Fault(String),
    /// The server failed a statement for a reason that the broker does not know, as where a trigger
    /// or a constraint that an operator added refuses a row: nothing was done.
    #[error("run a statement: {0}")]
    Failed(String),
    /// Something that should not happen: the driver cannot make sense of a value or an answer.
    #[error("run a statement: {0}")]
    Unexpected(String),
}

impl Error {
    /// Whether a later retry may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::ConnectionLost(_) | Self::Locked(_))
    }

    /// Whether the server itself failed a statement that it was given, and its transaction with it:
    /// then nothing was done, and a part of the same work may succeed. Not so where the whole
    /// server refuses work, where a lock was waited for, or where the outcome is unknown.
    pub fn is_of_a_statement(&self) -> bool {
        match self {
            Self::Refused(_)
            | Self::Fault(_)
            | Self::Failed(_)
            // A trigger can raise, or run into, each of these.
            | Self::Taken
            | Self::ParentGone
            | Self::NumbersUsedUp
            | Self::Forbidden(_) => true,
            Self::Unavailable(_)
            | Self::NoSession(_)
            | Self::Setting(_)
            | Self::Closed
            | Self::ConnectionLost(_)
            | Self::Locked(_)
            | Self::ChangedMeanwhile
            | Self::Full
            | Self::OwnerFull
            | Self::NewerSchema { .. }
            | Self::OlderSchema { .. }
            | Self::OtherFunctions { .. }
            | Self::Url(_)
            | Self::Pooled
            | Self::LocksDoNotExclude
            | Self::DifferentDatabases
            | Self::MissingPrivileges { .. }
            | Self::Migration(_)
            | Self::Unexpected(_) => false,
        }
    }

    pub(super) fn unexpected(problem: impl std::fmt::Display) -> Self {
        Self::Unexpected(problem.to_string())
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(state) = error.code() else {
            // The error is not the server's: a broken connection, or a value that cannot be
            // decoded.
            return if error.is_closed()
                || std::error::Error::source(&error)
                    .is_some_and(|source| source.is::<std::io::Error>())
            {
                Self::ConnectionLost(describe(&error))
            } else {
                Self::Unexpected(describe(&error))
            };
        };
        match state.code() {
            "TL001" => Self::ChangedMeanwhile,
            _ if *state == SqlState::UNIQUE_VIOLATION => Self::Taken,
            _ if *state == SqlState::FOREIGN_KEY_VIOLATION => Self::ParentGone,
            _ if *state == SqlState::INSUFFICIENT_PRIVILEGE => Self::Forbidden(describe(&error)),
            _ if *state == SqlState::SEQUENCE_GENERATOR_LIMIT_EXCEEDED => Self::NumbersUsedUp,
            _ if *state == SqlState::LOCK_NOT_AVAILABLE
                || *state == SqlState::T_R_DEADLOCK_DETECTED
                || *state == SqlState::T_R_SERIALIZATION_FAILURE =>
            {
                Self::Locked(describe(&error))
            }
            // A session that the server ends (57P.., or with any code, such as a PANIC on a full
            // disk) may have committed before it ended. 40003 says that this is not known.
            code if code.starts_with("57P")
                || code.starts_with("08")
                || code == "40003"
                || ends_the_session(&error) =>
            {
                Self::ConnectionLost(describe(&error))
            }
            // A standby refuses to begin a transaction that writes.
            "0A000" if is_refusal_to_write(&error) => Self::Unavailable(describe(&error)),
            // Out of disk, memory or connections (53); a cancelled statement (57); a standby
            // (25006).
            code if code.starts_with("53") || code.starts_with("57") || code == "25006" => {
                Self::Unavailable(describe(&error))
            }
            // A value of the wrong kind, such as a character that the database's encoding lacks
            // (22P05), or one that is too large (54000).
            code if code.starts_with("22") || code == "54000" => Self::Refused(describe(&error)),
            // Faults of the server's own, of which some pass: a row lock that meets an update which
            // is just being rolled back may end with `new multixact has more than one updating
            // member`. Damaged data (XX001, XX002) is not among them.
            "XX000" => Self::Fault(describe(&error)),
            _ => Self::Failed(describe(&error)),
        }
    }
}

impl From<PoolError<Error>> for Error {
    fn from(error: PoolError<Error>) -> Self {
        match error {
            // No statement was sent yet, so its outcome cannot be unknown.
            PoolError::Backend(
                Self::Unavailable(problem)
                | Self::ConnectionLost(problem)
                | Self::Fault(problem)
                | Self::Failed(problem)
                | Self::Unexpected(problem),
            ) => Self::Unavailable(problem),
            PoolError::Backend(error) => error,
            PoolError::Closed => Self::Closed,
            PoolError::Timeout(TimeoutType::Wait) => {
                Self::Unavailable(format!("no session was free in {SESSION_TIMEOUT:?}"))
            }
            other => Self::Unavailable(chain(&other)),
        }
    }
}

fn list(statements: &[String]) -> String {
    let lines: Vec<String> =
        statements.iter().map(|statement| format!("    {statement};")).collect();
    lines.join("\n")
}

/// The driver's error with the server's own text, for the log. Never for a client: it may show SQL.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(answer), _) => format!("{} ({})", answer.message(), answer.code().code()),
        (None, _) => chain(error),
    }
}

/// An error with all its causes: the outermost often says only that something failed.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn ends_the_session(error: &tokio_postgres::Error) -> bool {
    let severity = error.as_db_error().and_then(|answer| answer.parsed_severity());
    severity.is_some_and(|severity| matches!(severity, Severity::Fatal | Severity::Panic))
}

fn is_refusal_to_write(error: &tokio_postgres::Error) -> bool {
    let routine = error.as_db_error().and_then(|answer| answer.routine());
    routine
        .is_some_and(|name| ["check_transaction_read_only", "check_XactReadOnly"].contains(&name))
}
