//! Opens every session with the database: nothing else connects.

mod address;
mod connect;
mod drive;
mod parameters;
mod refusal;
mod tls;
mod url;

pub(super) use connect::Connector;
pub(super) use drive::{Driver, drive_while};
pub use url::{check_url, redacted};
