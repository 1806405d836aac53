//! A broker with one writer, called as a library, so that publishes that wait for it share a flush.

use std::sync::Arc;

use trunkline::{
    broker::{Answers, Broker, Error, Publish, Quotas, Receipt},
    model::{Epoch, Message, NewMessages, ProducerId, Sequence, TopicName},
    storage::Storage,
};

use super::{LIMITS, PRODUCER, TestBroker, soon, until};

pub struct OneWriter {
    /// Another broker on the same database, which also accepts calls.
    pub served: TestBroker,
    broker: Arc<Broker>,
}

impl OneWriter {
    /// Starts the broker with the topics `audit`, `bills`, `first` and `orders`.
    pub async fn start_beside(served: TestBroker) -> Self {
        for topic in ["audit", "bills", "first", "orders"] {
            served.topic(topic).await;
        }
        let storage = Storage::open(&served.database.url, None, LIMITS).await.unwrap();
        Self { served, broker: Broker::start(storage, 1, Quotas::default()).await.unwrap() }
    }

    /// Makes publishes share a flush: they are enqueued while the writer waits for a lock, which
    /// stops it at a message `held` for the topic `first`.
    pub async fn publish_together(
        &self,
        publishes: Vec<Publish>,
    ) -> Vec<Vec<Result<Receipt, Error>>> {
        let mut sql = self.served.sql().await;
        let lock = sql.transaction().await.unwrap();
        let head = "select from trunkline.topic_head h join trunkline.topic on id = topic_id
            where name = 'first' for update of h";
        lock.query(head, &[]).await.unwrap();
        let held = Message { payload: "held".into(), ..Message::default() };
        let first = self.enqueue(publish_of("first", PRODUCER, None, vec![held])).await;
        until("the writer waits", async || self.served.waiting_for_locks().await == 1).await;
        let mut answers = Vec::new();
        for publish in publishes {
            answers.push(self.enqueue(publish).await);
        }
        lock.rollback().await.unwrap();
        assert!(soon("the first answer", first.wait()).await[0].is_ok());
        let mut all = Vec::new();
        for answers in answers {
            all.push(soon("the answers", answers.wait()).await);
        }
        all
    }

    pub async fn enqueue(&self, publish: Publish) -> Answers {
        self.broker.publisher.enqueue(publish, None, None).await.unwrap()
    }

    pub async fn stop(self) {
        self.broker.drain();
        self.broker.stop().await;
    }
}

/// A publish without an expected head, in the producer's first epoch.
pub fn publish_of(
    topic: &str,
    producer: &str,
    sequence: Option<i64>,
    messages: Vec<Message>,
) -> Publish {
    Publish {
        topic: TopicName::parse(topic).unwrap(),
        producer: ProducerId::parse(producer).unwrap(),
        epoch: Epoch(0),
        sequence: sequence.map(Sequence),
        expected_head: None,
        messages: NewMessages::parse(messages).unwrap(),
    }
}
