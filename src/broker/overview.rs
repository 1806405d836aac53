//! What there is in the database, as of a moment: for metrics and for people.
//!
//! All who ask share one reading, which is at most about a second old. While nobody asks, nothing is
//! read. A database that takes long to answer is asked less often.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use tokio::{sync::Mutex, time};

use crate::{
    model::{ConsumerKey, Offset},
    storage::{self, CatalogueSize, ConsumerState, ServerState, Storage, TopicState},
};

/// How old a reading may be before somebody who asks gets a new one.
const MAX_AGE: Duration = Duration::from_secs(1);

/// A reading may be older if it took long: a broker keeps the database busy with them for at most a fifth of the time.
const PAUSE: u32 = 4;

/// How long a reading may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How much a reading lists.
#[derive(Clone, Copy, Debug)]
pub struct OverviewLimits {
    /// How many topics.
    pub topics: usize,
    /// How many consumers of all topics.
    pub consumers: usize,
}

/// Reads what there is in the database.
pub struct Overview {
    storage: Arc<Storage>,
    limits: OverviewLimits,
    latest: RwLock<Option<Arc<Snapshot>>>,
    /// When the position of each consumer last moved, as far as readings have shown. Locked by whoever
    /// reads, so that the others wait for what it finds.
    reading: Mutex<HashMap<ConsumerKey, Moved>>,
}

/// What there was in the database at a moment.
#[derive(Debug)]
pub struct Snapshot {
    /// When that was.
    pub taken_at: Instant,
    /// How long it took to find out.
    pub took: Duration,
    /// How much there is in all.
    pub size: CatalogueSize,
    /// The first topics, by name.
    pub topics: Vec<TopicState>,
    /// The first consumers, by topic and id.
    pub consumers: Vec<ConsumerState>,
    /// How the server was doing; `None` if it does not say.
    pub server: Option<ServerState>,
}

/// Where a consumer's position has been, and since when.
struct Moved {
    position: Offset,
    at: Instant,
}

impl Overview {
    /// Reads from a database, once somebody asks.
    pub fn new(storage: Arc<Storage>, limits: OverviewLimits) -> Self {
        Self { storage, limits, latest: RwLock::default(), reading: Mutex::default() }
    }

    /// How much a reading lists.
    pub fn limits(&self) -> OverviewLimits {
        self.limits
    }

    /// The latest reading, however old it is; `None` before the first.
    pub fn latest(&self) -> Option<Arc<Snapshot>> {
        self.latest.read().clone()
    }

    /// A reading of about now.
    pub async fn current(&self) -> Result<Arc<Snapshot>, storage::Error> {
        if let Some(recent) = self.recent() {
            return Ok(recent);
        }
        let mut moved = self.reading.lock().await;
        // Somebody else may have read meanwhile.
        if let Some(recent) = self.recent() {
            return Ok(recent);
        }
        let began = Instant::now();
        let read = time::timeout(READ_TIMEOUT, self.read()).await;
        let mut snapshot = read.unwrap_or_else(|_| {
            let problem = format!("the overview was not read in {READ_TIMEOUT:?}");
            Err(storage::Error::Unavailable(problem))
        })?;
        (snapshot.taken_at, snapshot.took) = (Instant::now(), began.elapsed());
        *moved = find_moved(&moved, &mut snapshot.consumers, snapshot.taken_at);
        let snapshot = Arc::new(snapshot);
        *self.latest.write() = Some(snapshot.clone());
        Ok(snapshot)
    }

    fn recent(&self) -> Option<Arc<Snapshot>> {
        let latest = self.latest()?;
        let max_age = MAX_AGE.max(latest.took * PAUSE);
        (latest.taken_at.elapsed() < max_age).then_some(latest)
    }

    async fn read(&self) -> Result<Snapshot, storage::Error> {
        let OverviewLimits { topics, consumers } = self.limits;
        let size = self.storage.catalogue_size().await?;
        let topics = self.storage.list_topic_states(topics).await?;
        let consumers = match consumers {
            0 => Vec::new(),
            limit => self.storage.list_consumer_states(limit).await?,
        };
        let server = match self.storage.server_state().await {
            Ok(server) => Some(server),
            // A server that is compatible with PostgreSQL may lack a function.
            Err(error) => {
                tracing::warn!(%error, "read how the database server is doing");
                None
            }
        };
        let (taken_at, took) = (Instant::now(), Duration::ZERO);
        Ok(Snapshot { taken_at, took, size, topics, consumers, server })
    }
}

/// When the position of each consumer last moved. The database knows when it last wrote a consumer,
/// which it also does when a stream gets the lease: a position that is where it was has not moved since.
fn find_moved(
    before: &HashMap<ConsumerKey, Moved>,
    consumers: &mut [ConsumerState],
    now: Instant,
) -> HashMap<ConsumerKey, Moved> {
    let moved = consumers.iter_mut().map(|consumer| {
        let ConsumerState { key, position, .. } = *consumer;
        let written_at = now.checked_sub(consumer.unchanged_for).unwrap_or(now);
        let at = match before.get(&key) {
            Some(before) if before.position == position => before.at.min(written_at),
            _ => written_at,
        };
        consumer.unchanged_for = now.duration_since(at);
        (key, Moved { position, at })
    });
    moved.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ConsumerId, TopicId, TopicName};

    const KEY: ConsumerKey = ConsumerKey { topic: TopicId(1), consumer: 1 };

    fn state(position: i64, written_ago: u64) -> ConsumerState {
        ConsumerState {
            topic: TopicName::stored("orders"),
            id: ConsumerId::stored("billing"),
            key: KEY,
            position: Offset(position),
            lag: 0,
            missing: 0,
            behind: Duration::ZERO,
            unchanged_for: Duration::from_secs(written_ago),
            is_held: false,
            holder: None,
        }
    }

    #[test]
    fn a_position_moves_only_when_it_changes() {
        let began = Instant::now() + Duration::from_secs(1_000);
        let mut moved = HashMap::new();
        // The position, how many seconds ago the database wrote the consumer, and what is shown. The
        // readings are ten seconds apart.
        for (number, (position, written_ago, shown)) in
            [(5, 60, 60), (5, 70, 70), (5, 1, 80), (6, 3, 3), (6, 13, 13), (6, 2, 23)]
                .into_iter()
                .enumerate()
        {
            let now = began + Duration::from_secs(10 * number as u64);
            let mut consumers = [state(position, written_ago)];
            moved = find_moved(&moved, &mut consumers, now);
            assert_eq!(consumers[0].unchanged_for, Duration::from_secs(shown), "{number}");
        }
    }
}
