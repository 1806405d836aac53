//! How much clients may create in a database, and how many streams a broker serves.

use crate::model::{Allowance, Limit};

/// Limits that an operator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// The streams of this broker, those that wait for a lease included. Each holds an advisory lock
    /// once it has its lease, and PostgreSQL has a table of locks that all sessions share.
    pub streams: usize,
    /// The topics of the database.
    pub topics: usize,
    /// The producers of a topic.
    pub producers_per_topic: usize,
    /// The consumers of a topic.
    pub consumers_per_topic: usize,
}

impl Quotas {
    /// The share of the database's locks that the streams of one broker may hold.
    const SHARE_OF_LOCKS: i64 = 4;

    /// How many streams a broker serves unless it is told: a quarter of what the database has locks
    /// for, as other brokers and programs need some too.
    pub fn streams_for(locks: i64) -> usize {
        usize::try_from(locks / Self::SHARE_OF_LOCKS).unwrap_or(0).max(1)
    }

    /// What a principal may have unless a quota says otherwise: half of what all may have, so that
    /// none can use up everything. Rates have no such measure, so they are not limited.
    pub fn of_principal(&self) -> Allowance {
        let half = |all: usize| (all / 2).max(1) as u64;
        Allowance::default()
            .with(Limit::Streams, half(self.streams))
            .with(Limit::Topics, half(self.topics))
            .with(Limit::Producers, half(self.producers_per_topic))
            .with(Limit::Consumers, half(self.consumers_per_topic))
    }
}

/// The defaults, for a database with the default number of locks.
impl Default for Quotas {
    fn default() -> Self {
        let (topics, producers_per_topic, consumers_per_topic) = (10_000, 10_000, 10_000);
        let streams = Self::streams_for(6_400);
        Self { streams, topics, producers_per_topic, consumers_per_topic }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_may_have_half_of_what_all_may_have_and_publish_as_fast_as_it_can() {
        let quotas = Quotas { streams: 1, topics: 5, ..Quotas::default() };
        let of_principal = quotas.of_principal();
        let values = Limit::ALL.map(|limit| of_principal.get(limit));
        assert_eq!(values, [None, None, Some(1), Some(2), Some(5_000), Some(5_000)]);
    }
}
