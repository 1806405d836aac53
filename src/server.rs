//! Binds the broker to a port and a database, and drains it at the end.

mod accept;
mod admission;
mod cancellations;
mod connection;
mod database;
mod descriptors;
mod error;
mod exposure;
mod handshake;
pub(crate) mod health;
mod lifetime;
mod log_dedup;
mod logs;
mod open_calls;
pub mod options;
mod run;
mod serve;
mod signals;
mod tls;
mod write_progress;

pub use error::Error;
pub use run::run;
pub use serve::serve;
pub use tls::LoadError;
