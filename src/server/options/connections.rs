//! The options that limit connections.

use std::{num::NonZeroUsize, time::Duration};

use clap::Args;

const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
const MAX_CONNECTIONS_PER_ADDRESS: NonZeroUsize = NonZeroUsize::new(1_000).expect("not zero");

/// The options that limit connections.
#[derive(Args, Clone, Debug)]
pub struct ConnectionOptions {
    /// How many connections may be open at a time. The limit of open files may allow fewer.
    #[arg(
        long,
        env = "TRUNKLINE_MAX_CONNECTIONS",
        value_name = "N",
        default_value_t = MAX_CONNECTIONS
    )]
    pub max_connections: NonZeroUsize,

    /// How many connections of one client address may be open at a time. IPv6 addresses of one /64
    /// network count as one.
    #[arg(
        long,
        env = "TRUNKLINE_MAX_CONNECTIONS_PER_ADDRESS",
        value_name = "N",
        default_value_t = MAX_CONNECTIONS_PER_ADDRESS
    )]
    pub max_connections_per_address: NonZeroUsize,

    /// How long a connection may stay open without a call; 0s is for ever.
    #[arg(long, env = "TRUNKLINE_MAX_IDLE", value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub max_idle: Duration,

    /// How old a connection may become before its client is asked to open another one, less up to a
    /// tenth; 0s is any age.
    #[arg(long, env = "TRUNKLINE_MAX_CONNECTION_AGE", value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub max_connection_age: Duration,

    /// How long the calls of a connection that has become too old may go on.
    #[arg(long, env = "TRUNKLINE_MAX_CONNECTION_AGE_GRACE", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub max_connection_age_grace: Duration,
}

impl ConnectionOptions {
    pub(in crate::server) fn max_idle(&self) -> Option<Duration> {
        Some(self.max_idle).filter(|time| !time.is_zero())
    }

    pub(in crate::server) fn max_age(&self) -> Option<Duration> {
        Some(self.max_connection_age).filter(|time| !time.is_zero())
    }
}

impl Default for ConnectionOptions {
    /// The defaults of the flags.
    fn default() -> Self {
        Self {
            max_connections: MAX_CONNECTIONS,
            max_connections_per_address: MAX_CONNECTIONS_PER_ADDRESS,
            max_idle: Duration::from_secs(600),
            max_connection_age: Duration::ZERO,
            max_connection_age_grace: Duration::from_secs(30),
        }
    }
}
