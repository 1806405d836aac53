//! What every call has in common: deadlines, metadata, and refusals of malformed requests.

use futures_util::future::join_all;
use prost::Message as _;
use tonic::{Code, Status};
use trunkline::proto::{
    self, PublishStreamResponse, publish_stream_response::Result as ProtoResult,
};

use crate::support::{PRODUCER, RawClient, TestBroker, assert_field, info, message, read, soon};

const TOPICS: &str = "trunkline.v1.TopicService";
const PRODUCERS: &str = "trunkline.v1.ProducerService";
const CONSUMERS: &str = "trunkline.v1.ConsumerService";
const OVERVIEW: &str = "trunkline.v1.OverviewService";

async fn with_consumer() -> (TestBroker, RawClient) {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let client = RawClient::connect(&broker.endpoint).await;
    (broker, client)
}

fn timeout(text: &str) -> [(&'static str, String); 1] {
    [("grpc-timeout", text.to_owned())]
}

async fn refused(
    client: &RawClient,
    method: &str,
    headers: &[(&'static str, String)],
    message: &[u8],
) -> Status {
    let answer = soon(method, client.call(method, headers, &[message])).await;
    assert_eq!(answer.http_status, 200, "{method}");
    answer.status.unwrap_or_else(|| panic!("{method} was not refused"))
}

fn publish(payload: &str) -> proto::PublishRequest {
    proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: vec![message(payload.to_owned())],
        ..Default::default()
    }
}

struct UnaryCall {
    method: String,
    request: Vec<u8>,
    /// Whether it changes anything.
    changes: bool,
}

/// Every unary call of the broker's services.
fn unary_calls() -> Vec<UnaryCall> {
    // Most requests begin with the same two fields: a topic and an id.
    let topic = proto::GetTopicRequest { topic: "orders".to_owned() }.encode_to_vec();
    let producer =
        proto::GetProducerRequest { topic: "orders".to_owned(), producer_id: PRODUCER.to_owned() };
    let producer = producer.encode_to_vec();
    let consumer =
        proto::GetConsumerRequest { topic: "orders".to_owned(), consumer_id: "billing".to_owned() };
    let consumer = consumer.encode_to_vec();
    let update = proto::UpdateTopicRequest {
        topic: "orders".to_owned(),
        description: "changed".to_owned(),
        ..Default::default()
    };
    let trim = proto::TrimTopicRequest {
        topic: "orders".to_owned(),
        before: Some(proto::trim_topic_request::Before::Offset(0)),
    };
    let commit = proto::CommitRequest {
        topic: "orders".to_owned(),
        consumer_id: "billing".to_owned(),
        epoch: 1,
        position: 0,
    };
    let other = proto::CreateTopicRequest { topic: "other".to_owned(), ..Default::default() };
    [
        (TOPICS, "GetTopic", topic.clone(), false),
        (TOPICS, "ListTopics", Vec::new(), false),
        (TOPICS, "ReadMessages", topic.clone(), false),
        (TOPICS, "CreateTopic", other.encode_to_vec(), true),
        (TOPICS, "UpdateTopic", update.encode_to_vec(), true),
        (TOPICS, "TrimTopic", trim.encode_to_vec(), true),
        (TOPICS, "DeleteTopic", topic.clone(), true),
        (OVERVIEW, "GetOverview", Vec::new(), false),
        (PRODUCERS, "GetProducer", producer.clone(), false),
        (PRODUCERS, "ListProducers", topic.clone(), false),
        (PRODUCERS, "RegisterProducer", producer.clone(), true),
        (PRODUCERS, "UnregisterProducer", producer, true),
        (PRODUCERS, "Publish", publish("a").encode_to_vec(), true),
        (CONSUMERS, "GetConsumer", consumer.clone(), false),
        (CONSUMERS, "ListConsumers", topic, false),
        (CONSUMERS, "RegisterConsumer", consumer.clone(), true),
        (CONSUMERS, "Seek", consumer.clone(), true),
        (CONSUMERS, "Commit", commit.encode_to_vec(), true),
        (CONSUMERS, "Pull", consumer.clone(), true),
        (CONSUMERS, "UnregisterConsumer", consumer, true),
    ]
    .map(|(service, method, request, changes)| {
        let method = format!("{service}/{method}");
        UnaryCall { method, request, changes }
    })
    .into()
}

#[tokio::test]
async fn every_unary_call_is_answered_at_its_deadline() {
    let (broker, client) = with_consumer().await;
    let sql = broker.sql().await;
    let lock = "begin; lock table trunkline.topic, trunkline.topic_head, trunkline.producer_topic,
        trunkline.consumer_topic, trunkline.batch in access exclusive mode";
    sql.batch_execute(lock).await.unwrap();
    let calls = unary_calls();
    let client = &client;
    let answers = join_all(calls.iter().map(|call| async move {
        refused(client, &call.method, &timeout("300m"), &call.request).await
    }));
    let answers = answers.await;
    sql.batch_execute("rollback").await.unwrap();
    for (call, status) in calls.iter().zip(answers) {
        // A pull may be sure that it took nothing.
        let pull_took_nothing =
            call.method.ends_with("Pull") && !status.message().contains("unknown");
        let changed_nothing = !call.changes || pull_took_nothing;
        let reason = if changed_nothing { "DEADLINE_EXCEEDED" } else { "OUTCOME_UNKNOWN" };
        info(&status, Code::DeadlineExceeded, reason);
    }
    // The connection is still usable.
    let list = &calls[1];
    let answer = client.call(&list.method, &timeout("20S"), &[&list.request]).await;
    assert!(client.is_open());
    assert_eq!(answer.status.map(|status| status.code()), Some(Code::Ok));
}

#[tokio::test]
async fn a_call_with_a_passed_or_malformed_deadline_does_nothing() {
    let (broker, client) = with_consumer().await;
    let method = format!("{PRODUCERS}/Publish");
    let request = publish("a").encode_to_vec();
    let status = refused(&client, &method, &timeout("0m"), &request).await;
    info(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    for bad in ["-1S", "1", "1s", "123456789S", "soon", ""] {
        let status = refused(&client, &method, &timeout(bad), &request).await;
        assert_field(Err::<(), _>(status), "grpc-timeout", None);
    }
    assert_eq!(broker.publish("orders", ["the first"]).await, 0);
}

#[tokio::test]
async fn a_call_whose_request_never_arrives_is_answered_at_its_deadline() {
    let (_broker, client) = with_consumer().await;
    let method = format!("{PRODUCERS}/Publish");
    let (response, _body) = client.begin(&method, &timeout("300m")).await;
    let answer = read(soon("an answer", response).await.unwrap()).await;
    let status = answer.status.unwrap();
    info(&status, Code::DeadlineExceeded, "OUTCOME_UNKNOWN");
}

#[tokio::test]
async fn metadata_is_accepted_up_to_its_limit_and_refused_beyond_it() {
    let (broker, client) = with_consumer().await;
    let mut stream = broker.consume("orders", "billing").await;
    stream.attached().await;
    let method = format!("{TOPICS}/GetTopic");
    let request = proto::GetTopicRequest { topic: "orders".to_owned() }.encode_to_vec();
    let header = |bytes: usize| [("x-baggage", "v".repeat(bytes))];
    let small: Vec<_> = (0..300).map(|_| ("x-entry", "v".repeat(20))).collect();
    for accepted in [&small[..], &header(60_000)] {
        let answer = client.call(&method, accepted, &[&request]).await;
        assert_eq!(answer.status.map(|status| status.code()), Some(Code::Ok));
    }
    let many: Vec<_> = (0..1_200).map(|_| ("x-entry", "v".repeat(20))).collect();
    for too_large in [&many[..], &header(66_000), &header(130_000)] {
        let status = refused(&client, &method, too_large, &request).await;
        let metadata = info(&status, Code::ResourceExhausted, "METADATA_TOO_LARGE");
        assert_eq!(metadata["limit"], (64 * 1024).to_string());
    }
    let entries: Vec<_> = (0..600).map(|_| ("a", String::new())).collect();
    let status = refused(&client, &method, &entries, &request).await;
    let metadata = info(&status, Code::ResourceExhausted, "METADATA_TOO_LARGE");
    assert_eq!(metadata["limit"], "512");
    // Beyond what the broker reads at all, HTTP/2 answers, and the connection stays open.
    for bytes in [132_000, 150_000] {
        let (response, _body) = client.begin(&method, &header(bytes)).await;
        let answer = soon("an answer", response).await;
        assert!(answer.is_err() || answer.unwrap().status() == 431);
    }
    let answer = client.call(&method, &[], &[&request]).await;
    assert_eq!(answer.status.map(|status| status.code()), Some(Code::Ok));
    // Far beyond that, the connection ends, and others go on.
    let flooding = RawClient::connect(&broker.endpoint).await;
    let (response, _body) = flooding.begin(&method, &header(1_000_000)).await;
    assert!(soon("an end", response).await.is_err());
    broker.publish("orders", ["a"]).await;
    assert_eq!(stream.payloads(1).await, ["a"]);
}

/// A request whose header has bytes that are not UTF-8 in place of its name or value.
fn with_bad_header(at: &[u8]) -> Vec<u8> {
    let mut request = publish("a");
    request.messages[0].headers.insert("nn".to_owned(), "vv".to_owned());
    let mut bytes = request.encode_to_vec();
    let index = bytes.windows(2).position(|part| part == at).unwrap();
    bytes[index..index + 2].copy_from_slice(b"\xff\xfe");
    bytes
}

#[tokio::test]
async fn a_header_that_is_not_utf8_is_refused_and_named() {
    let (broker, client) = with_consumer().await;
    for part in [b"nn", b"vv"] {
        let bad = with_bad_header(part);
        let method = format!("{PRODUCERS}/Publish");
        let status = refused(&client, &method, &[], &bad).await;
        assert_field(Err::<(), _>(status), "messages[0].headers", None);

        let good = publish("b").encode_to_vec();
        let method = format!("{PRODUCERS}/PublishStream");
        let answer = client.call(&method, &[], &[&good, &bad, &good]).await;
        assert_eq!(answer.status.unwrap().code(), Code::Ok);
        let results: Vec<_> = answer
            .messages
            .into_iter()
            .map(|message| PublishStreamResponse::decode(message).unwrap().result.unwrap())
            .collect();
        let [ProtoResult::Receipt(_), ProtoResult::Refusal(refusal), ProtoResult::Receipt(_)] =
            &results[..]
        else {
            panic!("{results:?}")
        };
        assert_eq!(refusal.code, Code::InvalidArgument as i32);
        assert_eq!(refusal.metadata["field"], "messages[0].headers");
    }
    assert_eq!(broker.publish("orders", ["the fifth"]).await, 4);
}

#[tokio::test]
async fn headers_arrive_unchanged() {
    let (broker, _client) = with_consumer().await;
    let mut request = publish("a");
    let headers = [("n\u{e4}me", "v\u{20ac}lue"), ("empty", ""), ("z", "1")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    request.messages[0].headers = headers.clone().into();
    broker.producers().publish(request).await.unwrap();
    let found = broker.pull("orders", "billing", 1).await.unwrap().messages;
    assert_eq!(found[0].headers, headers.into());
}

#[tokio::test]
async fn a_request_that_cannot_be_decoded_is_refused_as_invalid() {
    let (_broker, client) = with_consumer().await;
    // Field 1, with a length of 2 bytes.
    let not_utf8 = b"\x0a\x02\xff\xfe";
    for (service, method) in [
        (TOPICS, "GetTopic"),
        (TOPICS, "CreateTopic"),
        (TOPICS, "DeleteTopic"),
        (PRODUCERS, "RegisterProducer"),
        (PRODUCERS, "Publish"),
        (CONSUMERS, "RegisterConsumer"),
        (CONSUMERS, "Pull"),
        (CONSUMERS, "Commit"),
        (CONSUMERS, "Consume"),
    ] {
        let method = format!("{service}/{method}");
        let status = refused(&client, &method, &[], not_utf8).await;
        // This publish has no messages either, and may be refused for that.
        if !method.ends_with("/Publish") {
            assert_field(Err::<(), _>(status), "topic", None);
        }
        // A field number of 0, and a field that is shorter than its length says.
        for garbage in [&b"\0\0\0"[..], b"\x0a\x7f"] {
            let status = refused(&client, &method, &[], garbage).await;
            assert_eq!(status.code(), Code::InvalidArgument, "{method}: {status:?}");
        }
        let answer = soon("an answer", client.call(&method, &[], &[])).await;
        let status = answer.status.unwrap();
        info(&status, Code::InvalidArgument, "MALFORMED_REQUEST");
    }
    let method = format!("{PRODUCERS}/PublishStream");
    let good = publish("a").encode_to_vec();
    let answer = client.call(&method, &[], &[&good, b"\0\0\0"]).await;
    info(&answer.status.unwrap(), Code::InvalidArgument, "MALFORMED_REQUEST");
    assert_eq!(answer.messages.len(), 1);
    assert!(client.is_open());
}
