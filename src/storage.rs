//! All SQL. One statement a function, its name as the statement's first line, so that slow-query
//! logs speak our language; nobody else sees the database's driver.
//!
//! Guarantees: what a function says it wrote is committed, and flushed to disk, when it returns.
//! An error says whether nothing was written or whether that is unknown ([`Error`]).

mod append;
mod arrays;
mod connect;
mod consumers;
mod error;
mod lease;
mod listen;
mod migrate;
mod positions;
mod producers;
mod pull;
mod read;
mod retention;
mod topics;

use std::time::Duration;

use deadpool_postgres::{Object, Pool};

pub use append::{Appended, Writer};
pub use connect::{Limits, redacted};
pub use error::Error;
pub use lease::{Begun, ClaimToken, LeaseSession, Seen};
pub use listen::{Heard, ListenSession, WakeUpSender};
pub use positions::{Advance, Stored};
pub use pull::Pulled;
pub use read::Log;
pub use retention::Deleted;

/// A database that Trunkline keeps everything in.
pub struct Storage {
    /// As the user gave it; each kind of connection adds its name.
    config: tokio_postgres::Config,
    query: Pool,
    writer: Pool,
    position: Pool,
}

impl Storage {
    /// Connects to the database at `url` and brings its schema up to date.
    pub async fn open(url: &str, limits: Limits) -> Result<Self, Error> {
        let storage = Self::with_pools(url, limits)?;
        migrate::run(&storage.config).await?;
        Ok(storage)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.query().await?.simple_query("-- ping\nselect 1").await?;
        Ok(())
    }

    /// Closes all pooled connections; whoever waits for one gets an error.
    pub fn close(&self) {
        for pool in [&self.query, &self.writer, &self.position] {
            pool.close();
        }
    }

    async fn query(&self) -> Result<Object, Error> {
        Ok(self.query.get().await?)
    }
}

/// How long to wait for a connection before the database counts as down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
