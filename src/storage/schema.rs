//! The schema: its migrations, its functions, and the privileges that a broker's role needs on it.

mod functions;
mod migrate;
mod privileges;

pub use migrate::SchemaVersion;
pub(super) use migrate::migrate;
pub(super) use privileges::{explain_refusal, require_use_of_pooled_sessions};
