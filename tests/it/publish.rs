//! Publishing: what is stored, and what is refused without storing anything.

use std::collections::BTreeMap;

use bytes::Bytes;
use tonic::{Code, Status};
use trunkline::proto::{
    self, NewMessage, PublishStreamRequest, publish_stream_response::Result as Answer,
};

use crate::support::{
    PublishStream, TestBroker, assert_field, assert_refused, info, message, soon, until,
};

const MIB: usize = 1024 * 1024;

fn streamed(topic: &str, producer: &str, messages: Vec<NewMessage>) -> PublishStreamRequest {
    let (topic, producer_id) = (topic.to_owned(), producer.to_owned());
    PublishStreamRequest { topic, producer_id, messages, ..Default::default() }
}

async fn publish(
    broker: &TestBroker,
    topic: &str,
    producer: &str,
    messages: Vec<NewMessage>,
) -> Result<proto::PublishResponse, Status> {
    let (topic, producer_id) = (topic.to_owned(), producer.to_owned());
    let request = proto::PublishRequest { topic, producer_id, messages, ..Default::default() };
    Ok(broker.producers().publish(request).await?.into_inner())
}

#[tokio::test]
async fn a_message_is_consumed_as_it_was_published() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let headers: BTreeMap<_, _> = [
        ("content-type".to_owned(), "application/json".to_owned()),
        ("ünïcode \"quoted\"".to_owned(), "värde\\".to_owned()),
    ]
    .into();
    let published = vec![
        NewMessage { key: Some("k1".into()), headers, ..message("with everything") },
        message(vec![0u8, 255, 0]),
        NewMessage { key: Some(Bytes::new()), ..message("") },
    ];
    let answer = publish(&broker, "orders", "producer", published.clone()).await.unwrap();
    assert_eq!((answer.first_offset, answer.count), (0, 3));

    // First read from the database, then from the broker's batch cache.
    let mut late = broker.consume_manually("orders", "billing").await;
    let stored = late.messages(3).await;
    publish(&broker, "orders", "producer", published.clone()).await.unwrap();
    let live = late.messages(3).await;
    for (offset, (received, sent)) in
        stored.iter().chain(&live).zip(published.iter().cycle()).enumerate()
    {
        assert_eq!(received.offset, offset as i64);
        assert_eq!((&received.payload, &received.key), (&sent.payload, &sent.key));
        assert_eq!(received.headers, sent.headers);
        assert_eq!(received.producer_id, "producer");
        assert!(received.publish_time.is_some());
    }
}

#[tokio::test]
async fn the_message_view_has_a_row_for_each_message() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.producer("orders", "second").await;
    let headers: BTreeMap<_, _> = [("h".to_owned(), "v".to_owned())].into();
    let full = NewMessage { key: Some("k".into()), headers, ..message("a") };
    publish(&broker, "orders", "producer", vec![full, message("b")]).await.unwrap();
    publish(&broker, "orders", "second", vec![message("c")]).await.unwrap();
    let rows = broker
        .sql()
        .await
        .query(
            r#"select topic, "offset", convert_from(payload, 'utf8'), convert_from(key, 'utf8'),
                      headers ->> 'h', producer_id, published_at <= now()
               from trunkline.message order by "offset""#,
            &[],
        )
        .await
        .unwrap();
    type Row<'a> = (&'a str, i64, &'a str, Option<&'a str>, Option<&'a str>, &'a str, bool);
    let rows: Vec<Row<'_>> = rows
        .iter()
        .map(|r| (r.get(0), r.get(1), r.get(2), r.get(3), r.get(4), r.get(5), r.get(6)))
        .collect();
    assert_eq!(
        rows,
        [
            ("orders", 0, "a", Some("k"), Some("v"), "producer", true),
            ("orders", 1, "b", None, None, "producer", true),
            ("orders", 2, "c", None, None, "second", true),
        ]
    );
}

#[tokio::test]
async fn an_invalid_publish_stores_nothing() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let refuse = async |messages, field: &str, limit| {
        assert_field(publish(&broker, "orders", "producer", messages).await, field, limit);
    };
    refuse(vec![], "messages", None).await;
    refuse(vec![message(""); 10_001], "messages", Some(10_000)).await;
    refuse(vec![message("ok"), message(vec![0; MIB + 1])], "messages[1]", Some(MIB as u64)).await;
    let keyed = NewMessage { key: Some(vec![0; MIB].into()), ..message("x") };
    refuse(vec![keyed], "messages[0]", Some(MIB as u64)).await;
    let with = |entries: Vec<(String, String)>| {
        let headers = entries.into_iter().collect();
        vec![message("ok"), NewMessage { headers, ..message("x") }]
    };
    let many = (0..65).map(|n| (n.to_string(), String::new())).collect();
    refuse(with(many), "messages[1].headers", Some(64)).await;
    let large = vec![("n".to_owned(), "v".repeat(16 * 1024))];
    refuse(with(large), "messages[1].headers", Some(16_384)).await;
    refuse(with(vec![(String::new(), "v".to_owned())]), "messages[1].headers", None).await;
    let long = vec![("n".repeat(256), "v".to_owned())];
    refuse(with(long), "messages[1].headers.name", Some(255)).await;
    refuse(with(vec![("n".to_owned(), "\0".to_owned())]), "messages[1].headers", None).await;

    assert_field(publish(&broker, "", "producer", vec![message("x")]).await, "topic", None);
    assert_field(publish(&broker, "orders", "", vec![message("x")]).await, "producer_id", None);
    let no_topic = publish(&broker, "nope", "producer", vec![message("x")]).await;
    let metadata = assert_refused(no_topic, Code::NotFound, "TOPIC_NOT_FOUND");
    assert_eq!(metadata["topic"], "nope");
    let stranger = publish(&broker, "orders", "stranger", vec![message("x")]).await;
    let metadata = assert_refused(stranger, Code::PermissionDenied, "PRODUCER_NOT_REGISTERED");
    assert_eq!(
        (metadata["topic"].as_str(), metadata["producer_id"].as_str()),
        ("orders", "stranger")
    );

    assert_eq!(broker.stored().await, 0);
    assert_eq!(broker.publish("orders", ["first"]).await, 0, "no offset was used");
}

