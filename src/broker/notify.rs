//! Notifications between brokers, over PostgreSQL's NOTIFY.
//!
//! NOTIFY holds a lock of the whole cluster until its transaction ends, so publishes do not use it:
//! a broker gathers notifications for a few milliseconds and sends them in a transaction of its
//! own. If one gets lost, polling makes up for it within a second.

pub(crate) mod listen;
pub(crate) mod outbox;
#[cfg(test)]
mod tests;
