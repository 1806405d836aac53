//! The clients of a run: what they work on, and how they behave.

use std::sync::Arc;

use trunkline::{
    client::Client,
    proto::{self, Operation},
};

use super::{LIMIT, LIMITED, Run, TOPICS, workers::POOLS};
use crate::{
    history::What,
    values::{Sizes, producer_name},
    workload::{
        ConsumerClient, LibraryProducer, PipedProducer, Sequencing, SqlProducer, UnaryProducer,
        Way, observe, seek_repeatedly, trim_repeatedly,
    },
};

impl Run {
    /// Creates the topics and their producers, consumers and subscriptions, and starts the clients.
    pub(super) async fn start_clients(&mut self) {
        let client = self.client(0).await;
        for topic in TOPICS {
            let retention = (topic == LIMITED)
                .then(|| proto::Retention { max_messages: LIMIT, ..Default::default() });
            let topic = topic.to_owned();
            let request = proto::CreateTopicRequest { topic, retention, ..Default::default() };
            client.topics().create_topic(request).await.unwrap();
        }
        let keeps = What::Keeps { topic: LIMITED.into(), messages: LIMIT };
        self.world.history.note(&self.run, keeps);
        let producers = [
            ("hot", "hot-a", Sizes::Small, Sequencing::With),
            ("hot", "hot-b", Sizes::Small, Sequencing::With),
            ("hot", "hot-once", Sizes::Small, Sequencing::Without),
            ("side-0", "side-a", Sizes::Small, Sequencing::With),
            ("side-1", "side-b", Sizes::Small, Sequencing::Without),
            ("trimmed", "trimmed-a", Sizes::Small, Sequencing::With),
            ("sized", "sized-a", Sizes::All, Sequencing::With),
            ("sized", "sized-once", Sizes::All, Sequencing::Without),
            ("sought", "sought-a", Sizes::Small, Sequencing::With),
        ];
        let plain = ConsumerClient {
            topic: "hot".into(),
            consumer: "".into(),
            name: "".into(),
            manual: true,
            take_over: false,
            leaves: false,
            max_rest: 0,
        };
        let consumers = [
            // The consumer, the number of its clients, and how they behave.
            ("manual", 2, ConsumerClient { ..plain.clone() }),
            ("auto", 2, ConsumerClient { manual: false, leaves: true, ..plain.clone() }),
            ("stolen", 2, ConsumerClient { take_over: true, leaves: true, ..plain.clone() }),
            ("slow", 1, ConsumerClient { manual: false, max_rest: 20, ..plain.clone() }),
            ("side", 1, ConsumerClient { topic: "side-0".into(), leaves: true, ..plain.clone() }),
            ("side", 1, ConsumerClient { topic: "side-1".into(), manual: false, ..plain.clone() }),
            ("trimmed", 1, ConsumerClient { topic: "trimmed".into(), ..plain.clone() }),
            (
                "behind",
                1,
                ConsumerClient { topic: "trimmed".into(), max_rest: 200, ..plain.clone() },
            ),
            ("sized", 2, ConsumerClient { topic: "sized".into(), leaves: true, ..plain.clone() }),
            ("sought", 1, ConsumerClient { topic: "sought".into(), ..plain.clone() }),
        ];
        let mut grants = vec![
            ("hot-piped".to_owned(), Operation::Publish, "hot"),
            ("hot-library".to_owned(), Operation::Publish, "hot"),
            ("seeker".to_owned(), Operation::Admin, "sought"),
            ("trimmer".to_owned(), Operation::Admin, "trimmed"),
        ];
        for (topic, name, sizes, _) in &producers {
            grants.push((producer_name(name, *sizes), Operation::Publish, topic));
        }
        for (consumer, _, behaviour) in &consumers {
            let owner = ConsumerClient { consumer: (*consumer).into(), ..behaviour.clone() };
            grants.push((owner.principal(), Operation::Consume, &behaviour.topic));
        }
        for pool in &POOLS {
            grants.push((pool.worker(0).principal(), Operation::Consume, pool.topic));
        }
        self.enrol(&grants).await;
        for (number, (topic, name, sizes, sequencing)) in producers.into_iter().enumerate() {
            let name: Arc<str> = producer_name(name, sizes).into();
            register(&self.client_as(&name, 0).await, topic, &name).await;
            let producer = UnaryProducer { topic: topic.into(), name, sizes, sequencing };
            self.writers.spawn(producer.run(self.world.clone(), number));
        }
        register(&self.client_as("hot-piped", 0).await, "hot", "hot-piped").await;
        let piped = PipedProducer { topic: "hot".into(), name: "hot-piped".into() };
        self.writers.spawn(piped.run(self.world.clone(), 0));
        let library = LibraryProducer { topic: "hot".into(), name: "hot-library".into() };
        self.writers.spawn(library.run(self.world.clone()));

        for (consumer, clients, behaviour) in consumers {
            let request = proto::RegisterConsumerRequest {
                topic: behaviour.topic.to_string(),
                consumer_id: consumer.to_owned(),
                ..Default::default()
            };
            let owner = ConsumerClient { consumer: consumer.into(), ..behaviour.clone() };
            let client = self.client_as(&owner.principal(), 0).await;
            client.consumers().register_consumer(request).await.unwrap();
            let (topic, name) = (behaviour.topic.clone(), consumer.into());
            let registered = What::Registered { topic, consumer: name, position: 0 };
            self.world.history.note(&self.run, registered);
            for number in 0..clients {
                let name = format!("{}-{consumer}-{number}", behaviour.topic).into();
                let client =
                    ConsumerClient { consumer: consumer.into(), name, ..behaviour.clone() };
                self.readers.spawn(client.run(self.world.clone(), number));
            }
        }
        self.start_workers().await;
        self.readers.spawn(observe(self.world.clone()));
        self.writers.spawn(seek_repeatedly(self.world.clone(), "sought".into(), "sought".into()));
        self.writers.spawn(trim_repeatedly(self.world.clone(), "trimmed".into()));
    }
}

impl Run {
    /// Starts producers that publish with SQL, two of each way on the same topics.
    pub(super) async fn start_sql_clients(&mut self) {
        let client = self.client(0).await;
        for (topic, name, way) in [
            ("hot", "hot-sql-later-a", Way::Later),
            ("hot", "hot-sql-later-b", Way::Later),
            ("side-0", "side-sql-later", Way::Later),
            ("hot", "hot-sql-commit", Way::AtCommit),
            ("side-0", "side-sql-commit", Way::AtCommit),
            ("side-0", "side-sql-direct", Way::Direct),
        ] {
            register(&client, topic, name).await;
            let producer = SqlProducer { topic: topic.into(), name: name.into(), way };
            self.writers.spawn(producer.run(self.world.clone()));
        }
    }
}

impl Run {
    /// Makes the clients principals with a grant each, if there is authentication.
    async fn enrol(&self, grants: &[(String, Operation, &str)]) {
        let Some(access) = &self.world.access else { return };
        for (name, operation, topic) in grants {
            access.enrol(&self.brokers, name, &[(*operation, topic)]).await;
        }
        access.are_known_to(&self.brokers).await;
    }
}

/// Registers a producer.
pub async fn register(client: &Client, topic: &str, name: &str) {
    let (topic, producer_id) = (topic.to_owned(), name.to_owned());
    let request =
        proto::RegisterProducerRequest { topic, producer_id, fence: false, ..Default::default() };
    client.producers().register_producer(request).await.unwrap();
}
