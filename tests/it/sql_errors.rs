//! SQL refuses what gRPC refuses, with the same reasons and the same words.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use tonic::Status;
use tonic_types::StatusExt as _;
use trunkline::proto;

use crate::support::{PRODUCER, TestBroker, message};

/// What both interfaces say of a refusal.
#[derive(Debug, PartialEq)]
struct Refusal {
    reason: String,
    message: String,
    metadata: BTreeMap<String, String>,
}

/// Arguments of functions, and the fields of requests that they stand for.
const FIELDS: [(&str, &str); 8] = [
    ("payloads[2]", "messages[1]"),
    ("payloads", "messages"),
    ("payload", "messages[0]"),
    ("headers[2]", "messages[1].headers"),
    ("headers", "messages[0].headers"),
    ("producer", "producer_id"),
    ("consumer", "consumer_id"),
    ("retention_bytes", "retention.max_bytes"),
];

fn field(argument: &str) -> String {
    for (name, field) in FIELDS {
        if let Some(rest) = argument.strip_prefix(name)
            && (rest.is_empty() || rest.starts_with('.'))
        {
            return format!("{field}{rest}");
        }
    }
    argument.to_owned()
}

fn of_grpc(status: &Status) -> Refusal {
    let info = status.get_details_error_info().unwrap();
    Refusal {
        reason: info.reason,
        message: status.message().to_owned(),
        metadata: info.metadata.into_iter().collect(),
    }
}

fn of_sql(error: &tokio_postgres::Error) -> Refusal {
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    let mut metadata: BTreeMap<String, String> =
        serde_json::from_str(error.detail().unwrap()).unwrap();
    let reason = metadata.remove("reason").unwrap();
    let mut message = error.message().to_owned();
    if let Some(argument) = metadata.get_mut("field") {
        let named = field(argument);
        message = format!("{named}{}", &message[argument.len()..]);
        *argument = named;
    }
    Refusal { reason, message, metadata }
}

struct Site {
    broker: TestBroker,
    sql: Client,
}

impl Site {
    /// Compares what a call says with what each of the statements says.
    async fn both(&self, called: Result<impl std::fmt::Debug, Status>, statements: &[String]) {
        let expected = of_grpc(&called.unwrap_err());
        for statement in statements {
            let error = match self.sql.batch_execute(statement).await {
                Ok(()) => panic!("{statement} was not refused, and gRPC says {expected:?}"),
                Err(error) => error,
            };
            assert_eq!(of_sql(&error), expected, "{statement}");
            let code = error.code().unwrap().code();
            assert!(code.starts_with("TL1"), "{code}: {statement}");
        }
    }

    async fn publish(
        &self,
        topic: &str,
        producer: &str,
        messages: Vec<proto::NewMessage>,
    ) -> Result<impl std::fmt::Debug + use<>, Status> {
        let (topic, producer_id) = (topic.to_owned(), producer.to_owned());
        let request = proto::PublishRequest { topic, producer_id, messages, ..Default::default() };
        self.broker.producers().publish(request).await
    }
}

async fn site() -> Site {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    let sql = broker.sql().await;
    Site { broker, sql }
}

/// The ways to publish one message, with these arguments.
fn ways(arguments: &str) -> Vec<String> {
    ["publish", "publish_at_commit", "publish_later"]
        .map(|way| format!("select trunkline.{way}({arguments})"))
        .into()
}

/// The ways to publish many messages.
fn ways_of_many(arguments: &str) -> Vec<String> {
    ["publish_many", "publish_later_many"]
        .map(|way| format!("select trunkline.{way}({arguments})"))
        .into()
}

