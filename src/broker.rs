//! The core: publishes, streams, leases and notifications over one database. It knows neither gRPC
//! nor SQL.
//!
//! A broker holds no state that matters: what it knows besides the database's tables is a copy, and
//! any number of brokers may share one database. This file only puts the rooms together.

mod admin;
mod backoff;
mod budget;
mod calls;
mod catalogue;
mod characters;
mod consume;
mod error;
mod health;
mod hot_topics;
mod lease;
mod load;
mod log;
mod notify;
mod overview;
mod publish;
mod quotas;
mod relay;
mod retention;
mod subscription;
#[cfg(test)]
mod testing;
mod truncation;

use std::{sync::Arc, time::SystemTime};

use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    audit::Audit,
    metrics::BrokerMetrics,
    storage::{self, Storage},
    traces::Traces,
};

pub use admin::{
    Ensured,
    consumers::ConsumerAdmin,
    producers::ProducerAdmin,
    topics::{NewTopic, TopicAdmin, TrimTo},
};
pub use budget::{Budget, Hold, Owner, Share, Used, counted_address};
pub use calls::{OfOwner, SessionOwner};
pub use consume::{
    commit::Commit,
    delivery::Delivery,
    outbox::Frames,
    pull::{Pull, Pulled},
    read::ReadMessages,
    request::{CommitMode, Consume, Frame, OnBusy, Stop},
};
pub use error::Error;
pub use lease::registry::Waiting;
pub use load::Load;
pub use log::{
    cache::CacheUse,
    messages::{BatchPart, FrameLimits, Messages},
};
pub use overview::{
    Overview, Point, Snapshot,
    trouble::{Trouble, find_troubles},
    view::{ConsumerOrder, TopicOrder, View, ViewRequest},
};
pub use publish::{
    pending::Answers,
    queue::Publisher,
    request::{Publish, Receipt},
};

pub use quotas::Quotas;
pub use subscription::{
    deliveries::{DeliveryId, Outstanding},
    describing::Stands,
    receivers::Description,
    request::{
        Delivery as SharedDelivery, Idle, Limit as DeliveryLimit, Parked, Receive, Received,
        Settle, Settlement, Subscribe, Unparked, Verdict, WorkerLimits,
    },
    room::Subscriptions,
    standing::{Backlog, Owned, Working},
    unsent::{UnsentAnswer, UnsentEvents},
    worker::{Settler, Settling, WorkerStream},
};

use calls::Calls;
use catalogue::Catalogue;
use characters::Characters;
use consume::{positions::Positions, stream_limit::StreamLimit};
use health::Poller;
use hot_topics::HotTopics;
use lease::{registry::Leases, session::SessionKeeper};
use log::topics::TopicLogs;
use notify::{
    listen::Notifier,
    outbox::{LeaseScope, Notification, Outbox},
};
use publish::writer::LogStore;
use relay::Relay;
use retention::Sweeper;
use subscription::writer::SettlementWriter;
use truncation::detect::Detector;

/// A broker over one database.
pub struct Broker {
    /// Topics.
    pub topics: TopicAdmin,
    /// Producers.
    pub producers: ProducerAdmin,
    /// Consumers.
    pub consumers: ConsumerAdmin,
    /// Publishes.
    pub publisher: Publisher,
    /// Streams, pulls, commits, seeks and reads.
    pub delivery: Arc<Delivery>,
    /// Messages that workers share.
    pub subscriptions: Subscriptions,
    storage: Arc<Storage>,
    audit: Arc<Audit>,
    leases: Arc<Leases>,
    database_up: watch::Receiver<bool>,
    hears_others: watch::Receiver<bool>,
    /// When this broker last finished removing expired messages.
    swept_at: watch::Receiver<Option<SystemTime>>,
    calls: Calls,
    /// Cancelled when no call is left.
    stopping: CancellationToken,
    /// The tasks that serve all calls.
    tasks: TaskTracker,
    quotas: Quotas,
    traces: Traces,
}

impl Broker {
    /// Starts a broker over a database whose schema is up to date, with this many writers.
    pub async fn start(
        storage: Storage,
        writers: usize,
        quotas: Quotas,
    ) -> Result<Arc<Self>, storage::Error> {
        Self::start_traced(storage, writers, quotas, Traces::default()).await
    }

