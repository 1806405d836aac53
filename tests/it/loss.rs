//! A database that comes back without messages that it had acknowledged, as a standby that was
//! behind does, or a backup.

use tonic::Code;
use trunkline::proto::{self, consume_response::Event};

use crate::support::{TestBroker, info, until};

/// Ten messages, of which the last five are gone, and the positions that stood behind them.
async fn lose_messages(broker: &TestBroker) {
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
async fn each_consumer_is_told_once_of_messages_that_were_lost() {
    let broker = with_ten_messages().await;
    lose_messages(&broker).await;
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
async fn a_stream_that_stands_behind_what_was_lost_ends() {
    let broker = with_ten_messages().await;
    let mut stream = broker.consume("orders", "billing").await;
    assert_eq!(stream.payloads(10).await.len(), 10);
    lose_messages(&broker).await;
    // Nothing wakes it but the poll.
    let metadata = info(&stream.ended().await, Code::DataLoss, "MESSAGES_LOST");
    assert_eq!((&*metadata["first_offset"], &*metadata["end_offset"]), ("5", "10"));
    broker.publish("orders", ["new"]).await;
    let mut next = None;
    until("the consumer goes on", async || {
        let mut stream = broker.consume("orders", "billing").await;
        loop {
            match stream.try_next().await {
                Ok(Event::Batch(batch)) => {
                    next = batch.messages.first().map(|message| message.payload.clone());
                    return true;
                }
                Ok(_) => {}
                // The poll has found it too.
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

/// Neither asked again for its position, nor stands behind what was lost.
#[tokio::test]
async fn a_slow_stream_and_a_standby_are_told_when_they_read_on() {
    let broker = with_ten_messages().await;
    let few = |consumer| proto::ConsumeRequest {
        commit_mode: proto::CommitMode::Manual.into(),
        max_in_flight: 3,
        ..TestBroker::request("orders", consumer)
    };
    let mut slow = broker.open(few("billing")).await;
    let mut holder = broker.open(few("shipping")).await;
    for stream in [&mut slow, &mut holder] {
        assert_eq!(stream.payloads(3).await.len(), 3);
    }
    let mut standby = broker.open(few("shipping")).await;
    standby.standby().await;
    broker.consumer("orders", "another").await;
    lose_messages(&broker).await;
    // By then it is known.
    let mut another = broker.consume("orders", "another").await;
    info(&another.ended().await, Code::DataLoss, "MESSAGES_LOST");
    slow.commit(3).await.unwrap();
    drop(holder);
    for stream in [&mut slow, &mut standby] {
        let metadata = info(&stream.ended().await, Code::DataLoss, "MESSAGES_LOST");
        assert_eq!((&*metadata["first_offset"], &*metadata["end_offset"]), ("5", "10"));
    }
}

/// The head alone does not tell: it is as far as it was, and farther.
#[tokio::test]
async fn a_loss_is_found_though_others_were_given_the_offsets_since() {
    let broker = with_ten_messages().await;
    broker.publish("orders", ["x"; 2]).await;
    lose_messages(&broker).await;
    // One that was not there, and knows of nothing.
    let other = broker.start_another().await;
    for _ in 0..3 {
        other.publish("orders", ["new"; 5]).await;
    }
    // What serves the other database are other sessions.
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name like 'trunkline%'";
    broker.sql().await.query(end, &[]).await.unwrap();
    let mut told = None;
    until("the consumer is told", async || {
        let request = TestBroker::request("orders", "billing");
        let Ok(stream) = broker.consumers().consume(request).await else { return false };
        let mut stream = stream.into_inner();
        // It may be let in, and read, before anybody has looked.
        loop {
            match stream.message().await {
                Ok(_) => {}
                Err(status) if status.code() == Code::Unavailable => return false,
                Err(status) => {
                    told = Some(status);
                    return true;
                }
            }
        }
    })
    .await;
    let metadata = info(&told.unwrap(), Code::DataLoss, "MESSAGES_LOST");
    assert_eq!((&*metadata["first_offset"], &*metadata["end_offset"]), ("5", "12"));
}

/// Its position would lie beyond the head, and what others publish then would be passed over.
#[tokio::test]
async fn what_was_lost_cannot_be_committed() {
    let broker = with_ten_messages().await;
    let request = proto::ConsumeRequest {
        commit_mode: proto::CommitMode::Manual.into(),
        ..TestBroker::request("orders", "billing")
    };
    let mut stream = broker.open(request).await;
    assert_eq!(stream.payloads(10).await.len(), 10);
    lose_messages(&broker).await;
    let refused = stream.commit(10).await.unwrap_err();
    let metadata = info(&refused, Code::OutOfRange, "COMMIT_BEYOND");
    assert_eq!((&*metadata["asked"], &*metadata["delivered"]), ("10", "5"));
    assert_eq!(broker.position("orders", "billing").await, 0);
}

#[tokio::test]
async fn a_pull_is_told_too() {
    let broker = with_ten_messages().await;
    assert_eq!(broker.pull("orders", "billing", 10).await.unwrap().messages.len(), 10);
    lose_messages(&broker).await;
    let lost = broker.pull("orders", "billing", 10).await.unwrap_err();
    info(&lost, Code::DataLoss, "MESSAGES_LOST");
    broker.publish("orders", ["new"]).await;
    assert_eq!(broker.pull("orders", "billing", 10).await.unwrap().messages.len(), 1);
}

/// Only a part of the database was put back.
#[tokio::test]
async fn a_position_beyond_the_head_is_a_loss() {
    let broker = with_ten_messages().await;
    let sql = broker.sql().await;
    sql.batch_execute("update trunkline.consumer_topic set position = 12").await.unwrap();
    let mut stream = broker.consume("orders", "billing").await;
    let metadata = info(&stream.ended().await, Code::DataLoss, "MESSAGES_LOST");
    assert_eq!((&*metadata["first_offset"], &*metadata["end_offset"]), ("10", "12"));
}
