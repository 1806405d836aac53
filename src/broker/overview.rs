//! What there is in the database, as of a moment: for metrics and for people.
//!
//! All who ask share one reading, which is at most about a second old, and the failure of one too. While
//! nobody asks, nothing is read. A database that takes long to answer is asked less often.

mod history;
pub(super) mod trouble;
pub(super) mod view;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use tokio::{
    sync::{Mutex, watch},
    time,
};

use crate::{
    model::{ConsumerKey, Offset, TopicId},
    storage::{self, CatalogueSize, ConsumerState, OutboxState, ServerState, Storage, TopicState},
};

use history::History;

pub use history::Point;

/// How old a reading may be before somebody who asks gets a new one.
const MAX_AGE: Duration = Duration::from_secs(1);

/// A reading may be older if it took long: a broker keeps the database busy with readings for at most
/// a fifth of the time.
const PAUSE: u32 = 4;

/// How long a reading may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of that reading the outbox may take, as all else must be shown then, too. It takes long while
/// a transaction publishes millions of messages, or if a long one keeps as many moved rows from being
/// vacuumed and a topic cannot be stored.
const OUTBOX_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the outbox is left alone after that.
const OUTBOX_PAUSE: Duration = Duration::from_secs(60);

/// Reads what there is in the database.
pub struct Overview {
    storage: Arc<Storage>,
    /// How many topics, and how many consumers, a reading lists.
    limit: usize,
    latest: RwLock<Option<Arc<Snapshot>>>,
    history: RwLock<History>,
    /// Locked by whoever reads, so that the others wait for what it finds.
    reading: Mutex<Reading>,
    /// Whether the database answers.
    database_up: watch::Receiver<bool>,
    began: Instant,
}

/// What readings have found so far.
#[derive(Default)]
struct Reading {
    /// When the position of each consumer last moved.
    moved: HashMap<ConsumerKey, Moved>,
    /// When the last reading that failed was begun, and why it did.
    failed: Option<(Instant, Arc<storage::Error>)>,
    /// When the outbox could last not be read.
    outbox_failed_at: Option<Instant>,
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
    /// Whether there is more than a reading lists.
    pub is_incomplete: bool,
    /// The first topics, by name.
    pub topics: Vec<TopicState>,
    /// The first consumers, by topic and id.
    pub consumers: Vec<ConsumerState>,
    /// What waited in the outbox; `None` if that could not be found out, or not in time.
    pub outbox: Option<OutboxState>,
    /// How the server was doing; `None` if it does not say.
    pub server: Option<ServerState>,
    /// How many messages were published to each topic each second, lately.
    pub published: HashMap<TopicId, f64>,
    /// How many messages each consumer has moved on each second, lately.
    pub consumed: HashMap<ConsumerKey, f64>,
}

/// Where a consumer's position has been, and since when.
struct Moved {
    position: Offset,
    at: Instant,
}

impl Snapshot {
    /// How many messages were published to a topic each second, lately.
    pub fn published(&self, topic: TopicId) -> f64 {
        self.published.get(&topic).copied().unwrap_or_default()
    }

    /// How many messages a consumer has moved on each second, lately.
    pub fn consumed(&self, consumer: ConsumerKey) -> f64 {
        self.consumed.get(&consumer).copied().unwrap_or_default()
    }
}

impl Overview {
    /// Reads from a database, once somebody asks.
    pub fn new(storage: Arc<Storage>, limit: usize, database_up: watch::Receiver<bool>) -> Self {
        Self {
            storage,
            limit,
            latest: RwLock::default(),
            history: RwLock::default(),
            reading: Mutex::default(),
            database_up,
            began: Instant::now(),
        }
    }

    /// How many topics, and how many consumers, a reading lists.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many messages were published to each of some topics each second, over the last minute, the
    /// oldest first.
    pub fn published_lately(&self, topics: impl Iterator<Item = TopicId>) -> Vec<Vec<f64>> {
        let history = self.history.read();
        topics.map(|topic| history.published_lately(topic)).collect()
    }

    /// How many messages some consumers have moved on each second, over the last minute.
    pub fn consumed_lately(&self, consumers: impl Iterator<Item = ConsumerKey>) -> Vec<Vec<f64>> {
        let history = self.history.read();
        consumers.map(|consumer| history.consumed_lately(consumer)).collect()
    }

    /// A consumer's lag over the last hour, as far as somebody has asked for readings.
    pub fn lag_lately(&self, consumer: ConsumerKey) -> Vec<Point> {
        self.history.read().lag(consumer)
    }