#[tokio::test]
async fn names_are_refused_with_the_same_words() {
    let site = site().await;
    let long = "x".repeat(256);
    for topic in ["", "a b", ".", "..", "ü", "a\nb", "a'b", "a\\b", "a\u{7f}", &long, "missing"] {
        let called = site.publish(topic, PRODUCER, vec![message("x")]).await;
        let quoted = format!("E'{}'", topic.replace('\\', "\\\\").replace('\'', "\\'"));
        let mut statements = ways(&format!("{quoted}, 'x'"));
        statements.extend(ways_of_many(&format!("{quoted}, array['x']")));
        site.both(called, &statements).await;
        let (topic, consumer_id) = (topic.to_owned(), "billing".to_owned());
        let request = proto::GetConsumerRequest { topic, consumer_id };
        let called = site.broker.consumers().get_consumer(request).await;
        let statements = [
            format!("select trunkline.consumer_info({quoted}, 'billing')"),
            format!("select trunkline.topic_info({quoted})"),
            format!("select trunkline.receive({quoted}, 'billing')"),
            format!("select trunkline.commit_position({quoted}, 'billing', 1, 1)"),
            format!("select trunkline.seek({quoted}, 'billing', 0)"),
            format!("select trunkline.register_consumer({quoted}, 'new')"),
            format!("select trunkline.register_producer({quoted}, 'new')"),
        ];
        site.both(called, &statements).await;
    }
    for producer in ["", "a b", &long, "unknown"] {
        let called = site.publish("orders", producer, vec![message("x")]).await;
        let statements = ways(&format!("'orders', 'x', producer => '{producer}'"));
        site.both(called, &statements).await;
    }
    for consumer in ["a b", &long, "unknown"] {
        let (topic, consumer_id) = ("orders".to_owned(), consumer.to_owned());
        let request = proto::GetConsumerRequest { topic, consumer_id };
        let called = site.broker.consumers().get_consumer(request).await;
        let statements = [
            format!("select trunkline.consumer_info('orders', '{consumer}')"),
            format!("select trunkline.receive('orders', '{consumer}')"),
            format!("select trunkline.commit_position('orders', '{consumer}', 1, 1)"),
            format!("select trunkline.seek('orders', '{consumer}', 0)"),
        ];
        site.both(called, &statements).await;
    }
}

#[tokio::test]
async fn a_fenced_producer_is_refused_with_the_same_words() {
    let site = site().await;
    let fence = proto::RegisterProducerRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        fence: true,
        ..Default::default()
    };
    site.broker.producers().register_producer(fence).await.unwrap();
    let called = site.publish("orders", PRODUCER, vec![message("x")]).await;
    let mut statements = ways(&format!("'orders', 'x', producer => '{PRODUCER}'"));
    statements.extend(ways_of_many(&format!("'orders', array['x'], producer => '{PRODUCER}'")));
    site.both(called, &statements).await;
    // It was fenced after it was accepted: then the commit fails.
    site.sql.batch_execute("select trunkline.register_producer('orders', 'till')").await.unwrap();
    let staged = "begin; select trunkline.publish_at_commit('orders', 'x', producer => 'till')";
    site.sql.batch_execute(staged).await.unwrap();
    let fence = "update trunkline.producer_topic set epoch = 1 where producer_id = 'till'";
    site.broker.sql().await.batch_execute(fence).await.unwrap();
    let error = site.sql.batch_execute("commit").await.unwrap_err();
    assert_eq!(of_sql(&error).reason, "PRODUCER_FENCED");
}

fn with_headers(entries: impl IntoIterator<Item = (String, String)>) -> proto::NewMessage {
    proto::NewMessage { headers: entries.into_iter().collect(), ..message("x") }
}

