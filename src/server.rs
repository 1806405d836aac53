//! Binds the broker to a port and a database, and drains it at the end.

mod accept;
mod admission;
mod bootstrap;
mod cancellations;
mod connection;
mod database;
mod descriptors;
mod error;
mod exposure;
mod forward_port;
mod handshake;
pub(crate) mod health;
mod http;
mod lifetime;
mod log_dedup;
mod logs;
mod migrate;
mod open_calls;
pub mod options;
mod read_gate;
mod rules;
mod run;
mod serve;
mod signals;
mod tls;
mod write_progress;

pub use bootstrap::{bootstrap, print_first_token};
pub use error::Error;
pub use migrate::migrate;
pub use run::{Authentication, run, run_with};
pub use serve::serve;