    /// The latest reading, however old it is; `None` before the first.
    pub fn latest(&self) -> Option<Arc<Snapshot>> {
        self.latest.read().clone()
    }

    /// Since when what there is has not been read: the last reading, or the start.
    pub fn read_at(&self) -> Instant {
        self.latest().map_or(self.began, |latest| latest.taken_at)
    }

    /// A reading of about now.
    pub async fn current(self: &Arc<Self>) -> Result<Arc<Snapshot>, Arc<storage::Error>> {
        if !*self.database_up.borrow() {
            return Err(Arc::new(storage::Error::Unavailable("it does not answer".to_owned())));
        }
        if let Some(recent) = self.recent() {
            return Ok(recent);
        }
        let (overview, asked) = (self.clone(), Instant::now());
        // In a task of its own: whoever asked may go away, and others still wait for what it finds.
        match tokio::spawn(async move { overview.read_once(asked).await }).await {
            Ok(read) => read,
            Err(error) => Err(Arc::new(storage::Error::Unavailable(error.to_string()))),
        }
    }

    /// Reads, unless somebody else has done so since it was asked for.
    async fn read_once(&self, asked: Instant) -> Result<Arc<Snapshot>, Arc<storage::Error>> {
        let mut reading = self.reading.lock().await;
        if let Some(recent) = self.recent() {
            return Ok(recent);
        }
        if let Some((begun, error)) = &reading.failed
            && *begun >= asked
        {
            return Err(error.clone());
        }
        let began = Instant::now();
        let read = time::timeout(READ_TIMEOUT, self.read(&mut reading)).await;
        let read = read.unwrap_or_else(|_| {
            let problem = format!("the overview was not read in {READ_TIMEOUT:?}");
            Err(storage::Error::Unavailable(problem))
        });
        let mut snapshot = read.map_err(|error| {
            let error = Arc::new(error);
            reading.failed = Some((began, error.clone()));
            error
        })?;
        (snapshot.taken_at, snapshot.took) = (Instant::now(), began.elapsed());
        reading.moved = find_moved(&reading.moved, &mut snapshot.consumers, snapshot.taken_at);
        let Snapshot { taken_at, topics, consumers, published, consumed, .. } = &mut snapshot;
        {
            let mut history = self.history.write();
            history.add(*taken_at, topics, consumers);
            *published = topics.iter().map(|it| (it.id, history.published(it.id))).collect();
            *consumed = consumers.iter().map(|it| (it.key, history.consumed(it.key))).collect();
        }
        let snapshot = Arc::new(snapshot);
        *self.latest.write() = Some(snapshot.clone());
        Ok(snapshot)
    }

    fn recent(&self) -> Option<Arc<Snapshot>> {
        let latest = self.latest()?;
        let max_age = MAX_AGE.max(latest.took * PAUSE);
        (latest.taken_at.elapsed() < max_age).then_some(latest)
    }

    /// Reads what waits in the outbox; `None` if that fails, or has just failed.
    async fn read_outbox(&self, reading: &mut Reading) -> Option<OutboxState> {
        if reading.outbox_failed_at.is_some_and(|at| at.elapsed() < OUTBOX_PAUSE) {
            return None;
        }
        match self.storage.outbox_state(OUTBOX_TIMEOUT).await {
            Ok(outbox) => Some(outbox),
            Err(error) => {
                tracing::warn!(%error, "read what waits in the outbox");
                reading.outbox_failed_at = Some(Instant::now());
                None
            }
        }
    }

    async fn read(&self, reading: &mut Reading) -> Result<Snapshot, storage::Error> {
        let size = self.storage.catalogue_size().await?;
        let topics = self.storage.list_topic_states(self.limit).await?;
        let consumers = self.storage.list_consumer_states(self.limit).await?;
        let outbox = self.read_outbox(reading).await;
        let server = match self.storage.server_state().await {
            Ok(server) => Some(server),
            // A server that is compatible with PostgreSQL may lack a function.
            Err(error) => {
                tracing::warn!(%error, "read how the database server is doing");
                None
            }
        };
        let (taken_at, took) = (Instant::now(), Duration::ZERO);
        let (published, consumed) = (HashMap::new(), HashMap::new());
        // The lists and the sizes are of different moments.
        let is_cut = |listed: usize, all: u64| listed == self.limit && all > listed as u64;
        let is_incomplete =
            is_cut(topics.len(), size.topics) || is_cut(consumers.len(), size.consumers);
        Ok(Snapshot {
            taken_at,
            took,
            size,
            is_incomplete,
            topics,
            consumers,
            outbox,
            server,
            published,
            consumed,
        })
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
