//! All SQL. One statement a function, its name as the statement's first line, so that slow-query
//! logs speak our language; nobody else sees the database's driver.
//!
//! Guarantees: what a function says it wrote is committed, and flushed to disk, when it returns.
//! An error says whether nothing was written or whether that is unknown ([`Error`]).

mod append;
mod column;
mod connector;
mod consumer;
mod error;
mod last_batch;
mod lease;
mod measure;
mod notify;
mod position;
mod primary;
mod probe;
mod producer;
mod pull;
mod read;
mod retention;
mod schema;
mod session;
mod settings;
mod text;
mod topic;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

pub use append::{Appended, Writer};
pub use connector::{check_url, redacted};
pub use error::Error;
pub(crate) use error::chain;
pub use last_batch::{FoundLog, LastBatch, MissingBatch};
pub use lease::{ClaimToken, EpochStart, LeaseChange, LeaseSession};
pub use measure::{Counters, Meter};
pub use notify::{ListenSession, NotificationSender, Received};
pub use position::{Advance, Stored};
pub use primary::Server;
pub use pull::Pulled;
pub use read::LogSlice;
pub use retention::Deleted;
pub use session::Limits;
pub use settings::ServerSettings;

use connector::Connector;
use primary::Servers;
use session::{Session, Sessions};

/// A database that Trunkline keeps everything in.
pub struct Storage {
    /// Goes straight to the server, for sessions that must last; each kind adds its name.
    direct: Connector,
    query: Sessions,
    writer: Sessions,
    position: Sessions,
    /// How many sessions were opened.
    opened: Arc<AtomicU64>,
    servers: Arc<Servers>,
    notifies: bool,
    /// The encoding of the database's text, as PostgreSQL calls it.
    encoding: String,
}

impl Storage {
    /// How many sessions were opened so far. Each counts before it is used.
    pub fn sessions_opened(&self) -> Arc<AtomicU64> {
        self.opened.clone()
    }

    /// Connects to the database at `url` and brings its schema up to date. If `url` leads to a
    /// pooler, `direct_url` must lead straight to the same database.
    pub async fn open(url: &str, direct_url: Option<&str>, limits: Limits) -> Result<Self, Error> {
        let connector = Connector::new(url)?;
        let (direct, lends) = match direct_url {
            Some(direct_url) => (Connector::new(direct_url)?, Some(connector)),
            None => (connector, None),
        };
        let connected = probe::in_time(direct.clone().with_settings_of_the_start()).await;
        let direct = connected.map_err(|error| schema::of_connection(error, direct.config()))?;
        let mut storage = Self::with_pools(direct, lends, limits)?;
        probe::in_time(probe::prove_that_sessions_last(&storage.direct)).await?;
        if direct_url.is_some() {
            probe::in_time(probe::prove_that_databases_are_one(&storage)).await?;
        }
        probe::in_time(probe::prove_that_sessions_are_set_up(&storage)).await?;
        schema::run(&storage.direct).await?;
        if direct_url.is_some() {
            probe::in_time(storage.require_use_of_lent_sessions()).await?;
        }
        let arrive = probe::find_whether_notifications_arrive(&storage);
        storage.notifies = probe::in_time(arrive).await?;
        storage.encoding = probe::in_time(text::find_encoding(&storage)).await?;
        Ok(storage)
    }

    /// Whether a session hears what another one notifies; not on every kind of server.
    pub fn notifies(&self) -> bool {
        self.notifies
    }

    /// Closes all pooled connections; whoever waits for one gets an error.
    pub fn close(&self) {
        for sessions in [&self.query, &self.writer, &self.position] {
            sessions.pool.close();
        }
    }

    async fn query(&self) -> Result<Session, Error> {
        self.query.get().await
    }
}

/// How long to wait for a session before the database counts as down: for one that is free, and
/// then for a new one, connected and set up.
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);
