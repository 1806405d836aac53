//! A database that comes back without messages that were acknowledged, such as a standby that
//! was behind, or a backup.

use tonic::Code;
use trunkline::proto::{self, consume_response::Event};

use crate::support::{TestBroker, info, until};

/// Truncates the log to five messages, and moves positions beyond its end back.
async fn truncate(broker: &TestBroker) {
    let sql = broker.sql().await;
    sql.batch_execute(
        "begin;
        delete from trunkline.batch where base_offset >= 5;
        update trunkline.topic_head set next_offset = 5;
        update trunkline.consumer_topic set position = least(position, 5);
        commit",
    )
    .await
    .unwrap();
}

/// A broker whose topic has ten messages in two batches, and two consumers.
async fn with_ten_messages() -> TestBroker {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    for consumer in ["billing", "shipping"] {
        broker.consumer("orders", consumer).await;
    }
    for _ in 0..2 {
        broker.publish("orders", ["x"; 5]).await;
    }
    broker
}

#[tokio::test]
async fn each_consumer_is_told_of_a_truncation_once() {
    let broker = with_ten_messages().await;
    truncate(&broker).await;
    for consumer in ["billing", "shipping"] {
        let mut stream = broker.consume("orders", consumer).await;
        let metadata = info(&stream.ended().await, Code::DataLoss, "MESSAGES_LOST");
        assert_eq!(metadata["topic"], "orders");
        assert_eq!((&*metadata["first_offset"], &*metadata["end_offset"]), ("5", "10"));
    }
    broker.consumer("orders", "later").await;
    broker.publish("orders", ["new"]).await;
    for consumer in ["billing", "shipping", "later"] {
        let mut stream = broker.consume("orders", consumer).await;
        assert_eq!(stream.payloads(6).await.last().unwrap(), "new");
    }
}

#[tokio::test]
async fn a_stream_that_has_read_the_lost_messages_ends() {
    let broker = with_ten_messages().await;
    let mut stream = broker.consume("orders", "billing").await;
    assert_eq!(stream.payloads(10).await.len(), 10);
    truncate(&broker).await;
    // Only the poll finds the truncation.
    let metadata = info(&stream.ended().await, Code::DataLoss, "MESSAGES_LOST");
    assert_eq!((&*metadata["first_offset"], &*metadata["end_offset"]), ("5", "10"));
    broker.publish("orders", ["new"]).await;
    let mut next = None;
    until("the consumer can go on", async || {
        let mut stream = broker.consume("orders", "billing").await;
        loop {
            match stream.try_next().await {
                Ok(Event::Batch(batch)) => {
                    next = batch.messages.first().map(|message| message.payload.clone());
                    return true;
                }
                Ok(_) => {}
                // The poll has found the truncation as well.
                Err(status) => {
                    info(&status, Code::DataLoss, "MESSAGES_LOST");
                    return false;
                }
            }
        }
    })
    .await;
    assert_eq!(next.unwrap(), "new");
}

/// Neither of them has read the lost messages.
#[tokio::test]
async fn a_slow_stream_and_a_standby_are_told_of_a_truncation_when_they_read_on() {
    let broker = with_ten_messages().await;
    let three_in_flight = |consumer| proto::ConsumeRequest {
        commit_mode: proto::CommitMode::Manual.into(),
        max_in_flight: 3,
        ..TestBroker::request("orders", consumer)
    };
    let mut slow = broker.open(three_in_flight("billing")).await;
    let mut holder = broker.open(three_in_flight("shipping")).await;
    for stream in [&mut slow, &mut holder] {
        assert_eq!(stream.payloads(3).await.len(), 3);
    }
    let mut standby = broker.open(three_in_flight("shipping")).await;
    standby.standby().await;
    broker.consumer("orders", "another").await;
    truncate(&broker).await;
    // Once this stream has ended, the broker knows of the truncation.
    let mut another = broker.consume("orders", "another").await;
    info(&another.ended().await, Code::DataLoss, "MESSAGES_LOST");
    slow.commit(3).await.unwrap();
    drop(holder);
    for stream in [&mut slow, &mut standby] {
        let metadata = info(&stream.ended().await, Code::DataLoss, "MESSAGES_LOST");
        assert_eq!((&*metadata["first_offset"], &*metadata["end_offset"]), ("5", "10"));
    }
}

/// The head alone does not show it: it is beyond the old head again.
#[tokio::test]
async fn a_truncation_is_found_although_the_offsets_were_given_to_other_messages() {
    let broker = with_ten_messages().await;
    broker.publish("orders", ["x"; 2]).await;
    truncate(&broker).await;
    // A broker that was not there before, and does not know the old head.
    let other = broker.start_another().await;
    for _ in 0..3 {
        other.publish("orders", ["new"; 5]).await;
    }
    // After a failover all sessions are new.
    let terminate = "select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name like 'trunkline%'";
    broker.sql().await.query(terminate, &[]).await.unwrap();
    let mut ended = None;
    until("the consumer is told", async || {
        let request = TestBroker::request("orders", "billing");
        let Ok(stream) = broker.consumers().consume(request).await else { return false };
        let mut stream = stream.into_inner();
        // The stream may attach and read before the broker has checked.
        loop {
            match stream.message().await {
                Ok(_) => {}
                Err(status) if status.code() == Code::Unavailable => return false,
                Err(status) => {
                    ended = Some(status);
                    return true;
                }
            }
        }
    })
    .await;
    let metadata = info(&ended.unwrap(), Code::DataLoss, "MESSAGES_LOST");
    assert_eq!((&*metadata["first_offset"], &*metadata["end_offset"]), ("5", "12"));
}

/// The position would be beyond the head, and the consumer would skip what is published next.
#[tokio::test]
async fn lost_messages_cannot_be_committed() {
    let broker = with_ten_messages().await;
    let request = proto::ConsumeRequest {
        commit_mode: proto::CommitMode::Manual.into(),
        ..TestBroker::request("orders", "billing")
    };
    let mut stream = broker.open(request).await;
    assert_eq!(stream.payloads(10).await.len(), 10);
    truncate(&broker).await;
    let refused = stream.commit(10).await.unwrap_err();
    let metadata = info(&refused, Code::OutOfRange, "COMMIT_BEYOND");
    assert_eq!((&*metadata["asked"], &*metadata["delivered"]), ("10", "5"));
    assert_eq!(broker.position("orders", "billing").await, 0);
}

#[tokio::test]
async fn a_pull_is_told_of_a_truncation() {
    let broker = with_ten_messages().await;
    assert_eq!(broker.pull("orders", "billing", 10).await.unwrap().messages.len(), 10);
    truncate(&broker).await;
    let lost = broker.pull("orders", "billing", 10).await.unwrap_err();
    info(&lost, Code::DataLoss, "MESSAGES_LOST");
    broker.publish("orders", ["new"]).await;
    assert_eq!(broker.pull("orders", "billing", 10).await.unwrap().messages.len(), 1);
}

/// As after only a part of the database was restored.
#[tokio::test]
async fn a_position_beyond_the_head_is_reported_as_a_truncation() {
    let broker = with_ten_messages().await;
    let sql = broker.sql().await;
    sql.batch_execute("update trunkline.consumer_topic set position = 12").await.unwrap();
    let mut stream = broker.consume("orders", "billing").await;
    let metadata = info(&stream.ended().await, Code::DataLoss, "MESSAGES_LOST");
    assert_eq!((&*metadata["first_offset"], &*metadata["end_offset"]), ("10", "12"));
}
