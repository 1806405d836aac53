//! Measures what a run uses: of the database, if its URL is known, and of processes on this
//! machine.

use std::time::{Duration, Instant};

use super::super::failure::Failure;
#[cfg(target_os = "linux")]
use super::process;
use crate::storage::{Counters, Meter};

pub(super) struct Meters {
    database: Option<Meter>,
    /// The broker's process.
    broker: Option<i32>,
    /// The prefix of the names of the run's topics.
    topics: String,
}

/// What has been used up to a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) at: Instant,
    pub(super) database: Option<Counters>,
    pub(super) broker_cpu: Option<Duration>,
    /// In bytes.
    pub(super) broker_memory: Option<u64>,
    pub(super) postgres_cpu: Option<Duration>,
}

impl Meters {
    pub(super) async fn open(
        endpoint: &str,
        database_url: Option<&str>,
        topics: &str,
    ) -> Result<Self, Failure> {
        let failed = |error| Failure::refused(format!("measure the database: {error}"));
        let database = match database_url {
            Some(url) => Some(Meter::connect(url).await.map_err(failed)?),
            None => None,
        };
        let port = endpoint.rsplit(':').next().and_then(|port| port.parse().ok());
        Ok(Self { database, broker: port.and_then(process::listener), topics: topics.to_owned() })
    }

    pub(super) async fn read(&self) -> Result<Usage, Failure> {
        let failed = |error| Failure::refused(format!("measure the database: {error}"));
        let database = match &self.database {
            Some(meter) => Some(meter.read(&self.topics).await.map_err(failed)?),
            None => None,
        };
        let postmaster = database.and_then(|counters| process::parent(counters.backend));
        Ok(Usage {
            at: Instant::now(),
            database,
            broker_cpu: self.broker.and_then(process::cpu),
            broker_memory: self.broker.and_then(process::memory),
            postgres_cpu: postmaster.and_then(process::cpu_with_children),
        })
    }
}

/// Processes are only measured on Linux.
#[cfg(not(target_os = "linux"))]
mod process {
    use std::time::Duration;

    pub(super) fn listener(_port: u16) -> Option<i32> {
        None
    }

    pub(super) fn parent(_pid: i32) -> Option<i32> {
        None
    }

    pub(super) fn cpu(_pid: i32) -> Option<Duration> {
        None
    }

    pub(super) fn cpu_with_children(_pid: i32) -> Option<Duration> {
        None
    }

    pub(super) fn memory(_pid: i32) -> Option<u64> {
        None
    }
}
