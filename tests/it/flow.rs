//! Flow control of streams: messages in flight, the size of frames, heartbeats.

use std::time::Duration;

use tonic::Status;
use trunkline::proto::{self, CommitMode, consume_response::Event};

use crate::support::{TestBroker, TestStream, assert_field};

const HEARTBEAT: prost_types::Duration = prost_types::Duration { seconds: 0, nanos: 100_000_000 };

async fn with_ten_messages() -> TestBroker {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]).await;
    broker
}

/// A manual stream with frequent heartbeats: a heartbeat shows that no message is about to come.
async fn open_with_max_in_flight(broker: &TestBroker, max_in_flight: i32) -> TestStream {
    broker
        .open(proto::ConsumeRequest {
            commit_mode: CommitMode::Manual.into(),
            heartbeat_interval: Some(HEARTBEAT),
            max_in_flight,
            ..TestBroker::request("orders", "billing")
        })
        .await
}

#[tokio::test]
async fn delivery_stops_at_the_limit_in_flight_until_messages_are_committed() {
    let broker = with_ten_messages().await;
    let other = broker.start_another().await;
    let mut stream = open_with_max_in_flight(&broker, 3).await;
    assert_eq!(stream.payloads(3).await, ["0", "1", "2"]);
    assert_eq!(stream.heartbeat_without_messages().await, 0);
    stream.commit(2).await.unwrap();
    assert_eq!(stream.payloads(2).await, ["3", "4"]);
    assert_eq!(stream.heartbeat_without_messages().await, 2);
    // Any broker accepts the commit.
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let commit = proto::CommitRequest { topic, consumer_id, epoch: stream.epoch, position: 5 };
    other.consumers().commit(commit).await.unwrap();
    assert_eq!(stream.payloads(3).await, ["5", "6", "7"]);
    stream.commit(8).await.unwrap();
    assert_eq!(stream.payloads(2).await, ["8", "9"]);
    let Event::CaughtUp(_) = stream.next().await else { panic!("caught up expected") };
    // In a new stream, uncommitted messages are in flight again, up to the limit.
    drop(stream);
    broker.publish("orders", ["10", "11", "12"]).await;
    let mut stream = open_with_max_in_flight(&broker, 3).await;
    assert_eq!(stream.payloads(3).await, ["8", "9", "10"]);
    assert_eq!(stream.heartbeat_without_messages().await, 8);
}

#[tokio::test]
async fn a_seek_resets_the_messages_in_flight() {
    let broker = with_ten_messages().await;
    let mut stream = open_with_max_in_flight(&broker, 2).await;
    stream.messages(2).await;
    stream.heartbeat_without_messages().await;
    let target = proto::seek_request::Target::Offset(7);
    broker.seek("orders", "billing", target).await.unwrap();
    stream.repositioned().await;
    assert_eq!(stream.payloads(2).await, ["7", "8"]);
    assert_eq!(stream.heartbeat_without_messages().await, 7);
}

#[tokio::test]
async fn removed_messages_do_not_count_as_in_flight() {
    let broker = with_ten_messages().await;
    let mut stream = open_with_max_in_flight(&broker, 2).await;
    stream.messages(2).await;
    stream.heartbeat_without_messages().await;
    broker.trim("orders", 6).await;
    stream.commit(1).await.unwrap();
    assert_eq!(stream.gap().await, (2, 6));
    assert_eq!(stream.payloads(2).await, ["6", "7"]);
    stream.commit(8).await.unwrap();
    assert_eq!(stream.payloads(2).await, ["8", "9"]);
}

#[tokio::test]
async fn frames_respect_the_requested_limits() {
    let broker = with_ten_messages().await;
    let large = "x".repeat(5_000);
    broker.publish("orders", [large.as_str(); 3]).await;
    let mut stream = broker
        .open(proto::ConsumeRequest {
            max_batch_messages: 4,
            ..TestBroker::request("orders", "billing")
        })
        .await;
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 13 {
        sizes.push(stream.next_messages().await.len());
    }
    assert!(sizes.iter().all(|size| *size <= 4), "{sizes:?}");
    drop(stream);
    let target = proto::seek_request::Target::Offset(0);
    broker.seek("orders", "billing", target).await.unwrap();
    let mut stream = broker
        .open(proto::ConsumeRequest {
            max_batch_bytes: 200,
            ..TestBroker::request("orders", "billing")
        })
        .await;
    let mut count = 0;
    while count < 13 {
        let messages = stream.next_messages().await;
        let bytes: usize = messages.iter().map(prost::Message::encoded_len).sum();
        assert!(bytes <= 200 || messages.len() == 1, "{bytes} bytes in {}", messages.len());
        count += messages.len();
    }
}

#[tokio::test]
async fn invalid_flow_limits_are_refused() {
    let broker = with_ten_messages().await;
    let refused = async |request| -> Result<(), Status> {
        broker.consumers().consume(request).await.map(|_| ())
    };
    let request = || TestBroker::request("orders", "billing");
    let auto = proto::ConsumeRequest { max_in_flight: 1, ..request() };
    assert_field(refused(auto).await, "max_in_flight", None);
    let commit_mode = CommitMode::Manual.into();
    let negative = proto::ConsumeRequest { max_in_flight: -1, commit_mode, ..request() };
    assert_field(refused(negative).await, "max_in_flight", None);
    let negative = proto::ConsumeRequest { max_batch_messages: -1, ..request() };
    assert_field(refused(negative).await, "max_batch_messages", None);
    let negative = proto::ConsumeRequest { max_batch_bytes: -1, ..request() };
    assert_field(refused(negative).await, "max_batch_bytes", None);
}

#[tokio::test]
async fn a_stream_sends_heartbeats_at_the_requested_interval() {
    let broker = with_ten_messages().await;
    let mut stream = open_with_max_in_flight(&broker, 0).await;
    stream.read_to_end().await;
    let started = std::time::Instant::now();
    for _ in 0..5 {
        stream.heartbeat_without_messages().await;
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(400), "{took:?}");
}
