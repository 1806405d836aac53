//! Clients that stop reading, while more and more waits for them.

use tonic::Streaming;
use trunkline::{
    client::{Client, Producer},
    proto::{self, ConsumeResponse},
};

use super::Run;

/// As large as messages get, nearly: the key and the headers count too.
const MIB: usize = 1024 * 1024 - 1024;

const TOPIC: &str = "heavy";

/// A dozen streams of a topic of their own, which nobody reads, and the producer that fills it.
pub struct Stopped {
    client: Client,
    producer: Producer,
    _streams: Vec<(Streaming<ConsumeResponse>, Client)>,
}

impl Stopped {
    pub async fn begin(run: &Run) -> Self {
        let client = run.client(0).await;
        client.ensure_topic(TOPIC).await.unwrap();
        let producer = client.producer(TOPIC, TOPIC).register().open().await.unwrap();
        let mut streams = Vec::new();
        for number in 0..12 {
            let consumer = format!("stopped-{number}");
            let request = proto::RegisterConsumerRequest {
                topic: TOPIC.to_owned(),
                consumer_id: consumer.clone(),
                start: None,
            };
            client.consumers().register_consumer(request).await.unwrap();
            let client = run.client(number % run.brokers.len()).await;
            let request = proto::ConsumeRequest {
                topic: TOPIC.to_owned(),
                consumer_id: consumer,
                ..Default::default()
            };
            let stream = client.consumers().consume(request).await.unwrap();
            streams.push((stream.into_inner(), client));
        }
        Self { client, producer, _streams: streams }
    }

    /// So many more MiB wait for each of them.
    pub async fn more(&self, mib: usize) {
        for _ in 0..mib {
            self.producer.send(vec![7; MIB]).await.unwrap();
        }
        self.producer.flush().await.unwrap();
    }

    pub async fn end(self) {
        self.producer.close().await.unwrap();
        let request = proto::DeleteTopicRequest { topic: TOPIC.to_owned() };
        self.client.topics().delete_topic(request).await.unwrap();
    }
}
