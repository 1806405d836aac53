//! Consuming: streams, pulls, commits, seeks, and reads without a consumer.

pub(crate) mod acquire;
pub(crate) mod commit;
pub(crate) mod delivery;
pub(crate) mod outbox;
pub(crate) mod positions;
pub(crate) mod pull;
pub(crate) mod read;
pub(crate) mod request;
pub(crate) mod seek;
pub(crate) mod stream;
pub(crate) mod stream_limit;
pub(crate) mod wait;