    /// As [`Self::start`], and traces publishes.
    pub async fn start_traced(
        storage: Storage,
        writers: usize,
        quotas: Quotas,
        traces: Traces,
    ) -> Result<Arc<Self>, storage::Error> {
        let storage = Arc::new(storage);
        let (calls, tasks) = (Calls::default(), TaskTracker::new());
        let metrics = Arc::<BrokerMetrics>::default();
        let stopping = CancellationToken::new();
        let audit = Audit::start(storage.clone(), &tasks, stopping.clone());
        let catalogue = Arc::new(Catalogue::new(storage.clone()));
        let characters = Arc::new(Characters::of(&storage));
        let logs = Arc::new(TopicLogs::default());
        let truncation = Detector::new(
            storage.clone(),
            logs.clone(),
            metrics.clone(),
            tasks.clone(),
            stopping.clone(),
        );
        let truncation = Arc::new(truncation);

        let (outbox, poll_now) = (Outbox::default(), Arc::new(Notify::new()));
        let (hot_topics, outbox_filled) = (Arc::<HotTopics>::default(), Arc::new(Notify::new()));
        let (session, lease_session) = watch::channel(None);
        let leases = Arc::new(Leases::new(lease_session.clone(), outbox.clone()));
        let keeper = SessionKeeper {
            storage: storage.clone(),
            leases: leases.clone(),
            logs: logs.clone(),
            session,
            stopping: stopping.clone(),
        };
        keeper.start(&tasks).await?;
        let dispatch = Dispatch {
            logs: logs.clone(),
            leases: leases.clone(),
            poll_now: poll_now.clone(),
            hot_topics: hot_topics.clone(),
            outbox_filled: outbox_filled.clone(),
        };
        let notifier = Notifier {
            storage: storage.clone(),
            outbox: outbox.clone(),
            dispatch: move |notification| dispatch.dispatch(notification),
            poll_now: poll_now.clone(),
            stopping: stopping.clone(),
        };
        let hears_others = notifier.start(&tasks);
        let relay = Relay {
            storage: storage.clone(),
            logs: logs.clone(),
            notifications: outbox.clone(),
            session: lease_session.clone(),
            wake: outbox_filled,
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            stopping: stopping.clone(),
        };
        relay.start();
        let log_store = LogStore {
            storage: storage.clone(),
            logs: logs.clone(),
            truncation: truncation.clone(),
            outbox,
            characters: characters.clone(),
            metrics: metrics.clone(),
            traces: traces.clone(),
        };
        let log_store = Arc::new(log_store);
        let publisher = Publisher::start(log_store.clone(), writers, calls.clone(), &tasks);
        let sweeper = Sweeper::new(storage.clone(), logs.clone(), lease_session);
        let swept_at = sweeper.start(&tasks, stopping.clone());
        let positions = Positions::start(storage.clone(), &tasks);
        let settlements = Arc::new(SettlementWriter::start(log_store, &tasks));
        tasks.spawn(stopping.clone().run_until_cancelled_owned(warm_up(storage.clone())));
        let poller = Poller {
            storage: storage.clone(),
            logs: logs.clone(),
            truncation: truncation.clone(),
            poll_now,
            hot_topics,
            stopping: stopping.clone(),
        };
        let database_up = poller.start(&tasks);

        let delivery = Delivery {
            calls: calls.clone(),
            storage: storage.clone(),
            audit: audit.clone(),
            catalogue: catalogue.clone(),
            characters: characters.clone(),
            logs: logs.clone(),
            truncation: truncation.clone(),
            leases: leases.clone(),
            positions,
            streams: StreamLimit::new(quotas.streams),
            metrics,
        };
        let delivery = Arc::new(delivery);
        let topics = TopicAdmin {
            storage: storage.clone(),
            catalogue: catalogue.clone(),
            characters,
            logs,
            leases: leases.clone(),
            truncation,
            quotas,
        };
        let producers =
            ProducerAdmin { storage: storage.clone(), catalogue: catalogue.clone(), quotas };
        let consumers =
            ConsumerAdmin { storage: storage.clone(), catalogue, leases: leases.clone(), quotas };
        Ok(Arc::new(Self {
            topics,
            producers,
            consumers,
            publisher,
            subscriptions: Subscriptions::new(delivery.clone(), settlements),
            delivery,
            storage,
            audit,
            leases,
            database_up,
            hears_others,
            swept_at,
            calls,
            stopping,
            tasks,
            quotas,
            traces,
        }))
    }

