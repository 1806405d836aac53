//! The options of the commands that use the database. A flag overrides its environment variable, and
//! that the default.

mod connections;
mod forward;
mod http;
mod jwt;
mod listen;
mod tls;
mod traces;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum, builder::BoolishValueParser};

use crate::access::FIRST_ADMINISTRATOR;

pub use connections::ConnectionOptions;
pub use forward::ForwardOptions;
pub use http::{DEFAULT_MAX_SERIES, HttpAddress, HttpOptions};
pub use jwt::JwtOptions;
pub use tls::{ClientAuth, TlsOptions};
pub use traces::TraceOptions;

/// The options of `trunkline serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeOptions {
    /// Address to listen on, as HOST:PORT; port 0 takes a free one, and :PORT alone means all IPv4
    /// addresses of this machine.
    #[arg(long, env = "TRUNKLINE_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:50051", value_parser = listen::parse_listen)]
    pub listen: SocketAddr,

    /// The database.
    #[command(flatten)]
    pub database: DatabaseOptions,

    /// Database connections for publishing; topics are spread over them.
    #[arg(long, env = "TRUNKLINE_WRITERS", value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub writers: u16,

    /// Database connections for everything but publishing and leases.
    #[arg(long, env = "TRUNKLINE_QUERY_CONNECTIONS", value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub query_connections: u16,

    /// Streams that this broker serves, those that wait for a lease included [default: a quarter of
    /// max_locks_per_transaction * (max_connections + max_prepared_transactions)].
    #[arg(long, env = "TRUNKLINE_MAX_STREAMS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: Option<u32>,

    /// Topics that the database may have.
    #[arg(long, env = "TRUNKLINE_MAX_TOPICS", value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_topics: u32,

    /// Producers that a topic may have.
    #[arg(long, env = "TRUNKLINE_MAX_PRODUCERS_PER_TOPIC", value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_producers_per_topic: u32,

    /// Consumers that a topic may have.
    #[arg(long, env = "TRUNKLINE_MAX_CONSUMERS_PER_TOPIC", value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_consumers_per_topic: u32,

    /// How long open streams and calls may take to end when the broker stops.
    #[arg(long, env = "TRUNKLINE_DRAIN_TIMEOUT", value_name = "TIME", default_value = "8s", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,

    /// Whether clients must prove who they are: with `required`, each call needs a token, or a client
    /// certificate, and its principal the grants. `trunkline token bootstrap` creates the first token.
    #[arg(long, env = "TRUNKLINE_AUTH", value_name = "MODE", default_value = "off")]
    pub auth: Auth,

    /// Tokens of an identity provider.
    #[command(flatten)]
    pub jwt: JwtOptions,

    /// TLS and client certificates.
    #[command(flatten)]
    pub tls: TlsOptions,

    /// Accept clients that are neither encrypted nor authenticated on an address that other hosts
    /// can reach. Without this, such an address needs TLS and authentication.
    #[arg(long, env = "TRUNKLINE_INSECURE", value_parser = BoolishValueParser::new())]
    pub insecure: bool,

    /// The HTTP port.
    #[command(flatten)]
    pub http: HttpOptions,

    /// The port for other brokers.
    #[command(flatten)]
    pub forward: ForwardOptions,

    /// Traces.
    #[command(flatten)]
    pub traces: TraceOptions,

    /// Limits of connections.
    #[command(flatten)]
    pub connections: ConnectionOptions,

    /// The log.
    #[command(flatten)]
    pub logging: LogOptions,
}

/// The options of `trunkline migrate`.
#[derive(Args, Clone, Debug)]
pub struct MigrateOptions {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseOptions,

    /// The log.
    #[command(flatten)]
    pub logging: LogOptions,
}

/// The options of `trunkline token bootstrap`.
#[derive(Args, Clone, Debug)]
pub struct BootstrapOptions {
    /// The principal to create.
    #[arg(long, value_name = "NAME", default_value = FIRST_ADMINISTRATOR)]
    pub principal: String,

    /// The database, and the log.
    #[command(flatten)]
    pub database: MigrateOptions,
}

/// Which database to use.
#[derive(Args, Clone, Debug)]
pub struct DatabaseOptions {
    /// PostgreSQL database that holds everything, as postgresql://USER:PASSWORD@HOST:PORT/DATABASE.
    /// Defaults to DATABASE_URL and, without that, to a private PostgreSQL. An empty value is an
    /// error, also in a variable or a file.
    #[arg(long, env = "TRUNKLINE_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// File that holds the database URL, which keeps the password out of sight.
    #[arg(
        long,
        env = "TRUNKLINE_DATABASE_URL_FILE",
        value_name = "FILE",
        conflicts_with = "database_url"
    )]
    pub database_url_file: Option<PathBuf>,

    /// The same database without a pooler in between. Required if the database URL leads to a pooler
    /// in transaction mode: leases, notifications and migrations then use this URL.
    #[arg(long, env = "TRUNKLINE_DIRECT_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub direct_database_url: Option<String>,

    /// File that holds the direct database URL.
    #[arg(
        long,
        env = "TRUNKLINE_DIRECT_DATABASE_URL_FILE",
        value_name = "FILE",
        conflicts_with = "direct_database_url"
    )]
    pub direct_database_url_file: Option<PathBuf>,

    /// Folder of the private PostgreSQL [default: ./trunkline-data].
    #[arg(long, env = "TRUNKLINE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// What is logged unless it is said. Two libraries write lines at `info` that tell operators nothing.
pub(super) const DEFAULT_FILTER: &str = "info,tokio_postgres=warn,refinery_core=warn";

/// What to log, and how.
#[derive(Args, Clone, Debug)]
pub struct LogOptions {
    /// What to log: off, error, warn, info, debug, trace, or filters such as trunkline=debug, which add
    /// to the default. Libraries never log below info, because their details contain payloads.
    #[arg(
        long,
        env = "TRUNKLINE_LOG",
        value_name = "FILTER",
        default_value = DEFAULT_FILTER
    )]
    pub log: String,

    /// How to write the log.
    #[arg(long, env = "TRUNKLINE_LOG_FORMAT", value_name = "FORMAT", default_value = "plain")]
    pub log_format: LogFormat,
}

/// Whether clients must prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Everyone may do everything.
    Off,
    /// Callers may do what they are granted.
    Required,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Plain,
    /// One JSON object a line.
    Json,
}
