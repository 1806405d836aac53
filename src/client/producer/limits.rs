//! How much a producer may gather, and for how long.

use std::time::Duration;

use crate::{client::error::Error, proto::MAX_REQUEST_MESSAGES};

const MIB: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug)]
pub(in crate::client) struct Limits {
    /// How long a request gathers messages while others are unanswered.
    pub(in crate::client) linger: Duration,
    pub(in crate::client) request_messages: usize,
    pub(in crate::client) request_bytes: usize,
    /// Bytes of all messages without an answer.
    pub(in crate::client) buffered_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(1),
            request_messages: 4_000,
            request_bytes: MIB,
            buffered_bytes: 32 * MIB,
        }
    }
}

impl Limits {
    /// Refuses limits that no producer can keep, by the names of the builder's options.
    pub(in crate::client) fn check(&self) -> Result<(), Error> {
        let linger = self.linger <= Duration::from_secs(600);
        check_option("linger", linger, "at most 10 minutes")?;
        let messages = (1..=MAX_REQUEST_MESSAGES).contains(&self.request_messages);
        check_option("max_batch_messages", messages, "1 to 10,000")?;
        let bytes = (1..=8 * MIB).contains(&self.request_bytes);
        check_option("max_batch_bytes", bytes, "1 B to 8 MiB")?;
        let buffered = (2 * MIB..=1024 * MIB).contains(&self.buffered_bytes);
        check_option("max_buffered_bytes", buffered, "2 MiB to 1 GiB")
    }
}

fn check_option(field: &'static str, fits: bool, range: &str) -> Result<(), Error> {
    match fits {
        true => Ok(()),
        false => Err(Error::Invalid { field, problem: format!("must be {range}") }),
    }
}
