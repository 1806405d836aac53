//! Consumers, producers and topics that are removed and registered again: no epoch is used twice,
//! and no call acts on a registration other than its own.

use std::{collections::HashSet, sync::Arc};

use tokio::task::JoinSet;
use tonic::{Code, Status};
use trunkline::proto::{self, seek_request::Target};

use crate::support::{
    PRODUCER, TestBroker, assert_field, assert_refused, info, message, soon, until,
};

async fn unregister_consumer(broker: &TestBroker) {
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let request = proto::UnregisterConsumerRequest { topic, consumer_id };
    broker.consumers().unregister_consumer(request).await.unwrap();
}

async fn commit(broker: &TestBroker, epoch: i64, position: i64) -> Result<i64, Status> {
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let request = proto::CommitRequest { topic, consumer_id, epoch, position };
    Ok(broker.consumers().commit(request).await?.into_inner().position)
}

async fn register(broker: &TestBroker, fence: bool) -> proto::Producer {
    let (topic, producer_id) = ("orders".to_owned(), PRODUCER.to_owned());
    let request =
        proto::RegisterProducerRequest { topic, producer_id, fence, ..Default::default() };
    broker.producers().register_producer(request).await.unwrap().into_inner().producer.unwrap()
}

async fn unregister_producer(broker: &TestBroker) {
    let (topic, producer_id) = ("orders".to_owned(), PRODUCER.to_owned());
    let request = proto::UnregisterProducerRequest { topic, producer_id };
    broker.producers().unregister_producer(request).await.unwrap();
}

async fn publish(
    broker: &TestBroker,
    producer_epoch: i64,
    sequence: Option<i64>,
) -> Result<i64, Status> {
    let request = proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: vec![message("a message")],
        producer_epoch,
        sequence,
        ..Default::default()
    };
    Ok(broker.producers().publish(request).await?.into_inner().first_offset)
}

#[tokio::test]
async fn the_epochs_of_an_unregistered_consumer_are_never_used_again() {
    let broker = TestBroker::start().await;
    let other = broker.start_another().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    let mut used = HashSet::new();
    for round in 0..4 {
        broker.consumer("orders", "billing").await;
        let mut stream = broker.consume_manually("orders", "billing").await;
        stream.messages(3).await;
        assert!(used.insert(stream.epoch), "epoch {} was used again", stream.epoch);
        // Old epochs are refused by the broker that has the stream, and by another one.
        for stale in used.iter().filter(|epoch| **epoch != stream.epoch) {
            for broker in [&broker, &other] {
                assert_refused(commit(broker, *stale, 3).await, Code::Aborted, "LEASE_LOST");
            }
        }
        assert_eq!(broker.position("orders", "billing").await, 0);
        // Every other round raises the epoch by a seek as well.
        if round % 2 == 0 {
            broker.seek("orders", "billing", Target::Offset(1)).await.unwrap();
            used.insert(stream.repositioned().await.epoch);
        }
        match round {
            // The consumer is removed with its topic.
            2 => {
                broker.delete_topic("orders").await;
                broker.topic("orders").await;
                broker.publish("orders", ["a", "b", "c"]).await;
            }
            _ => unregister_consumer(&broker).await,
        }
        drop(stream);
        broker.all_leases_are_free().await;
    }
}

#[tokio::test]
async fn a_client_that_returns_to_a_new_registration_sees_a_seek() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    broker.consumer("orders", "billing").await;
    let mut stream = broker.consume_manually("orders", "billing").await;
    let before = stream.attached().await;
    assert_eq!((before.epoch, before.seek_epoch), (1, 0));
    unregister_consumer(&broker).await;
    broker.consumer("orders", "billing").await;
    // Stands by for as long as the old registration's stream has not noticed its end.
    let after = broker.consume_manually("orders", "billing").await.attaches().await;
    assert!(after.seek_epoch > before.epoch, "{after:?}");
    assert!(after.epoch > after.seek_epoch, "{after:?}");
}

/// With and without sequences, and with and without fencing.
#[tokio::test]
async fn an_old_instance_cannot_publish_under_a_later_registration() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    publish(&broker, 0, Some(0)).await.unwrap();
    let mut used = HashSet::from([0]);
    for round in 0..6 {
        // The producer is removed alone, or with its topic.
        match round % 3 {
            2 => {
                broker.delete_topic("orders").await;
                broker.topic("orders").await;
            }
            _ => {
                unregister_producer(&broker).await;
                register(&broker, false).await;
            }
        }
        if round % 2 == 1 {
            register(&broker, true).await;
        }
        let request = proto::GetProducerRequest {
            topic: "orders".to_owned(),
            producer_id: PRODUCER.to_owned(),
        };
        let found = broker.producers().get_producer(request).await.unwrap().into_inner();
        let epoch = found.producer.unwrap().epoch;
        assert!(used.insert(epoch), "epoch {epoch} was used again in round {round}");
        for stale in used.iter().filter(|used| **used != epoch) {
            for sequence in [Some(0), Some(1), None] {
                let refused = publish(&broker, *stale, sequence).await;
                assert_refused(refused, Code::FailedPrecondition, "PRODUCER_FENCED");
            }
        }
        // Sequences start again, in the epoch of the new registration.
        publish(&broker, epoch, Some(0)).await.unwrap();
    }
}

