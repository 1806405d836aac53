//! Subscriptions, their workers, and the brokers that own them.

use trunkline::proto;

use super::{LIMITED, Run};
use crate::{
    history::{History, Run as HandedRun, What},
    support::until,
    workload::{BrokerConnection, WorkerClient},
};

/// A subscription and its workers.
pub(super) struct Pool {
    pub topic: &'static str,
    pub subscription: &'static str,
    /// How many workers have a stream.
    streams: usize,
    /// How many workers make calls.
    callers: usize,
}

pub(super) const POOLS: [Pool; 2] = [
    Pool { topic: "hot", subscription: "pool", streams: 2, callers: 1 },
    Pool { topic: LIMITED, subscription: "pool-unary", streams: 0, callers: 2 },
];

impl Pool {
    pub fn worker(&self, number: usize) -> WorkerClient {
        WorkerClient {
            topic: self.topic.into(),
            subscription: self.subscription.into(),
            name: format!("{}-{}-{number}", self.topic, self.subscription).into(),
            streams: number < self.streams,
        }
    }

    /// The end of the last message that a worker got.
    pub fn handed(&self, history: &History) -> i64 {
        let workers = format!("{}-{}-", self.topic, self.subscription);
        let events = history.events();
        let ends =
            events.iter().filter(|event| event.client.starts_with(&workers)).filter_map(|event| {
                match &event.what {
                    What::Handed { runs, .. } => runs.last().map(HandedRun::end),
                    _ => None,
                }
            });
        ends.max().unwrap_or(0)
    }

    /// A request that creates the subscription. Messages that a worker forgets come again soon.
    fn create(&self) -> proto::CreateSubscriptionRequest {
        let duration = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        let policy = proto::DeliveryPolicy {
            ack_deadline: duration(1, 0),
            min_backoff: duration(0, 0),
            max_backoff: duration(0, 100_000_000),
            max_deliveries: 0,
            ..Default::default()
        };
        proto::CreateSubscriptionRequest {
            topic: self.topic.to_owned(),
            subscription_id: self.subscription.to_owned(),
            policy: Some(policy),
            ..Default::default()
        }
    }
}

impl Run {
    /// Creates the subscriptions, and starts their workers.
    pub(super) async fn start_workers(&mut self) {
        for pool in &POOLS {
            let principal = pool.worker(0).principal();
            let mut connection = BrokerConnection::new(&self.world, 0, &principal);
            let mut subscriptions = connection.subscriptions().await.unwrap();
            let created = subscriptions.create_subscription(pool.create()).await.unwrap();
            let (topic, consumer) = (pool.topic.into(), pool.subscription.into());
            let position = created.into_inner().subscription.unwrap().floor;
            let registered = What::Registered { topic, consumer, position };
            self.world.history.note(&self.run, registered);
            for number in 0..pool.streams + pool.callers {
                self.readers.spawn(pool.worker(number).run(self.world.clone(), number));
            }
        }
    }

    /// Waits until a broker owns a subscription, and returns its number. One broker may be
    /// excepted, as PostgreSQL may not have noticed yet that it has died.
    pub async fn owner_of(&self, topic: &str, subscription: &str, except: Option<usize>) -> usize {
        // The owner holds the lease of the consumer.
        let holder = "select host(a.client_addr) from pg_locks l
            join pg_stat_activity a on a.pid = l.pid
            join trunkline.consumer_topic c
                on c.topic_id = l.classid::bigint and c.id = l.objid::bigint
            join trunkline.topic t on t.id = c.topic_id
            where l.locktype = 'advisory' and l.objsubid = 2 and l.granted
              and t.name = $1 and c.consumer_id = $2";
        let sql = self.sql().await;
        let mut owner = None;
        until("a broker owns the subscription", async || {
            let row = sql.query_opt(holder, &[&topic, &subscription]).await.unwrap();
            let address: Option<String> = row.and_then(|row| row.get(0));
            let is_at = |number: &usize| Some(self.address_of(*number).to_string()) == address;
            owner = (0..self.brokers.len()).find(is_at).filter(|owner| Some(*owner) != except);
            owner.is_some()
        })
        .await;
        owner.expect("a broker owns the subscription")
    }
}
