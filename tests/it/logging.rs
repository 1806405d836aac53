//! What the log contains, and what it must never contain.

use tokio::sync::mpsc;
use trunkline::{client::Client, proto};

use crate::support::{PRODUCER, TestDatabase, Trunkline, soon};

/// Starts a broker, and collects its log.
async fn broker_with_log(filter: &str, url: &str) -> (Client, mpsc::Receiver<String>) {
    let (broker, endpoint) = Trunkline::serve_with_log(
        filter,
        &["--listen", "127.0.0.1:0", "--drain-timeout", "1s", "--database-url", url],
    )
    .await;
    let (lines, log) = mpsc::channel(100_000); // More lines than a test's broker writes.
    tokio::spawn(async move {
        // Moved in as a whole, as dropping it kills the broker.
        let mut broker = broker;
        while let Ok(Some(line)) = broker.stderr.next_line().await {
            if lines.send(line).await.is_err() {
                return;
            }
        }
    });
    (Client::connect(&endpoint).await.unwrap(), log)
}

/// All lines up to the first that contains a text.
async fn lines_until(log: &mut mpsc::Receiver<String>, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    soon(last, async {
        while let Some(line) = log.recv().await {
            let found = line.contains(last);
            lines.push(line);
            if found {
                return;
            }
        }
        panic!("the log ended without {last:?}: {lines:#?}");
    })
    .await;
    lines
}

async fn create(client: &Client, topic: &str) {
    let request = proto::CreateTopicRequest { topic: topic.to_owned(), ..Default::default() };
    client.topics().create_topic(request).await.unwrap();
}

#[tokio::test]
async fn no_log_level_writes_message_contents_or_passwords() {
    let database = TestDatabase::create().await;
    let password = "unspoken-password";
    let separator = if database.url.contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}password={password}", database.url);
    let filter = "trace,h2=trace,hyper=trace,tonic=trace,tokio_postgres=trace";
    let (client, mut log) = broker_with_log(filter, &url).await;
    create(&client, "orders").await;
    let (topic, producer_id) = ("orders".to_owned(), PRODUCER.to_owned());
    let request = proto::RegisterProducerRequest { topic, producer_id, ..Default::default() };
    client.producers().register_producer(request).await.unwrap();
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let request = proto::RegisterConsumerRequest { topic, consumer_id, start: None };
    client.consumers().register_consumer(request).await.unwrap();

    let secrets = ["unspoken-payload", "unspoken-key", "unspoken-header", "unspoken-value"];
    let [payload, key, header, value] = secrets;
    let message = proto::NewMessage::new(payload).with_key(key).with_header(header, value);
    let publish = proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: vec![message],
        ..Default::default()
    };
    client.producers().publish(publish).await.unwrap();
    let consume = proto::ConsumeRequest {
        topic: "orders".to_owned(),
        consumer_id: "billing".to_owned(),
        stop: Some(proto::consume_request::Stop::UntilCaughtUp(true)),
        ..Default::default()
    };
    let mut stream = client.consumers().consume(consume).await.unwrap().into_inner();
    let mut found = false;
    while let Some(frame) = soon("a frame", stream.message()).await.unwrap() {
        found |= format!("{frame:?}").contains(payload);
    }
    assert!(found);
    create(&client, "the-last-line").await;

    let lines = lines_until(&mut log, "the-last-line").await;
    assert!(lines.iter().any(|line| line.contains("DEBUG") || line.contains("TRACE")), "{lines:?}");
    for secret in secrets.iter().chain([&password]) {
        // Also as an array of numbers, as `Debug` prints bytes.
        let numbers = format!("{:?}", secret.as_bytes());
        let numbers = numbers.trim_matches(['[', ']']);
        let leaks: Vec<_> =
            lines.iter().filter(|line| line.contains(secret) || line.contains(numbers)).collect();
        assert!(leaks.is_empty(), "{secret} is in {leaks:#?}");
    }
}