#[tokio::test]
async fn a_producer_without_epochs_and_sequences_needs_none_after_it_is_reregistered() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    publish(&broker, 0, None).await.unwrap();
    unregister_producer(&broker).await;
    // Another producer that was fenced does not change that.
    broker.producer("orders", "fenced").await;
    let fence = proto::RegisterProducerRequest {
        topic: "orders".to_owned(),
        producer_id: "fenced".to_owned(),
        fence: true,
        ..Default::default()
    };
    broker.producers().register_producer(fence).await.unwrap();
    let request = proto::UnregisterProducerRequest {
        topic: "orders".to_owned(),
        producer_id: "fenced".to_owned(),
    };
    broker.producers().unregister_producer(request).await.unwrap();
    assert_eq!(register(&broker, false).await.epoch, 0);
    assert_eq!(publish(&broker, 0, None).await.unwrap(), 1);
}

#[tokio::test]
async fn unregistered_producers_are_remembered_for_a_week() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let sql = broker.sql().await;
    let remembered = async || {
        let remembered = "select producer_id from trunkline.forgotten_producer order by 1";
        let rows = sql.query(remembered, &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>()
    };
    publish(&broker, 0, Some(0)).await.unwrap();
    unregister_producer(&broker).await;
    sql.batch_execute(
        "insert into trunkline.forgotten_producer
         values ('orders', 'older', now() - interval '8 days'), ('orders', 'newer', now() - interval '6 days');
         update trunkline.forgotten_producer set forgotten_at = now() - interval '8 days'
         where producer_id = 'producer'",
    )
    .await
    .unwrap();
    // Including a name that is unregistered once more.
    let epoch = register(&broker, false).await.epoch;
    publish(&broker, epoch, Some(0)).await.unwrap();
    unregister_producer(&broker).await;
    assert_eq!(remembered().await, ["newer", PRODUCER]);
}

#[tokio::test]
async fn a_page_token_is_invalid_after_its_topic_is_recreated() {
    let broker = TestBroker::start().await;
    let mut tokens: Vec<String> = Vec::new();
    for round in 0..2 {
        broker.topic("orders").await;
        broker.producer("orders", "shop").await;
        broker.consumer("orders", "billing").await;
        broker.consumer("orders", "shipping").await;
        let producers = |page_token: &str| proto::ListProducersRequest {
            topic: "orders".to_owned(),
            page_size: 1,
            page_token: page_token.to_owned(),
        };
        let consumers = |page_token: &str| proto::ListConsumersRequest {
            topic: "orders".to_owned(),
            page_size: 1,
            page_token: page_token.to_owned(),
        };
        if round == 1 {
            let refused = broker.producers().list_producers(producers(&tokens[0])).await;
            assert_field(refused, "page_token", None);
            let refused = broker.consumers().list_consumers(consumers(&tokens[1])).await;
            assert_field(refused, "page_token", None);
        }
        let page = broker.producers().list_producers(producers("")).await.unwrap().into_inner();
        let next = broker.producers().list_producers(producers(&page.next_page_token)).await;
        assert_eq!(next.unwrap().into_inner().producers[0].producer_id, "shop");
        tokens.push(page.next_page_token);
        let page = broker.consumers().list_consumers(consumers("")).await.unwrap().into_inner();
        let next = broker.consumers().list_consumers(consumers(&page.next_page_token)).await;
        assert_eq!(next.unwrap().into_inner().consumers[0].consumer_id, "shipping");
        tokens.push(page.next_page_token);
        broker.delete_topic("orders").await;
    }
}

#[tokio::test]
async fn a_standby_continues_with_a_new_registration() {
    let broker = TestBroker::start().await;
    let other = broker.start_another().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut holder = broker.consume_manually("orders", "billing").await;
    let before = holder.attached().await;
    let mut standby = other.consume_manually("orders", "billing").await;
    standby.standby().await;
    // In one transaction, as the standby must not see a moment without the consumer.
    let sql = broker.sql().await;
    sql.batch_execute(
        "begin;
         delete from trunkline.consumer_topic;
         insert into trunkline.consumer_topic (topic_id, consumer_id, position, epoch, seek_epoch)
         select id, 'billing', 0, 100, 100 from trunkline.topic;
         commit",
    )
    .await
    .unwrap();
    assert_eq!(holder.ended().await.code(), Code::NotFound);
    let after = standby.attaches().await;
    assert!(after.epoch > before.epoch, "{after:?}");
}

