//! Notifications between brokers, over PostgreSQL's NOTIFY.
//!
//! NOTIFY takes a lock of the whole cluster until its transaction ends, so publishing does without: a
//! broker sends what has gathered in a few milliseconds in a transaction of its own. A notification
//! may get lost; polls find within a second what it would have said.

pub(crate) mod listen;
pub(crate) mod outbox;
#[cfg(test)]
mod tests;