#[tokio::test]
async fn every_administrative_action_is_logged_once() {
    let database = TestDatabase::create().await;
    let (client, mut log) = broker_with_log("info", &database.url).await;
    let topic = || "orders".to_owned();
    let consumer_id = || "billing".to_owned();
    let producer_id = || PRODUCER.to_owned();
    create(&client, "orders").await;
    let description = "described".to_owned();
    let update = proto::UpdateTopicRequest { topic: topic(), description, ..Default::default() };
    client.topics().update_topic(update).await.unwrap();
    for fence in [false, true] {
        let producer_id = producer_id();
        let request = proto::RegisterProducerRequest { topic: topic(), producer_id, fence };
        client.producers().register_producer(request).await.unwrap();
    }
    let publish = proto::PublishRequest {
        topic: topic(),
        producer_id: producer_id(),
        producer_epoch: 1,
        messages: vec![proto::NewMessage::new("a"), proto::NewMessage::new("b")],
        ..Default::default()
    };
    let registered = proto::GetProducerRequest { topic: topic(), producer_id: producer_id() };
    let registered = client.producers().get_producer(registered).await.unwrap().into_inner();
    let producer_epoch = registered.producer.unwrap().epoch;
    let publish = proto::PublishRequest { producer_epoch, ..publish };
    client.producers().publish(publish).await.unwrap();
    let request =
        proto::RegisterConsumerRequest { topic: topic(), consumer_id: consumer_id(), start: None };
    client.consumers().register_consumer(request).await.unwrap();
    let target = Some(proto::seek_request::Target::Offset(2));
    let seek = proto::SeekRequest { topic: topic(), consumer_id: consumer_id(), target };
    client.consumers().seek(seek).await.unwrap();
    let consume = |name: &str, on_busy: proto::OnBusy| proto::ConsumeRequest {
        topic: topic(),
        consumer_id: consumer_id(),
        client_name: name.to_owned(),
        on_busy: on_busy.into(),
        ..Default::default()
    };
    let first = consume("first", proto::OnBusy::Wait);
    let mut first = client.consumers().consume(first).await.unwrap().into_inner();
    soon("the first stream's lease", first.message()).await.unwrap();
    let second = consume("second", proto::OnBusy::TakeOver);
    let mut second = client.consumers().consume(second).await.unwrap().into_inner();
    while let Some(frame) = soon("the lease", second.message()).await.unwrap() {
        if let Some(proto::consume_response::Event::Attached(_)) = frame.event {
            break;
        }
    }
    let before = Some(proto::trim_topic_request::Before::Offset(1));
    let trim = proto::TrimTopicRequest { topic: topic(), before };
    client.topics().trim_topic(trim).await.unwrap();
    let request = proto::UnregisterProducerRequest { topic: topic(), producer_id: producer_id() };
    client.producers().unregister_producer(request).await.unwrap();
    let request = proto::UnregisterConsumerRequest { topic: topic(), consumer_id: consumer_id() };
    client.consumers().unregister_consumer(request).await.unwrap();
    client.topics().delete_topic(proto::DeleteTopicRequest { topic: topic() }).await.unwrap();
    create(&client, "the-last-line").await;

    let lines = lines_until(&mut log, "the-last-line").await;
    for (action, also) in [
        ("created a topic", "address=\"127.0.0.1:"),
        ("changed a topic", "address=\"127.0.0.1:"),
        ("registered a producer", "subject=\"producer producer\""),
        ("fenced a producer", "\"epoch\":"),
        ("registered a consumer", "subject=\"consumer billing\""),
        ("moved a position", "\"position\":\"2\""),
        ("took a lease over", "subject=\"consumer billing\""),
        ("trimmed a topic", "\"first_offset\":\"1\""),
        ("unregistered a producer", "subject=\"producer producer\""),
        ("unregistered a consumer", "subject=\"consumer billing\""),
        ("deleted a topic", "address=\"127.0.0.1:"),
    ] {
        let matching: Vec<_> = lines
            .iter()
            .filter(|line| {
                line.contains(&format!(" audit: {action}")) && line.contains("topic=\"orders\"")
            })
            .collect();
        assert_eq!(matching.len(), 1, "{action}: {lines:#?}");
        assert!(matching[0].contains(" INFO ") && matching[0].contains(also), "{}", matching[0]);
    }
}

#[tokio::test]
async fn the_log_says_which_client_the_name_of_a_holder_stands_for() {
    let database = TestDatabase::create().await;
    let (client, mut log) = broker_with_log("trunkline=debug", &database.url).await;
    create(&client, "orders").await;
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let register = proto::RegisterConsumerRequest { topic, consumer_id, start: None };
    client.consumers().register_consumer(register).await.unwrap();
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let consume = proto::ConsumeRequest { topic, consumer_id, ..Default::default() };
    let mut stream = client.consumers().consume(consume).await.unwrap().into_inner();
    soon("a frame", stream.message()).await.unwrap();
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let get = proto::GetConsumerRequest { topic, consumer_id };
    let found = client.consumers().get_consumer(get).await.unwrap().into_inner();
    let holder = found.consumer.unwrap().holder;
    assert!(holder.starts_with("connection ") && holder.contains(" of broker "), "{holder}");
    let lines = lines_until(&mut log, "opened a stream").await;
    let line = lines.last().unwrap();
    assert!(line.contains(&holder) && line.contains("127.0.0.1:"), "{line}");
}

#[tokio::test]
async fn a_request_id_is_cut_to_64_characters() {
    let database = TestDatabase::create().await;
    let (client, mut log) = broker_with_log("info", &database.url).await;
    let topic = "orders".to_owned();
    let request = proto::CreateTopicRequest { topic, ..Default::default() };
    let mut request = tonic::Request::new(request);
    let id = "i".repeat(1_000).parse().unwrap();
    request.metadata_mut().insert("x-request-id", id);
    client.topics().create_topic(request).await.unwrap();
    let lines = lines_until(&mut log, "created a topic").await;
    let line = lines.last().unwrap();
    assert!(line.contains(&"i".repeat(64)) && !line.contains(&"i".repeat(65)), "{line}");
}
