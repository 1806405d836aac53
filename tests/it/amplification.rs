//! Requests that are small on the wire and would be large in memory, and requests that are too
//! large for their call.

use bytes::BufMut as _;
use prost::Message as _;
use tonic::{Code, Status};
use trunkline::{client::Client, proto};

use crate::support::{
    PRODUCER, RawClient, TestBroker, TestDatabase, Trunkline, assert_field, info, message, soon,
};

const PUBLISH: &str = "trunkline.v1.ProducerService/Publish";

/// The most that a call other than a publish may send.
const MAX_CALL_BYTES: usize = 128 * 1024;

async fn refusal(client: &RawClient, method: &str, request: &[u8]) -> Status {
    let answer = soon(method, client.call(method, &[], &[request])).await;
    answer.status.unwrap_or_else(|| panic!("{method} was not refused"))
}

/// A request followed by empty elements of a repeated field, of two bytes each.
fn with_empty_elements(request: &impl prost::Message, field: u32, count: usize) -> Vec<u8> {
    let mut bytes = request.encode_to_vec();
    (0..count).for_each(|_| bytes.put_slice(&[(field << 3 | 2) as u8, 0]));
    bytes
}

fn publish() -> proto::PublishRequest {
    let (topic, producer_id) = ("orders".to_owned(), PRODUCER.to_owned());
    proto::PublishRequest { topic, producer_id, ..Default::default() }
}

/// The most memory that a process has used, in bytes.
#[cfg(target_os = "linux")]
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn eight_million_empty_messages_take_no_more_memory_than_their_bytes() {
    const EMPTY_MESSAGES: usize = 8_000_000;
    let database = TestDatabase::create().await;
    let (broker, endpoint) =
        Trunkline::serve(&["--listen", "127.0.0.1:0", "--database-url", &database.url]).await;
    let client = Client::connect(&endpoint).await.unwrap();
    let topic = "orders".to_owned();
    let request = proto::CreateTopicRequest { topic, ..Default::default() };
    client.topics().create_topic(request).await.unwrap();
    let before = peak_memory(broker.pid());
    let request = with_empty_elements(&publish(), 3, EMPTY_MESSAGES);
    let raw = RawClient::connect(&endpoint).await;
    let status = refusal(&raw, PUBLISH, &request).await;
    let metadata = info(&status, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!((metadata["field"].as_str(), metadata["limit"].as_str()), ("messages", "10000"));
    assert!(status.message().contains(&EMPTY_MESSAGES.to_string()), "{status:?}");
    let grown = peak_memory(broker.pid()) - before;
    // The request, once as it arrives and once while its buffer grows, and some room.
    assert!(grown < 96 * 1024 * 1024, "{grown} bytes");
}

#[tokio::test]
async fn headers_and_labels_over_the_limit_are_counted_and_refused() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let raw = RawClient::connect(&broker.endpoint).await;

    let crowded = with_empty_elements(&message("x"), 3, 65);
    let mut request = publish().encode_to_vec();
    request.extend([3 << 3 | 2]);
    prost::encoding::encode_varint(crowded.len() as u64, &mut request);
    request.extend(crowded);
    let refused = refusal(&raw, PUBLISH, &request).await;
    assert_field(Err::<(), _>(refused), "messages[0].headers", Some(64));

    let topic = "bills".to_owned();
    let create = proto::CreateTopicRequest { topic: topic.clone(), ..Default::default() };
    let update = proto::UpdateTopicRequest { topic, ..Default::default() };
    for (method, request) in [
        ("CreateTopic", with_empty_elements(&create, 3, 60_000)),
        ("UpdateTopic", with_empty_elements(&update, 3, 60_000)),
    ] {
        let method = format!("trunkline.v1.TopicService/{method}");
        let refused = refusal(&raw, &method, &request).await;
        assert!(refused.message().contains("60000"), "{refused:?}");
        assert_field(Err::<(), _>(refused), "labels", Some(64));
    }
}

#[tokio::test]
async fn only_publishes_may_be_larger_than_128_kib() {
    let broker = TestBroker::start().await;
    let raw = RawClient::connect(&broker.endpoint).await;
    let too_large = vec![0; MAX_CALL_BYTES + 1];
    for method in [
        "trunkline.v1.TopicService/CreateTopic",
        "trunkline.v1.TopicService/ListTopics",
        "trunkline.v1.ProducerService/RegisterProducer",
        "trunkline.v1.ConsumerService/Consume",
        "trunkline.v1.ConsumerService/Commit",
        "grpc.health.v1.Health/Check",
    ] {
        let status = refusal(&raw, method, &too_large).await;
        let metadata = info(&status, Code::ResourceExhausted, "REQUEST_TOO_LARGE");
        assert_eq!(metadata["limit"], MAX_CALL_BYTES.to_string(), "{method}");
    }
    let too_large = vec![0; 16 * 1024 * 1024 + 1];
    let status = refusal(&raw, PUBLISH, &too_large).await;
    let metadata = info(&status, Code::ResourceExhausted, "REQUEST_TOO_LARGE");
    assert_eq!(metadata["limit"], (16 * 1024 * 1024).to_string());
}

#[tokio::test]
async fn the_largest_valid_requests_fit() {
    let broker = TestBroker::start().await;
    let labels = (0..64).map(|n| (format!("{n:03}{}", "n".repeat(60)), "v".repeat(193))).collect();
    let request = proto::CreateTopicRequest {
        topic: "x".repeat(255),
        description: "d".repeat(1_024),
        labels,
        ..Default::default()
    };
    broker.topics().create_topic(request.clone()).await.unwrap();
    let update = proto::UpdateTopicRequest {
        topic: request.topic,
        description: request.description,
        labels: request.labels,
        ..Default::default()
    };
    broker.topics().update_topic(update).await.unwrap();
}

#[tokio::test]
async fn a_page_token_longer_than_any_is_refused_with_the_limit() {
    let broker = TestBroker::start().await;
    let page_token = "A".repeat(1_025);
    let request = proto::ListTopicsRequest { page_token, ..Default::default() };
    assert_field(broker.topics().list_topics(request).await, "page_token", Some(1_024));
}
