//! Opens every session with the database: nothing else connects.

mod connect;
mod refusal;
mod url;

pub(super) use connect::{Connector, Driver, drive_while};
pub use url::{check_url, redacted};