#[tokio::test]
async fn a_request_over_the_size_limit_is_refused_with_the_limit() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let too_large = || vec![message(vec![0; MIB]); 17];
    let refused = publish(&broker, "orders", "producer", too_large()).await;
    let metadata = assert_refused(refused, Code::ResourceExhausted, "REQUEST_TOO_LARGE");
    assert_eq!(metadata["limit"], (16 * MIB).to_string());

    let mut stream = PublishStream::open(&broker).await;
    stream.send(streamed("orders", "producer", vec![message("fits")])).await;
    stream.send(streamed("orders", "producer", too_large())).await;
    assert_eq!(stream.first_offset().await, 0);
    let status = soon("the end", stream.answers.message()).await.unwrap_err();
    let metadata = info(&status, Code::ResourceExhausted, "REQUEST_TOO_LARGE");
    assert_eq!(metadata["limit"], (16 * MIB).to_string());
    assert_eq!(broker.stored().await, 1);
}

#[tokio::test]
async fn the_largest_messages_and_requests_reach_a_client_with_default_limits() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let large = vec![message(vec![7; MIB]); 15];
    assert_eq!(publish(&broker, "orders", "producer", large).await.unwrap().count, 15);
    publish(&broker, "orders", "producer", vec![message(""); 10_000]).await.unwrap();
    // Frames and pulls stay below the 4 MiB that such a client decodes.
    let mut stream = broker.consume_manually("orders", "billing").await;
    let messages = stream.messages(10_015).await;
    assert_eq!(messages.iter().filter(|message| message.payload.len() == MIB).count(), 15);
    drop(stream);
    let mut pulled = 0;
    while pulled < 10_015 {
        let answer = broker.pull("orders", "billing", 10_000).await;
        // The stream may not have released its lease yet.
        let Ok(answer) = answer else { continue };
        assert!(!answer.messages.is_empty());
        pulled += answer.messages.len();
    }
}

#[tokio::test]
async fn a_publish_stream_answers_requests_in_order_and_survives_refusals() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.topic("bills").await;
    let mut stream = PublishStream::open(&broker).await;
    stream.send(streamed("orders", "producer", vec![message("a"), message("b")])).await;
    stream.send(streamed("orders", "stranger", vec![message("no")])).await;
    stream.send(streamed("nope", "producer", vec![message("no")])).await;
    stream.send(streamed("orders", "producer", vec![])).await;
    stream.send(streamed("bills", "producer", vec![message("x")])).await;
    stream.send(streamed("orders", "producer", vec![message("c")])).await;

    assert_eq!(stream.first_offset().await, 0);
    for (code, reason, named) in [
        (Code::PermissionDenied, "PRODUCER_NOT_REGISTERED", ("producer_id", "stranger")),
        (Code::NotFound, "TOPIC_NOT_FOUND", ("topic", "nope")),
        (Code::InvalidArgument, "INVALID_FIELD", ("field", "messages")),
    ] {
        let Answer::Refusal(refusal) = stream.answer().await else { panic!("{reason} expected") };
        assert_eq!((refusal.code, refusal.reason.as_str()), (code as i32, reason));
        assert_eq!(refusal.metadata[named.0], named.1);
        assert!(!refusal.message.is_empty() && refusal.retry_delay.is_none());
    }
    assert_eq!(stream.first_offset().await, 0);
    assert_eq!(stream.first_offset().await, 2);
    let PublishStream { requests, mut answers } = stream;
    drop(requests);
    assert!(soon("the end", answers.message()).await.unwrap().is_none());
    assert_eq!(broker.stored().await, 4);
}

#[tokio::test]
async fn many_requests_in_flight_are_stored_in_order() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let PublishStream { requests, mut answers } = PublishStream::open(&broker).await;
    let sending = tokio::spawn(async move {
        for number in 0..2_000 {
            let (topic, producer_id) = ("orders".to_owned(), "producer".to_owned());
            let messages = vec![message(number.to_string())];
            requests
                .send(PublishStreamRequest { topic, producer_id, messages, ..Default::default() })
                .await
                .unwrap();
        }
    });
    for offset in 0..2_000 {
        let answer = soon("an answer", answers.message()).await.unwrap().unwrap();
        let Some(Answer::Receipt(receipt)) = answer.result else { panic!("{answer:?}") };
        assert_eq!((receipt.first_offset, receipt.count), (offset, 1));
    }
    sending.await.unwrap();
    broker.consumer("orders", "billing").await;
    let payloads = broker.consume("orders", "billing").await.payloads(2_000).await;
    assert!(payloads.iter().enumerate().all(|(number, payload)| *payload == number.to_string()));
}

#[tokio::test]
async fn a_publish_is_stored_even_if_its_client_disconnects() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let stream = PublishStream::open(&broker).await;
    stream.send(streamed("orders", "producer", vec![message("a")])).await;
    // The answer is never read, and the stream is closed.
    until("the message is stored", async || broker.stored().await == 1).await;
    drop(stream);
    assert_eq!(broker.publish("orders", ["b"]).await, 1);
}