    /// How much clients may create, and how many streams this broker serves.
    pub fn quotas(&self) -> Quotas {
        self.quotas
    }

    /// The database that the broker keeps everything in.
    pub fn storage(&self) -> Arc<Storage> {
        self.storage.clone()
    }

    /// Records what is done and what is refused.
    pub fn audit(&self) -> Arc<Audit> {
        self.audit.clone()
    }

    /// Traces calls and publishes.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Whether the database answers, as of the last second or so.
    pub fn database_up(&self) -> watch::Receiver<bool> {
        self.database_up.clone()
    }

    /// Whether other brokers' notifications are received. If not, polling finds what they store.
    pub fn hears_others(&self) -> watch::Receiver<bool> {
        self.hears_others.clone()
    }

    /// What is measured of publishes, leases and traffic.
    pub fn metrics(&self) -> &BrokerMetrics {
        &self.delivery.metrics
    }

    /// How busy the broker is.
    pub fn load(&self) -> Load {
        Load {
            database_up: *self.database_up.borrow(),
            hears_others: *self.hears_others.borrow(),
            is_draining: self.draining().is_cancelled(),
            streams: self.delivery.streams.used(),
            publish_bytes: self.publisher.budget().used(),
            queued_publishes: self.publisher.queued(),
            cache: self.delivery.logs.cache_use(),
            waiting: self.leases.waiting(),
            truncations: self.delivery.truncation.found(),
            swept_at: *self.swept_at.borrow(),
        }
    }

    /// Cancelled when the broker begins to drain.
    pub fn draining(&self) -> &CancellationToken {
        self.calls.draining()
    }

    /// Begins to drain: refuses new calls, and ends all streams UNAVAILABLE.
    pub fn drain(&self) {
        self.calls.drain();
        self.publisher.close();
    }

    /// Waits until all streams have ended and all enqueued publishes are stored, then releases the
    /// leases and closes all connections. Call [`Self::drain`] first.
    pub async fn stop(&self) {
        self.calls.ended().await;
        self.leases.released().await;
        self.delivery.positions.close();
        self.subscriptions.close();
        self.audit.finished().await;
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.storage.close();
    }

    /// Runs a part of a call that outlives its request; [`Self::stop`] waits for its end.
    pub fn track(&self, part: impl Future<Output = ()> + Send + 'static) {
        self.calls.spawn(part);
    }
}

/// What to do with a notification.
struct Dispatch {
    logs: Arc<TopicLogs>,
    leases: Arc<Leases>,
    poll_now: Arc<Notify>,
    hot_topics: Arc<HotTopics>,
    outbox_filled: Arc<Notify>,
}

impl Dispatch {
    fn dispatch(&self, notification: Notification) {
        match notification {
            Notification::HeadMoved(topic, head) => self.logs.head_moved(topic, head),
            Notification::LeaseReleased(key) => self.leases.released_elsewhere(key),
            Notification::LeaseChanged(scope) => {
                self.leases.check_soon(scope);
                // All of a topic's leases change at once only when it is deleted. The poll finds out:
                // any SQL role can send a notification.
                if let LeaseScope::Topic(_) = scope {
                    self.poll_now.notify_one();
                }
            }
            Notification::PublishedFromSql(topic) => self.hot_topics.heat(topic),
            Notification::OutboxFilled => self.outbox_filled.notify_one(),
        }
    }
}

/// Opens the writers' connections before the first publishes need them.
async fn warm_up(storage: Arc<Storage>) {
    // A connection that cannot be opened now is opened when it is needed.
    if let Err(error) = storage.warm_up().await {
        tracing::debug!(%error, "open the writers' connections");
    }
}
