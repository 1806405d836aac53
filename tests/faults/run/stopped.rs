//! Clients that stop reading, while more and more waits for them.

use tonic::{Code, Status, Streaming};
use trunkline::{
    client::{Client, Producer},
    proto::{self, ConsumeResponse, consume_response::Event},
};

use super::Run;
use crate::support::{DEADLINE, soon, until};

/// As large as messages get, nearly: the key and the headers count too.
const MIB: usize = 1024 * 1024 - 1024;

const TOPIC: &str = "heavy";

/// A dozen streams of a topic of their own, which nobody reads, and the producer that fills it.
pub struct Stopped {
    client: Client,
    producer: Producer,
    streams: Vec<(Streaming<ConsumeResponse>, Client)>,
}

impl Stopped {
    pub async fn begin(run: &Run) -> Self {
        let client = run.client(0).await;
        // What broke before may be on its way back.
        tried(async || client.ensure_topic(TOPIC).await).await;
        let producer = client.producer(TOPIC, TOPIC).register();
        let producer = producer.retry_for(DEADLINE).open().await.unwrap();
        let mut streams = Vec::new();
        for number in 0..12 {
            let consumer = format!("stopped-{number}");
            let request = proto::RegisterConsumerRequest {
                topic: TOPIC.to_owned(),
                consumer_id: consumer.clone(),
                start: None,
            };
            tried(async || {
                let registered = client.consumers().register_consumer(request.clone()).await;
                match registered {
                    // An earlier try may have been done.
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
            let stream = tried(async || {
                let mut stream = client.consumers().consume(request.clone()).await?.into_inner();
                let first = soon("a first frame", stream.message()).await?.unwrap();
                assert!(matches!(first.event, Some(Event::Attached(_))));
                Ok::<_, Status>(stream)
            })
            .await;
            streams.push((stream, client));
        }
        Self { client, producer, streams }
    }

    /// So many more MiB wait for each of them.
    pub async fn more(&self, mib: usize) {
        for _ in 0..mib {
            self.producer.send(vec![7; MIB]).await.unwrap();
        }
        self.producer.flush().await.unwrap();
    }

    /// Ends them; each had messages to read all the time.
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

/// Tries again until it is done.
async fn tried<T, E>(mut work: impl AsyncFnMut() -> Result<T, E>) -> T {
    let mut done = None;
    until("it is done", async || {
        done = work().await.ok();
        done.is_some()
    })
    .await;
    done.unwrap()
}
