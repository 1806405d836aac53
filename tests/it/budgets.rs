//! The bytes of publishes, and of unread answers, that an owner may have in a broker.

use std::net::Ipv4Addr;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{FutureExt as _, future::join_all};
use h2::RecvStream;
use http::Response;
use prost::Message as _;
use tonic::Code;
use trunkline::proto;

use crate::support::{
    PRODUCER, PublishStream, RawClient, TestBroker, info, message, read, soon, until,
};

const PUBLISH: &str = "trunkline.v1.ProducerService/Publish";

const READ: &str = "trunkline.v1.TopicService/ReadMessages";

const MIB: usize = 1024 * 1024;

/// The largest share of an owner.
const SHARE: usize = 64 * MIB;

/// What the messages of a large request are charged besides their bytes.
const OVERHEAD: usize = 10_000 * 96;

/// Whether the share of the one client that publishes has so many bytes left.
fn is_free(broker: &TestBroker, bytes: usize) -> bool {
    broker.budget.held() + bytes <= SHARE
}

fn publish(text: &str) -> proto::PublishRequest {
    proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: vec![message(text.to_owned())],
        ..Default::default()
    }
}

/// The beginning of a request that claims to have so many bytes.
fn beginning(length: usize) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(length as u32);
    bytes.put_slice(b"\x0a");
    bytes.freeze()
}

#[tokio::test]
async fn half_sent_publishes_of_one_client_do_not_stall_another() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let greedy = RawClient::connect(&broker.endpoint).await;
    let large = 16 * MIB;
    let rest = SHARE - 3 * (large + OVERHEAD) - OVERHEAD;
    let mut half_sent = Vec::new();
    for length in [large, large, large, rest] {
        let (answer, mut body) = greedy.begin(PUBLISH, &[]).await;
        body.send_data(beginning(length), false).unwrap();
        half_sent.push((answer, body));
    }
    until("its share is used up", async || !is_free(&broker, 1)).await;

    let small = publish("of the greedy one").encode_to_vec();
    let requests = [small.as_slice()];
    let mut waiting = Box::pin(greedy.call(PUBLISH, &[], &requests));
    assert!(waiting.as_mut().now_or_never().is_none());

    let other = RawClient::connect_from(Ipv4Addr::new(127, 0, 0, 2), &broker.endpoint).await;
    let small = publish("of another one").encode_to_vec();
    let answer = soon("an answer", other.call(PUBLISH, &[], &[&small])).await;
    assert_eq!(answer.messages.len(), 1, "{:?}", answer.status);
    assert!(waiting.as_mut().now_or_never().is_none(), "its owner has nothing left");
    assert_eq!(broker.read_payloads("orders").await, ["of another one"]);

    // What was half sent is given up.
    half_sent.iter_mut().for_each(|(_, body)| body.send_reset(h2::Reason::CANCEL));
    let answer = soon("an answer", waiting).await;
    assert_eq!(answer.messages.len(), 1, "{:?}", answer.status);
    let stored = ["of another one", "of the greedy one"];
    assert_eq!(broker.read_payloads("orders").await, stored);
}

#[tokio::test]
async fn what_publishes_are_charged_is_returned_with_their_answers() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    assert!(broker.try_publish("orders", PRODUCER, vec![vec![7; MIB]; 15]).await.is_ok());
    assert!(broker.try_publish("orders", "stranger", ["x"]).await.is_err());
    assert!(broker.try_publish("orders", PRODUCER, Vec::<Bytes>::new()).await.is_err());
    let mut stream = PublishStream::open(&broker).await;
    for number in 0..100 {
        let topic = if number % 10 == 0 { "" } else { "orders" }.to_owned();
        let (producer_id, messages) = (PRODUCER.to_owned(), vec![message(vec![7; MIB])]);
        let request =
            proto::PublishStreamRequest { topic, producer_id, messages, ..Default::default() };
        stream.send(request).await;
    }
    // More than the share has passed by then.
    for _ in 0..100 {
        stream.answer().await;
    }
    until("all bytes are returned", async || is_free(&broker, SHARE)).await;
}

#[tokio::test]
async fn the_largest_request_fits_into_the_share_of_one_client() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    // As many bytes as are decoded, in as many messages as are allowed.
    let mut request = publish("");
    request.messages = vec![message(vec![7; 1_665]); 10_000];
    let left = 16 * MIB - request.encoded_len();
    assert!(left < 10_000 * 20, "{left} bytes are left");
    let raw = RawClient::connect(&broker.endpoint).await;
    let answer = raw.call(PUBLISH, &[], &[&request.encode_to_vec()]).await;
    assert_eq!(answer.messages.len(), 1, "{:?}", answer.status);
}

/// Makes a call, and reads only the headers of its answer.
async fn unread(client: &RawClient, request: &impl prost::Message) -> Response<RecvStream> {
    let (answer, mut body) = client.begin(READ, &[]).await;
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(request.encoded_len() as u32);
    request.encode(&mut framed).unwrap();
    body.send_data(framed.freeze(), true).unwrap();
    soon("an answer", answer).await.unwrap()
}

#[tokio::test]
async fn answers_that_a_client_does_not_read_are_limited_and_hold_up_no_other_client() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.try_publish("orders", PRODUCER, vec![vec![7; MIB]; 3]).await.unwrap();
    let request = proto::ReadMessagesRequest { topic: "orders".to_owned(), ..Default::default() };
    let lazy = RawClient::connect(&broker.endpoint).await;
    let mut unread_answers = Vec::new();
    let refused = loop {
        let answer = unread(&lazy, &request).await;
        if answer.headers().contains_key("grpc-status") {
            break read(answer).await;
        }
        unread_answers.push(answer);
        assert!(unread_answers.len() < 100, "there is no limit");
    };
    let metadata = info(&refused.status.unwrap(), Code::ResourceExhausted, "ANSWERS_UNREAD");
    assert_eq!(metadata["limit"], (64 * MIB).to_string());

    let other = RawClient::connect_from(Ipv4Addr::new(127, 0, 0, 2), &broker.endpoint).await;
    let answer = soon("an answer", other.call(READ, &[], &[&request.encode_to_vec()])).await;
    assert_eq!(answer.messages.len(), 1, "{:?}", answer.status);

    // All at once, as they share the connection's flow control.
    for answer in join_all(unread_answers.into_iter().map(read)).await {
        assert_eq!(answer.messages.len(), 1);
    }
    let answer = soon("an answer", lazy.call(READ, &[], &[&request.encode_to_vec()])).await;
    assert_eq!(answer.messages.len(), 1, "{:?}", answer.status);
}

#[tokio::test]
async fn large_requests_of_one_connection_are_answered_though_they_exceed_its_flow_control() {
    let broker = TestBroker::start().await;
    let raw = RawClient::connect(&broker.endpoint).await;
    let mut request = publish("");
    // Nothing is stored, as there is no such topic.
    request.messages = vec![message(vec![7; MIB]); 15];
    let request = request.encode_to_vec();
    let requests = [request.as_slice()];
    let calls = (0..16).map(|_| raw.call(PUBLISH, &[], &requests));
    let answers = join_all(calls).await;
    let codes: Vec<_> =
        answers.iter().map(|answer| answer.status.as_ref().unwrap().code()).collect();
    assert!(codes.contains(&Code::NotFound), "{codes:?}");
    for answer in answers {
        let status = answer.status.unwrap();
        match status.code() {
            Code::NotFound => {}
            _ => drop(info(&status, Code::Unavailable, "TOO_MANY_PUBLISHES")),
        }
    }
}
