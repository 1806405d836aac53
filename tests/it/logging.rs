//! What the log contains, and what it must never contain.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use tokio::sync::mpsc;
use trunkline::{client::Client, proto};

use crate::{
    log_catalogue::documented_names,
    support::{Document, PRODUCER, TestDatabase, Trunkline, soon},
};

/// Starts a broker, and collects its log.
async fn broker_with_log(filter: &str, url: &str) -> (Client, mpsc::Receiver<String>) {
    broker_with_flags(&[], filter, url).await
}

async fn broker_with_flags(
    flags: &[&str],
    filter: &str,
    url: &str,
) -> (Client, mpsc::Receiver<String>) {
    let start = ["--listen", "127.0.0.1:0", "--drain-timeout", "1s"];
    let (broker, endpoint) =
        Trunkline::serve_with_log(filter, &[&start[..], flags, &["--database-url", url]].concat())
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

/// Registers the consumer `billing` on the topic `orders`, and opens a stream of it.
async fn consume_orders(client: &Client) -> tonic::Streaming<proto::ConsumeResponse> {
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let register = proto::RegisterConsumerRequest { topic, consumer_id, ..Default::default() };
    client.consumers().register_consumer(register).await.unwrap();
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let consume = proto::ConsumeRequest { topic, consumer_id, ..Default::default() };
    let mut stream = client.consumers().consume(consume).await.unwrap().into_inner();
    soon("a frame", stream.message()).await.unwrap();
    stream
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
    let request = proto::RegisterConsumerRequest { topic, consumer_id, ..Default::default() };
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
        let request = proto::RegisterProducerRequest {
            topic: topic(),
            producer_id,
            fence,
            ..Default::default()
        };
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
    let request = proto::RegisterConsumerRequest {
        topic: topic(),
        consumer_id: consumer_id(),
        ..Default::default()
    };
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
    let _stream = consume_orders(&client).await;
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

/// A line of the log in JSON: its keys and values, as often as they are there.
struct JsonLine(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for JsonLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = JsonLine;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonLine, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(JsonLine(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl JsonLine {
    /// Checks what holds for every line.
    fn read(text: &str) -> Self {
        let line: Self =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let keys: Vec<&str> = line.0.iter().map(|(key, _)| key.as_str()).collect();
        let first = ["@timestamp", "log.level", "message", "ecs.version", "log.logger"];
        assert_eq!(keys[..first.len()], first, "{text}");
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{key} is there twice: {text}");
        }
        for (key, value) in &line.0 {
            let is_flat = value.is_string() || value.is_number() || value.is_boolean();
            assert!(is_flat, "{key} is {value}: {text}");
        }
        let time = line.text("@timestamp");
        assert!(time.len() == "2026-11-24T10:00:00.123456Z".len() && time.ends_with('Z'), "{text}");
        humantime::parse_rfc3339(time).unwrap();
        let level = line.text("log.level");
        assert!(["error", "warn", "info", "debug", "trace"].contains(&level), "{text}");
        if line.text("log.logger").starts_with("trunkline") {
            assert!(documented_names().contains(line.text("message")), "no document has {text}");
        }
        line
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    fn text(&self, key: &str) -> &str {
        self.get(key).and_then(Value::as_str).unwrap_or_else(|| panic!("{key} of {:?}", self.0))
    }
}

#[tokio::test]
async fn each_line_in_json_is_one_flat_object_with_a_documented_name() {
    let database = TestDatabase::create().await;
    let filter = "info,trunkline=debug";
    // Nothing receives the traces there, but calls that are traced have ids.
    let flags = ["--log-format", "json", "--otlp-endpoint", "http://127.0.0.1:1"];
    let (client, mut log) = broker_with_flags(&flags, filter, &database.url).await;
    let topic = "orders".to_owned();
    let request = proto::CreateTopicRequest { topic, ..Default::default() };
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert("x-request-id", "order \"7\"".parse().unwrap());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    client.topics().create_topic(request).await.unwrap();
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let register = proto::RegisterConsumerRequest { topic, consumer_id, ..Default::default() };
    client.consumers().register_consumer(register).await.unwrap();
    let consume = proto::ConsumeRequest {
        topic: "orders".to_owned(),
        consumer_id: "billing".to_owned(),
        stop: Some(proto::consume_request::Stop::UntilCaughtUp(true)),
        ..Default::default()
    };
    let mut stream = client.consumers().consume(consume).await.unwrap().into_inner();
    while soon("a frame", stream.message()).await.unwrap().is_some() {}
    let lines = lines_until(&mut log, "the stream reached its end").await;

    let lines: Vec<JsonLine> = lines.iter().map(|line| JsonLine::read(line)).collect();
    let named = |name| lines.iter().find(|line| line.text("message") == name).unwrap();
    let started = named("started");
    assert!(started.get("writers").is_some_and(Value::is_u64), "{:?}", started.0);
    assert_eq!(started.get("encrypted"), Some(&Value::Bool(false)));
    assert_eq!(started.text("drain_timeout"), "1s");
    let created = named("created a topic");
    assert_eq!((created.text("log.logger"), created.text("topic")), ("audit", "orders"));
    assert_eq!(created.text("request.id"), "order \"7\"");
    assert_eq!(created.text("request.method"), "trunkline.v1.TopicService/CreateTopic");
    assert_eq!((created.text("trace.id"), created.text("span.id").len()), (trace, 16));
    let opened = named("opened a stream");
    assert_eq!((opened.text("topic"), opened.get("request.id")), ("orders", None));
}

#[test]
fn the_documents_show_a_line_as_it_is() {
    let examples = Document::read("docs/logs.md").blocks_in("json");
    assert!(!examples.is_empty());
    for example in examples.iter().flat_map(|example| example.lines()) {
        JsonLine::read(example);
    }
}

#[tokio::test]
async fn a_filter_that_names_only_targets_leaves_the_rest_of_the_log_as_it_is() {
    let database = TestDatabase::create().await;
    let (client, mut log) = broker_with_log("audit=off,trunkline::grpc=debug", &database.url).await;
    create(&client, "orders").await;
    let _stream = consume_orders(&client).await;
    let lines = lines_until(&mut log, "opened a stream").await;
    assert!(lines.iter().any(|line| line.contains(" started ")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("created a topic")), "{lines:#?}");
}

#[tokio::test]
async fn what_others_have_written_neither_ends_a_plain_line_nor_reaches_a_terminal_raw() {
    let database = TestDatabase::create().await;
    let (client, mut log) = broker_with_log("info", &database.url).await;
    create(&client, "orders").await;
    let (topic, producer_id) = ("orders".to_owned(), PRODUCER.to_owned());
    let request = proto::RegisterProducerRequest { topic, producer_id, ..Default::default() };
    client.producers().register_producer(request).await.unwrap();
    let forge = r"create function forge() returns trigger language plpgsql as
                      $$begin raise exception E'evil\n{forged}\x1b[31m'; end$$;
                  create trigger forge before insert on trunkline.batch execute function forge()";
    database.sql().await.batch_execute(forge).await.unwrap();
    let publish = proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: vec![proto::NewMessage::new("x")],
        ..Default::default()
    };
    client.producers().publish(publish).await.unwrap_err();
    let lines = lines_until(&mut log, "evil").await;
    let line = lines.last().unwrap();
    assert!(line.contains(r"evil\n{forged}\u{1b}[31m"), "{line}");
}

#[tokio::test]
async fn in_json_the_reason_of_an_end_is_a_line_of_the_log_too() {
    let refused = ["serve", "--log-format", "json", "--otlp-endpoint", "nowhere"];
    let finished = Trunkline::run(&refused).await;
    assert_eq!(finished.code(), 2);
    let line: Value = serde_json::from_str(&finished.stderr).unwrap();
    assert_eq!(line["message"], "end with an error");
    assert_eq!(line["log.level"], "error");
    let error = line["error.message"].as_str().unwrap();
    assert!(error.starts_with("export traces to --otlp-endpoint: "), "{error}");
    // Without a log, there is no line of it.
    let finished = Trunkline::run(&["serve", "--log", "inof", "--log-format", "json"]).await;
    assert_eq!(finished.code(), 2);
    let expected = "trunkline: read the log filter: \"inof\" is no level";
    assert!(finished.stderr.starts_with(expected), "{}", finished.stderr);
}
