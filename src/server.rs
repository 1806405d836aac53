//! Binds the broker to a port and a database, and drains it at the end.

mod accept;
mod cancellations;
mod connection;
mod database;
mod descriptors;
mod error;
pub(crate) mod health;
mod log_dedup;
mod logs;
mod migrate;
pub mod options;
mod run;
mod serve;
mod signals;

pub use error::Error;
pub use migrate::migrate;
pub use run::run;
pub use serve::serve;
