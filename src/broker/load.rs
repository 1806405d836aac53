//! How busy a broker is, as of now.

use std::time::SystemTime;

use crate::broker::{budget::Used, lease::registry::Waiting, log::cache::CacheUse};

/// How busy a broker is.
#[derive(Clone, Debug)]
pub struct Load {
    /// Whether the database answers.
    pub database_up: bool,
    /// Whether other brokers' notifications are received.
    pub hears_others: bool,
    /// Whether the broker drains.
    pub is_draining: bool,
    /// Streams, those that wait for a lease included.
    pub streams: Used,
    /// Bytes of publishes, from their arrival to their answer.
    pub publish_bytes: Used,
    /// Publishes that wait for a writer.
    pub queued_publishes: Used,
    /// The batch cache.
    pub cache: CacheUse,
    /// Streams that wait for a consumer's lease, by consumer. Consumers that no stream waits for are
    /// left out.
    pub waiting: Vec<Waiting>,
    /// How many truncations of logs were found.
    pub truncations: u64,
    /// When this broker last finished removing expired messages; `None` if it has not.
    pub swept_at: Option<SystemTime>,
}