/// Many clients register, unregister and use one id at the same time: every call gets a documented
/// answer, and no epoch is used twice.
#[tokio::test]
async fn calls_that_race_with_registrations_get_documented_answers() {
    let broker = Arc::new(TestBroker::start().await);
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    let mut racing = JoinSet::new();
    for client in 0..8 {
        let broker = broker.clone();
        racing.spawn(async move {
            let mut epochs = Vec::new();
            for round in 0..40 {
                let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
                let mut consumers = broker.consumers();
                let outcome: Result<(), Status> = match (client + round) % 4 {
                    0 | 1 => {
                        let request = proto::RegisterConsumerRequest {
                            topic,
                            consumer_id,
                            ..Default::default()
                        };
                        let registered = consumers.register_consumer(request).await;
                        registered.map(|answer| {
                            epochs.push(answer.into_inner().consumer.unwrap().epoch);
                        })
                    }
                    2 => {
                        let request = proto::UnregisterConsumerRequest { topic, consumer_id };
                        consumers.unregister_consumer(request).await.map(drop)
                    }
                    _ if round % 2 == 0 => {
                        broker.seek("orders", "billing", Target::Offset(1)).await.map(drop)
                    }
                    _ => broker.pull("orders", "billing", 1).await.map(drop),
                };
                let Err(status) = outcome else { continue };
                match (client + round) % 4 {
                    0 | 1 => drop(info(&status, Code::AlreadyExists, "CONSUMER_EXISTS")),
                    _ => drop(info(&status, Code::NotFound, "CONSUMER_NOT_FOUND")),
                }
            }
            epochs
        });
    }
    let mut used = HashSet::new();
    while let Some(epochs) = soon("the clients end", racing.join_next()).await {
        for epoch in epochs.unwrap() {
            // Registrations start at 0 as long as no epoch was used.
            assert!(epoch == 0 || used.insert(epoch), "epoch {epoch} was given twice");
        }
    }
}

#[tokio::test]
async fn refused_creations_do_not_use_up_ids() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let sql = broker.sql().await;
    let last_ids = async || {
        let last = "select (select last_value from trunkline.topic_id_seq),
                           (select last_value from trunkline.consumer_topic_id_seq)";
        let row = sql.query_one(last, &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    let before = last_ids().await;
    for _ in 0..3 {
        let request =
            proto::CreateTopicRequest { topic: "orders".to_owned(), ..Default::default() };
        let refused = broker.topics().create_topic(request).await;
        assert_refused(refused, Code::AlreadyExists, "TOPIC_EXISTS");
        let request = proto::RegisterConsumerRequest {
            topic: "orders".to_owned(),
            consumer_id: "billing".to_owned(),
            ..Default::default()
        };
        let refused = broker.consumers().register_consumer(request).await;
        assert_refused(refused, Code::AlreadyExists, "CONSUMER_EXISTS");
    }
    assert_eq!(last_ids().await, before);
}

#[tokio::test]
async fn when_ids_are_used_up_existing_topics_and_consumers_still_work() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let sql = broker.sql().await;
    sql.batch_execute(
        "alter table trunkline.topic alter column id restart with 2147483647;
         alter table trunkline.consumer_topic alter column id restart with 2147483647",
    )
    .await
    .unwrap();
    // The last ids work.
    broker.topic("last").await;
    broker.consumer("last", "last").await;
    broker.publish("last", ["a"]).await;
    let mut stream = broker.consume("last", "last").await;
    assert_eq!(stream.payloads(1).await, ["a"]);

    let request = proto::CreateTopicRequest { topic: "one-more".to_owned(), ..Default::default() };
    let refused = broker.topics().create_topic(request).await;
    let metadata = assert_refused(refused, Code::ResourceExhausted, "NUMBERS_USED_UP");
    assert_eq!(metadata["what"], "topic");
    let request = proto::RegisterConsumerRequest {
        topic: "orders".to_owned(),
        consumer_id: "one-more".to_owned(),
        ..Default::default()
    };
    let refused = broker.consumers().register_consumer(request).await;
    let metadata = assert_refused(refused, Code::ResourceExhausted, "NUMBERS_USED_UP");
    assert_eq!(metadata["what"], "consumer");

    // Existing names are still found and work.
    let request = proto::CreateTopicRequest { topic: "orders".to_owned(), ..Default::default() };
    let refused = broker.topics().create_topic(request).await;
    assert_refused(refused, Code::AlreadyExists, "TOPIC_EXISTS");
    broker.publish("orders", ["b"]).await;
    let mut stream = broker.consume("orders", "billing").await;
    assert_eq!(stream.payloads(1).await, ["b"]);
    broker.delete_topic("orders").await;
    until("the topic's messages are deleted", async || broker.batches().await == 1).await;
}
