//! The clients of a run: what they work on, and what they are like.

use std::sync::Arc;

use trunkline::{client::Client, proto};

use super::{LIMIT, LIMITED, Run, TOPICS};
use crate::{
    history::What,
    values::{Sizes, producer_name},
    workload::{
        ConsumerClient, Counting, LibraryProducer, PipedProducer, UnaryProducer, observe,
        seek_about, trim_behind,
    },
};

impl Run {
    /// Makes the topics and their producers and consumers, and sets them to work.
    pub(super) async fn set_the_clients_to_work(&mut self) {
        let client = Client::connect(&self.brokers[0].endpoint()).await.unwrap();
        for topic in TOPICS {
            let retention = (topic == LIMITED)
                .then(|| proto::Retention { max_messages: LIMIT, ..Default::default() });
            let topic = topic.to_owned();
            let request = proto::CreateTopicRequest { topic, retention, ..Default::default() };
            client.topics().create_topic(request).await.unwrap();
        }
        let keeps = What::Keeps { topic: LIMITED.into(), messages: LIMIT };
        self.world.history.note(&self.run, keeps);
        let counted = [
            ("hot", "hot-a", Sizes::Small, Counting::Sequence),
            ("hot", "hot-b", Sizes::Small, Counting::Sequence),
            ("hot", "hot-once", Sizes::Small, Counting::None),
            ("side-0", "side-a", Sizes::Small, Counting::Sequence),
            ("side-1", "side-b", Sizes::Small, Counting::None),
            ("trimmed", "trimmed-a", Sizes::Small, Counting::Sequence),
            ("sized", "sized-a", Sizes::All, Counting::Sequence),
            ("sized", "sized-once", Sizes::All, Counting::None),
            ("sought", "sought-a", Sizes::Small, Counting::Sequence),
        ];
        for (number, (topic, name, sizes, counting)) in counted.into_iter().enumerate() {
            let name: Arc<str> = producer_name(name, sizes).into();
            register(&client, topic, &name).await;
            let producer = UnaryProducer { topic: topic.into(), name, sizes, counting };
            self.makers.spawn(producer.run(self.world.clone(), number));
        }
        register(&client, "hot", "hot-piped").await;
        let piped = PipedProducer { topic: "hot".into(), name: "hot-piped".into() };
        self.makers.spawn(piped.run(self.world.clone(), 0));
        let library = LibraryProducer { topic: "hot".into(), name: "hot-library".into() };
        self.makers.spawn(library.run(self.world.clone()));

        let plain = ConsumerClient {
            topic: "hot".into(),
            consumer: "".into(),
            name: "".into(),
            manual: true,
            take_over: false,
            leaves: false,
            rests: 0,
        };
        let consumers = [
            // Consumer, its clients, and what they are like.
            ("manual", 2, ConsumerClient { ..plain.clone() }),
            ("auto", 2, ConsumerClient { manual: false, leaves: true, ..plain.clone() }),
            ("stolen", 2, ConsumerClient { take_over: true, leaves: true, ..plain.clone() }),
            ("slow", 1, ConsumerClient { manual: false, rests: 20, ..plain.clone() }),
            ("side", 1, ConsumerClient { topic: "side-0".into(), leaves: true, ..plain.clone() }),
            ("side", 1, ConsumerClient { topic: "side-1".into(), manual: false, ..plain.clone() }),
            ("trimmed", 1, ConsumerClient { topic: "trimmed".into(), ..plain.clone() }),
            ("behind", 1, ConsumerClient { topic: "trimmed".into(), rests: 200, ..plain.clone() }),
            ("sized", 2, ConsumerClient { topic: "sized".into(), leaves: true, ..plain.clone() }),
            ("sought", 1, ConsumerClient { topic: "sought".into(), ..plain.clone() }),
        ];
        for (consumer, clients, like) in consumers {
            let request = proto::RegisterConsumerRequest {
                topic: like.topic.to_string(),
                consumer_id: consumer.to_owned(),
                start: None,
            };
            client.consumers().register_consumer(request).await.unwrap();
            let (topic, name) = (like.topic.clone(), consumer.into());
            let registered = What::Registered { topic, consumer: name, position: 0 };
            self.world.history.note(&self.run, registered);
            for number in 0..clients {
                let name = format!("{}-{consumer}-{number}", like.topic).into();
                let client = ConsumerClient { consumer: consumer.into(), name, ..like.clone() };
                self.readers.spawn(client.run(self.world.clone(), number));
            }
        }
        self.readers.spawn(observe(self.world.clone()));
        self.makers.spawn(seek_about(self.world.clone(), "sought".into(), "sought".into()));
        self.makers.spawn(trim_behind(self.world.clone(), "trimmed".into()));
    }
}

/// Registers a producer.
pub async fn register(client: &Client, topic: &str, name: &str) {
    let (topic, producer_id) = (topic.to_owned(), name.to_owned());
    let request = proto::RegisterProducerRequest { topic, producer_id, fence: false };
    client.producers().register_producer(request).await.unwrap();
}
