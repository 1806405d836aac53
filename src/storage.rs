//! All SQL. Each function runs one statement, whose first line is its name, so that slow-query logs
//! use the names of this code. Nothing outside knows the database's driver.
//!
//! Guarantees: what a function says it wrote is committed, and flushed to disk, when it returns.
//! An error says whether nothing was written or whether that is unknown ([`Error`]). Statements of
//! [`Storage`] and [`Writer`] have time limits; the callers of [`LeaseSession`], [`ListenSession`]
//! and [`NotificationSender`] set their own.

mod access;
mod append;
mod audit;
mod backlog;
mod column;
mod connector;
mod consumer;
mod database;
mod dead_letters;
mod endpoint;
mod error;
mod last_batch;
mod lease;
mod measure;
mod notify;
mod open;
mod overview;
mod parked;
mod position;
mod primary;
mod probe;
mod producer;
mod pull;
mod read;
mod relay;
mod retention;
mod schema;
mod session;
mod settings;
mod subscription;
mod text;
mod timeout;
mod topic;

pub use access::{
    AccessChange, AccessVersion, FirstAdministrator, MAX_GRANTS, MAX_GRANTS_OF_PRINCIPAL,
    MAX_QUOTAS, MAX_TOKENS, MAX_TOKENS_OF_PRINCIPAL, NewToken, Owned, OwnersVersion, Rotation,
    Standing, TokenEnd, ValidToken,
};
pub use append::{Appended, Writer};
pub use backlog::{StoredBacklog, StoredTime};
pub use connector::{check_url, redacted};
pub use consumer::NewConsumer;
pub use database::Storage;
pub use dead_letters::DeadLetterOutcome;
pub use error::Error;
pub(crate) use error::chain;
pub use last_batch::{FoundLog, LastBatch, MissingBatch};
pub use lease::{Claim, ClaimToken, EpochStart, LeaseChange, LeaseSession};
pub use measure::{Counters, Meter};
pub use notify::{ListenSession, NotificationSender, Received};
pub use open::migrate;
pub use overview::{
    CatalogueSize, ConsumerState, OutboxState, ServerState, TableState, TopicState,
};
pub use position::{Advance, FreeAdvances, SeekOutcome, Stored};
pub use primary::Server;
pub use producer::Registrations;
pub use pull::{Choice, Pull, Pulled};
pub use read::LogSlice;
pub use relay::{
    Left as OutboxLeft, Moved, Pass as OutboxPass, Progress as OutboxProgress, Scope as OutboxScope,
};
pub use retention::Deleted;
pub use schema::SchemaVersion;
pub use session::{Limits, PoolState, RowLocks, SessionShare};
pub use settings::ServerSettings;
pub use subscription::{
    DeadLetters, MessageChange, StoreOutcome, StoredReservation, StoredRetry, StoredSubscription,
    SubscriptionWrite,
};
