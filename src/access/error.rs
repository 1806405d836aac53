//! Why a caller is refused.

use std::{sync::Arc, time::Duration};

use crate::{
    access::jwt::Refusal,
    model::{InvalidInput, Limit, Operation, Principal, QuotaKey, RegistrationKey, TopicName},
    storage,
};

/// Why a caller is refused. No text has any part of a token other than its id.
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages document the variants.
pub enum Error {
    #[error("this broker authenticates its clients, and the call has no token")]
    TokenMissing,
    #[error("the token is malformed: {problem}")]
    TokenMalformed { problem: &'static str },
    #[error("the token is unknown")]
    TokenUnknown,
    #[error("the token has expired")]
    TokenExpired,
    #[error("the token has been revoked")]
    TokenRevoked,
    #[error("{refusal}")]
    Jwt { refusal: Refusal },
    #[error("the token's claim that names the principal {problem}")]
    JwtPrincipal { problem: String },
    #[error("{principal} lacks a grant of {operation} on {topic}")]
    NotGranted { principal: Principal, operation: Operation, topic: String },
    /// The caller has no right on the topic, so it must not learn whether the topic exists.
    #[error("topic {topic} does not exist")]
    TopicHidden { topic: TopicName },
    /// The caller may see only its own registrations, and this is another's.
    #[error("{} {} is not registered on topic {}", .0.id.kind(), .0.id.as_str(), .0.topic)]
    RegistrationHidden(RegistrationKey),
    #[error("{} {} on topic {} belongs to another principal", .0.id.kind(), .0.id.as_str(), .0.topic)]
    NotOwner(RegistrationKey),
    #[error(
        "{} {} on topic {} belongs to nobody; assign it with `trunkline {} assign`",
        .0.id.kind(), .0.id.as_str(), .0.topic, .0.id.kind()
    )]
    NoOwner(RegistrationKey),
    /// There is no such registration, and perhaps no such topic.
    #[error("{} {} is not registered on topic {}", .0.id.kind(), .0.id.as_str(), .0.topic)]
    NotRegistered(RegistrationKey),
    #[error("token {id} does not exist, or is no longer valid")]
    TokenNotFound { id: String },
    /// The token is another principal's, so the caller must not learn whether it exists.
    #[error("token {id} does not exist, or is no longer valid")]
    TokenHidden { id: String },
    #[error("token {id} is rotated by an administrator, or by a call that presents it")]
    NotPresented { id: String },
    #[error("{principal} has no grant of {operation} on {topics}")]
    GrantNotFound { principal: Principal, operation: Operation, topics: String },
    #[error("this grant is the last one of an administrator; add another administrator first")]
    LastAdministrator,
    #[error("{} {limit} valid tokens, which is the limit; revoke one first", whose(.principal))]
    TooManyTokens { principal: Option<Principal>, limit: usize },
    #[error("{} {limit} grants, which is the limit; remove one first", whose(.principal))]
    TooManyGrants { principal: Option<Principal>, limit: usize },
    #[error("there are {limit} quotas, which is the limit; remove one first")]
    TooManyQuotas { limit: usize },
    #[error("{} has no quota of {}", .0.holder, .0.limit)]
    QuotaNotFound(QuotaKey),
    #[error("{principal} publishes more than {value} {limit}; nothing was stored")]
    RateExceeded { principal: Principal, limit: Limit, value: u64, wait: Duration },
    #[error("{principal} has {limit} streams open on this broker, which is its limit")]
    TooManyStreams { principal: Principal, limit: usize },
    #[error("{principal} has {limit} {what} already, which is its limit")]
    OwnerFull { principal: Principal, what: Limit, limit: usize },
    #[error("the database has not confirmed tokens and grants lately")]
    Unconfirmed,
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// The database failed while it read.
    #[error("read the database: {0}")]
    Read(Arc<storage::Error>),
    /// The database failed while it wrote.
    #[error("write to the database: {0}")]
    Write(Arc<storage::Error>),
}

impl Error {
    pub(crate) fn of_read(error: storage::Error) -> Self {
        Self::Read(Arc::new(error))
    }

    /// Why a token of an identity provider is refused, with the reasons of the broker's own tokens
    /// where they fit.
    pub(crate) fn of_jwt(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(problem) => Self::TokenMalformed { problem },
            Refusal::Expired => Self::TokenExpired,
            refusal => Self::Jwt { refusal },
        }
    }

    pub(crate) fn of_write(error: storage::Error) -> Self {
        Self::Write(Arc::new(error))
    }

    /// How long to wait before a retry, if one may help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateExceeded { wait, .. } => Some(*wait),
            // Streams end.
            Self::TooManyStreams { .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Whether it concerns the caller as such, so that a stream of requests must end.
    pub fn is_of_caller(&self) -> bool {
        matches!(
            self,
            Self::TokenMissing
                | Self::TokenMalformed { .. }
                | Self::TokenUnknown
                | Self::TokenExpired
                | Self::TokenRevoked
                | Self::Jwt { .. }
                | Self::JwtPrincipal { .. }
                | Self::Unconfirmed
        )
    }
}

fn whose(principal: &Option<Principal>) -> String {
    match principal {
        Some(principal) => format!("{principal} has"),
        None => "there are".to_owned(),
    }
}
