//! Clients that stop reading while more and more messages wait for them.

use tonic::{Code, Status, Streaming};
use trunkline::{
    client::{Client, Producer},
    proto::{self, ConsumeResponse, consume_response::Event},
};

use super::Run;
use crate::support::{DEADLINE, soon, until};

/// Slightly less than the limit of 1 MiB, which also covers key and headers.
const MIB: usize = 1024 * 1024 - 1024;

const TOPIC: &str = "heavy";

/// A dozen streams that are not read, and the producer that fills their topic.
pub struct Stopped {
    client: Client,
    producer: Producer,
    streams: Vec<(Streaming<ConsumeResponse>, Client)>,
}

impl Stopped {
    pub async fn begin(run: &Run) -> Self {
        let client = run.client(0).await;
        // An earlier fault may not be healed completely.
        retry(async || client.ensure_topic(TOPIC).await).await;
        let producer = client.producer(TOPIC, TOPIC).register();
        let producer = producer.retry_for(DEADLINE).open().await.unwrap();
        let mut streams = Vec::new();
        for number in 0..12 {
            let consumer = format!("stopped-{number}");
            let request = proto::RegisterConsumerRequest {
                topic: TOPIC.to_owned(),
                consumer_id: consumer.clone(),
                ..Default::default()
            };
            retry(async || {
                let registered = client.consumers().register_consumer(request.clone()).await;
                match registered {
                    // An earlier attempt may have succeeded.
                    Err(status) if status.code() == Code::AlreadyExists => Ok(()),
                    registered => registered.map(drop),
                }
            })
            .await;
            let client = run.client(number % run.brokers.len()).await;
            let request = proto::ConsumeRequest {
                topic: TOPIC.to_owned(),
                consumer_id: consumer,
                ..Default::default()
            };
            let stream = retry(async || {
                let mut stream = client.consumers().consume(request.clone()).await?.into_inner();
                let first = soon("the first frame", stream.message()).await?.unwrap();
                assert!(matches!(first.event, Some(Event::Attached(_))));
                Ok::<_, Status>(stream)
            })
            .await;
            streams.push((stream, client));
        }
        Self { client, producer, streams }
    }

    /// Publishes this many more MiB for each stream.
    pub async fn more(&self, mib: usize) {
        for _ in 0..mib {
            self.producer.send(vec![7; MIB]).await.unwrap();
        }
        self.producer.flush().await.unwrap();
    }

    /// Ends the streams, each of which must have messages to read.
    pub async fn end(mut self) {
        for (stream, _) in &mut self.streams {
            let messages = async {
                loop {
                    let frame = stream.message().await.unwrap().unwrap();
                    if let Some(Event::Batch(_)) = frame.event {
                        return;
                    }
                }
            };
            soon("the stream has messages", messages).await;
        }
        drop(self.streams);
        self.producer.close().await.unwrap();
        let request = proto::DeleteTopicRequest { topic: TOPIC.to_owned() };
        self.client.topics().delete_topic(request).await.unwrap();
    }
}

/// Repeats a call until it succeeds.
async fn retry<T, E>(mut work: impl AsyncFnMut() -> Result<T, E>) -> T {
    let mut done = None;
    until("the call succeeds", async || {
        done = work().await.ok();
        done.is_some()
    })
    .await;
    done.unwrap()
}