#[tokio::test]
async fn limits_of_messages_are_the_same() {
    let site = site().await;
    const MIB: usize = 1024 * 1024;
    let called = site.publish("orders", PRODUCER, vec![message(vec![b'x'; MIB + 1])]).await;
    let text = format!("'orders', repeat('x', {})", MIB + 1);
    site.both(called, &ways(&text)).await;
    site.sql.batch_execute(&ways(&format!("'orders', repeat('x', {MIB})"))[0]).await.unwrap();
    let key = Some(vec![b'k'; 2].into());
    let keyed = proto::NewMessage { key, ..message(vec![b'x'; MIB - 1]) };
    let called = site.publish("orders", PRODUCER, vec![keyed]).await;
    site.both(called, &ways(&format!("'orders', repeat('x', {}), 'kk'", MIB - 1))).await;
    let called =
        site.publish("orders", PRODUCER, vec![message("a"), message(vec![b'x'; MIB + 1])]).await;
    let many = format!("'orders', array['a', repeat('x', {})]", MIB + 1);
    site.both(called, &ways_of_many(&many)).await;
    let called = site.publish("orders", PRODUCER, vec![]).await;
    site.both(called, &ways_of_many("'orders', array[]::text[]")).await;
    let called = site.publish("orders", PRODUCER, vec![message("x"); 10_001]).await;
    let many = "'orders', array(select 'x' from generate_series(1, 10001))";
    site.both(called, &ways_of_many(many)).await;

    let numbered = |count: usize| (0..count).map(|n| (format!("n{n}"), String::new()));
    for (entries, json) in [
        (
            numbered(65).collect::<Vec<_>>(),
            "(select jsonb_object_agg('n' || n, '') from generate_series(0, 64) n)",
        ),
        (vec![(String::new(), "v".to_owned())], r#"'{"": "v"}'"#),
        (vec![("n".repeat(256), "v".to_owned())], "jsonb_build_object(repeat('n', 256), 'v')"),
        (vec![("n".to_owned(), "v".repeat(16_384))], "jsonb_build_object('n', repeat('v', 16384))"),
        (vec![("n".to_owned(), "ü".repeat(8_192))], "jsonb_build_object('n', repeat('ü', 8192))"),
    ] {
        let called = site.publish("orders", PRODUCER, vec![with_headers(entries.clone())]).await;
        site.both(called, &ways(&format!("'orders', 'x', headers => {json}"))).await;
        let second = vec![message("x"), with_headers(entries)];
        let called = site.publish("orders", PRODUCER, second).await;
        let many = format!("'orders', array['x', 'x'], headers => array['{{}}', {json}]::jsonb[]");
        site.both(called, &ways_of_many(&many)).await;
    }
    let fits = "'orders', 'x', headers => jsonb_build_object('n', repeat('v', 16383))";
    for way in ways(fits) {
        site.sql.batch_execute(&way).await.unwrap();
    }
}

/// What only SQL can say.
#[tokio::test]
async fn nulls_and_shapes_are_refused_by_the_name_of_the_argument() {
    let site = site().await;
    let mut cases: Vec<(String, &str)> = Vec::new();
    for (arguments, text) in [
        ("null, 'x'", "topic: must not be null"),
        ("'orders', null::text", "payload: must not be null"),
        ("'orders', null::bytea", "payload: must not be null"),
        ("'orders', null::jsonb", "payload: must not be null"),
        (
            "'orders', 'x', headers => '[]'",
            "headers: is an array, and must be an object of strings",
        ),
        ("'orders', 'x', headers => '1'", "headers: is a number, and must be an object of strings"),
        ("'orders', 'x', headers => 'null'", "headers: is null, and must be an object of strings"),
        ("'orders', 'x', headers => '{\"n\": 1}'", "headers: holds \"n\", which is not a string"),
    ] {
        cases.extend(ways(arguments).into_iter().map(|way| (way, text)));
    }
    for (arguments, text) in [
        ("'orders', null::text[]", "payloads: must not be null"),
        ("'orders', array['x', null]", "payloads[2]: must not be null"),
        ("'orders', array[['a', 'b']]", "payloads: must have one dimension that begins at 1"),
        ("'orders', '[0:1]={a,b}'::text[]", "payloads: must have one dimension that begins at 1"),
        (
            "'orders', array(select repeat('x', 1048576) from generate_series(1, 17))",
            "payloads: is 17825792 bytes, and the limit is 16777216",
        ),
        ("'orders', array['a'], array['k', 'l']", "keys: has 2 elements, and payloads has 1"),
        (
            "'orders', array['a'], null, array['{}', '{}']::jsonb[]",
            "headers: has 2 elements, and payloads has 1",
        ),
        (
            "'orders', array['a'], null, array['{\"n\": []}']::jsonb[]",
            "headers[1]: holds \"n\", which is not a string",
        ),
    ] {
        cases.extend(ways_of_many(arguments).into_iter().map(|way| (way, text)));
    }
    for (call, text) in [
        ("receive('orders', 'billing', 0)", "limit: must be at least 1"),
        ("receive('orders', 'billing', 10001)", "limit: is 10001, and the limit is 10000"),
        ("receive('orders', 'billing', null)", "limit: must not be null"),
        ("receive('orders', null)", "consumer: must not be null"),
        ("commit_position('orders', 'billing', null, 1)", "position: must not be null"),
        (
            "seek('orders', 'billing', 1, now())",
            "latest: names a place, and so does another argument",
        ),
        (
            "seek('orders', 'billing', 1, latest => true)",
            "latest: names a place, and so does another argument",
        ),
        ("register_producer('orders', null)", "producer: must not be null"),
        ("create_topic(null)", "topic: must not be null"),
        (
            "create_topic('new', retention_age => '0.5 s')",
            "retention_age: must be from 1 second to 36500 days",
        ),
        (
            "create_topic('new', labels => '[]')",
            "labels: is an array, and must be an object of strings",
        ),
    ] {
        cases.push((format!("select trunkline.{call}"), text));
    }
    // Earlier versions have no interval without an end.
    let version = "select current_setting('server_version_num')::integer";
    if site.sql.query_one(version, &[]).await.unwrap().get::<_, i32>(0) >= 170_000 {
        let call = "select trunkline.create_topic('new', retention_age => 'infinity')";
        cases.push((call.to_owned(), "retention_age: must be from 1 second to 36500 days"));
    }
    for (statement, text) in cases {
        let outcome = site.sql.batch_execute(&statement).await;
        let error = outcome.expect_err(&statement);
        assert_eq!(error.as_db_error().map(|error| error.message()), Some(text), "{statement}");
        assert_eq!(error.code().unwrap().code(), "TL101", "{statement}");
    }
    // PostgreSQL refuses a value of `jsonb` before any function is called.
    let error =
        site.sql.batch_execute(r#"select trunkline.publish('orders', '"\u0000"'::jsonb)"#).await;
    assert_eq!(error.unwrap_err().code().unwrap().code(), "22P05");
    // The caller's transaction decides what happens then.
    site.sql
        .batch_execute(
            "begin; savepoint s; do $$ begin perform trunkline.publish('orders', null::text);
             exception when sqlstate 'TL101' then perform trunkline.publish('orders', 'instead'); end $$; commit",
        )
        .await
        .unwrap();
    assert_eq!(site.broker.read_payloads("orders").await.last().unwrap(), "instead");
}

#[tokio::test]
async fn positions_are_refused_with_the_same_words() {
    let site = site().await;
    let mut stream = site.broker.consume_manually("orders", "billing").await;
    let epoch = stream.attaches().await.epoch;
    stream.payloads(3).await;
    stream.commit(2).await.unwrap();
    let commit = async |position: i64, epoch: i64| {
        let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
        let request = proto::CommitRequest { topic, consumer_id, epoch, position };
        site.broker.consumers().commit(request).await
    };
    for (position, epoch) in [(1, epoch), (4, epoch), (2, epoch + 1), (2, 0), (-1, epoch)] {
        let statement =
            format!("select trunkline.commit_position('orders', 'billing', {position}, {epoch})");
        site.both(commit(position, epoch).await, &[statement]).await;
    }
    for offset in [-1, 4, i64::MAX] {
        let target = proto::seek_request::Target::Offset(offset);
        let called = site.broker.seek("orders", "billing", target).await;
        let statements = [
            format!("select trunkline.seek('orders', 'billing', {offset})"),
            format!("select trunkline.register_consumer('orders', 'new', {offset})"),
        ];
        site.both(called, &statements).await;
    }
    let called = site.broker.pull("orders", "billing", 1).await;
    site.both(called, &["select trunkline.receive('orders', 'billing')".to_owned()]).await;
}

#[tokio::test]
async fn what_exists_is_refused_with_the_same_words() {
    let site = site().await;
    let request = proto::CreateTopicRequest { topic: "orders".to_owned(), ..Default::default() };
    let called = site.broker.topics().create_topic(request.clone()).await;
    site.both(called, &["select trunkline.create_topic('orders')".to_owned()]).await;
    let differs = proto::CreateTopicRequest {
        description: "other".to_owned(),
        labels: [("team".to_owned(), "a".to_owned())].into(),
        if_missing: true,
        ..request.clone()
    };
    let called = site.broker.topics().create_topic(differs).await;
    let statement =
        r#"select trunkline.create_topic('orders', 'other', '{"team": "a"}', if_missing => true)"#;
    site.both(called, &[statement.to_owned()]).await;
    let long = proto::CreateTopicRequest { description: "x".repeat(1_025), ..request };
    let called = site.broker.topics().create_topic(long).await;
    site.both(called, &["select trunkline.create_topic('orders', repeat('x', 1025))".to_owned()])
        .await;
    let (topic, producer_id) = ("orders".to_owned(), PRODUCER.to_owned());
    let request = proto::RegisterProducerRequest { topic, producer_id, ..Default::default() };
    let called = site.broker.producers().register_producer(request).await;
    site.both(called, &[format!("select trunkline.register_producer('orders', '{PRODUCER}')")])
        .await;
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let request = proto::RegisterConsumerRequest { topic, consumer_id, ..Default::default() };
    let called = site.broker.consumers().register_consumer(request).await;
    site.both(called, &["select trunkline.register_consumer('orders', 'billing')".to_owned()])
        .await;

    let found = "select trunkline.create_topic('orders', if_missing => true),
        trunkline.register_producer('orders', 'new'), trunkline.register_producer('orders', 'new', true),
        trunkline.register_consumer('orders', 'new', latest => true),
        trunkline.register_consumer('orders', 'new', if_missing => true)";
    let row = site.sql.query_one(found, &[]).await.unwrap();
    // A start that has expired meanwhile matters for a new consumer only.
    site.broker.trim("orders", 2).await;
    let again = "select trunkline.register_consumer('orders', 'new', 0, if_missing => true)";
    assert_eq!(site.sql.query_one(again, &[]).await.unwrap().get::<_, i64>(0), 3);
    assert_eq!((row.get(0), row.get(1), row.get(2)), (false, true, false));
    assert_eq!((row.get::<_, i64>(3), row.get::<_, i64>(4)), (3, 3));
}
