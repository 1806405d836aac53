//! Metrics: what they show, what they leave out, and that Prometheus and the documentation know them.

use std::{collections::BTreeSet, process::Stdio};

use tokio::{io::AsyncWriteExt as _, process::Command};
use trunkline::proto::{
    PublishStreamRequest, ReadMessagesRequest, consume_response::Event,
    publish_stream_response::Result as Answer,
};

use crate::support::{
    PRODUCER, PublishStream,
    http::{HttpBroker, Metrics},
    message, root, soon, until,
    worker::TestWorker,
};

/// Waits until metrics show something.
pub async fn metrics_until(
    what: &str,
    broker: &HttpBroker,
    shown: impl Fn(&Metrics) -> bool,
) -> Metrics {
    let mut last = None;
    until(what, async || {
        let metrics = broker.metrics().await;
        let is_shown = shown(&metrics);
        last = Some(metrics);
        is_shown
    })
    .await;
    last.unwrap()
}

#[tokio::test]
async fn topics_and_consumers_are_shown_as_they_are() {
    let broker = HttpBroker::start(&[]).await;
    let calls = &broker.calls;
    for topic in ["orders", "bills"] {
        calls.topic(topic).await;
    }
    for consumer in ["billing", "idle"] {
        calls.consumer("orders", consumer).await;
    }
    calls.publish("orders", ["one", "two", "three"]).await;
    calls.publish("orders", ["four", "five"]).await;
    calls.trim("orders", 1).await;
    calls.pull("orders", "billing", 1).await.unwrap();

    let caught = |metrics: &Metrics| {
        metrics.get("trunkline_consumer_position{topic=\"orders\",consumer=\"billing\"}")
            == Some(2.0)
    };
    let metrics = metrics_until("the position", &broker, caught).await;
    for (series, value) in [
        ("trunkline_topics", 2.0),
        ("trunkline_consumers", 2.0),
        ("trunkline_topic_head{topic=\"orders\"}", 5.0),
        ("trunkline_topic_head{topic=\"bills\"}", 0.0),
        ("trunkline_topic_log_start{topic=\"orders\"}", 1.0),
        ("trunkline_consumer_lag_messages{topic=\"orders\",consumer=\"billing\"}", 3.0),
        ("trunkline_consumer_lag_messages{topic=\"orders\",consumer=\"idle\"}", 4.0),
        ("trunkline_consumer_missing_messages{topic=\"orders\",consumer=\"idle\"}", 0.0),
        ("trunkline_consumer_lease_held{topic=\"orders\",consumer=\"idle\"}", 0.0),
        ("trunkline_topic_published_messages_total{topic=\"orders\"}", 5.0),
        ("trunkline_topic_published_bytes_total{topic=\"orders\"}", 19.0),
        ("trunkline_topic_consumed_messages_total{topic=\"orders\"}", 1.0),
        ("trunkline_topic_published_messages_total{topic=\"bills\"}", 0.0),
        ("trunkline_batch_messages_count", 2.0),
        ("trunkline_batch_messages_sum", 5.0),
        ("trunkline_publish_duration_seconds_count", 2.0),
        ("trunkline_metrics_series_dropped{family=\"topics\"}", 0.0),
    ] {
        assert_eq!(metrics.value(series), value, "{series}");
    }
    assert!(
        metrics.value("trunkline_consumer_lag_seconds{topic=\"orders\",consumer=\"idle\"}") > 0.0
    );
    assert!(
        metrics.get("trunkline_topic_last_published_timestamp_seconds{topic=\"bills\"}").is_none()
    );
    assert!(metrics.value("trunkline_topic_consumed_bytes_total{topic=\"orders\"}") > 3.0);
    assert!(!metrics.mention("holder="));

    // Reads count as well.
    let request = ReadMessagesRequest { topic: "orders".to_owned(), ..Default::default() };
    calls.topics().read_messages(request).await.unwrap();
    let consumed = "trunkline_topic_consumed_messages_total{topic=\"orders\"}";
    assert_eq!(broker.metrics().await.value(consumed), 5.0);

    calls.delete_topic("orders").await;
    let metrics =
        metrics_until("the topic is gone", &broker, |metrics| !metrics.mention("orders")).await;
    assert_eq!(
        (metrics.value("trunkline_topics"), metrics.value("trunkline_consumers")),
        (1.0, 0.0)
    );
}

#[tokio::test]
async fn leases_and_those_who_wait_for_them_are_shown() {
    let broker = HttpBroker::start(&[]).await;
    let calls = &broker.calls;
    calls.topic("orders").await;
    calls.consumer("orders", "billing").await;
    calls.publish("orders", ["one"]).await;
    let mut holder = calls.take_over("orders", "billing", "ann").await;
    holder.attached().await;
    let mut standby = calls.consume("orders", "billing").await;
    standby.standby().await;

    let of =
        |name: &str| format!("trunkline_consumer_{name}{{topic=\"orders\",consumer=\"billing\"}}");
    let holders = "trunkline_consumer_lease_holder_info{topic=\"orders\",consumer=\"billing\",holder=\"ann\"}";
    let (held, waiters) = (of("lease_held"), of("waiters"));
    let shown = |metrics: &Metrics| {
        metrics.get(holders) == Some(1.0)
            && metrics.get(&held) == Some(1.0)
            && metrics.get(&waiters) == Some(1.0)
    };
    let metrics = metrics_until("the holder and the standby", &broker, shown).await;
    assert_eq!(metrics.value("trunkline_streams"), 2.0);
    assert!(metrics.value("trunkline_streams_limit") > 100.0);
    assert_eq!(metrics.value("trunkline_lease_acquisition_seconds_count{how=\"wait\"}"), 1.0);
    assert_eq!(metrics.value("trunkline_lease_acquisition_seconds_count{how=\"take_over\"}"), 0.0);
    assert_eq!(metrics.value(&of("lag_messages")), 1.0);

    let mut taker = calls.take_over("orders", "billing", "bob").await;
    taker.attaches().await;
    let taken = "trunkline_lease_acquisition_seconds_count{how=\"take_over\"}";
    metrics_until("the take-over", &broker, |metrics| metrics.get(taken) == Some(1.0)).await;
    // The first one ended when its lease was taken over.
    drop((holder, standby, taker));
    let idle = |metrics: &Metrics| {
        metrics.get("trunkline_streams") == Some(0.0)
            && metrics.get(&held) == Some(0.0)
            && metrics.get(&waiters).is_none()
    };
    metrics_until("nobody holds or waits", &broker, idle).await;
}

#[tokio::test]
async fn a_consumer_that_has_caught_up_has_no_lag() {
    let broker = HttpBroker::start(&[]).await;
    let calls = &broker.calls;
    calls.topic("orders").await;
    calls.consumer("orders", "billing").await;
    calls.publish("orders", ["one"]).await;
    let mut stream = calls.consume("orders", "billing").await;
    while !matches!(stream.next().await, Event::CaughtUp(_)) {}
    let of =
        |name: &str| format!("trunkline_consumer_{name}{{topic=\"orders\",consumer=\"billing\"}}");
    let (lag, seconds) = (of("lag_messages"), of("lag_seconds"));
    let shown =
        |metrics: &Metrics| metrics.get(&lag) == Some(0.0) && metrics.get(&seconds) == Some(0.0);
    metrics_until("no lag", &broker, shown).await;
}

#[tokio::test]
async fn calls_are_shown_by_how_they_ended() {
    let broker = HttpBroker::start(&[]).await;
    let calls = &broker.calls;
    calls.topic("orders").await;
    calls.consumer("orders", "billing").await;
    let get = trunkline::proto::GetTopicRequest { topic: "nothing".to_owned() };
    calls.topics().get_topic(get).await.unwrap_err();
    calls.try_publish("orders", "stranger", ["x"]).await.unwrap_err();
    let mut stream = calls.consume("orders", "billing").await;
    stream.attached().await;
    assert_eq!(broker.metrics().await.value("trunkline_calls_open"), 1.0);
    drop(stream);

    let of = |method: &str, code: &str| {
        format!(
            "rpc_server_call_duration_seconds_count{{rpc_system_name=\"grpc\",rpc_method=\"trunkline.v1.{method}\",rpc_response_status_code=\"{code}\"}}"
        )
    };
    let cancelled = of("ConsumerService/Consume", "CANCELLED");
    let metrics = metrics_until("a stream that ended", &broker, |metrics| {
        metrics.get(&cancelled) == Some(1.0)
    })
    .await;
    for (method, code) in [
        ("TopicService/CreateTopic", "OK"),
        ("TopicService/GetTopic", "NOT_FOUND"),
        ("ProducerService/Publish", "PERMISSION_DENIED"),
    ] {
        assert_eq!(metrics.value(&of(method, code)), 1.0, "{method}");
    }
    assert_eq!(metrics.value("trunkline_refusals_total{reason=\"TOPIC_NOT_FOUND\"}"), 1.0);
    assert_eq!(metrics.value("trunkline_refusals_total{reason=\"PRODUCER_NOT_REGISTERED\"}"), 1.0);
    assert!(metrics.value("trunkline_connections") >= 1.0);
    assert_eq!(
        metrics.value(
            "trunkline_postgres_statement_duration_seconds_count{statement=\"create_topic\"}"
        ),
        1.0
    );
    assert_eq!(metrics.value("trunkline_postgres_sessions_limit{pool=\"writer\"}"), 2.0);
    assert!(metrics.value("trunkline_postgres_sessions_opened_total") >= 3.0);
}

#[tokio::test]
async fn refused_requests_of_a_publish_stream_are_counted() {
    let broker = HttpBroker::start(&[]).await;
    broker.calls.topic("orders").await;
    let mut stream = PublishStream::open(&broker.calls).await;
    for producer in ["stranger", PRODUCER] {
        let (topic, producer_id) = ("orders".to_owned(), producer.to_owned());
        let messages = vec![message("x")];
        stream
            .send(PublishStreamRequest { topic, producer_id, messages, ..Default::default() })
            .await;
    }
    assert!(matches!(stream.answer().await, Answer::Refusal(_)));
    assert_eq!(stream.first_offset().await, 0);
    let metrics = broker.metrics().await;
    assert_eq!(metrics.value("trunkline_refusals_total{reason=\"PRODUCER_NOT_REGISTERED\"}"), 1.0);
    assert_eq!(metrics.value("trunkline_topic_published_messages_total{topic=\"orders\"}"), 1.0);
}

#[tokio::test]
async fn three_brokers_show_the_same_catalogue_and_each_its_own_traffic() {
    let first = HttpBroker::start(&[]).await;
    let database = &first.calls.database;
    let (second, third) = (
        HttpBroker::start_on(database.clone(), &[]).await,
        HttpBroker::start_on(database.clone(), &[]).await,
    );
    first.calls.topic("orders").await;
    first.calls.consumer("orders", "billing").await;
    first.calls.publish("orders", ["one", "two"]).await;
    second.calls.publish("orders", ["three"]).await;
    third.calls.pull("orders", "billing", 1).await.unwrap();

    let of =
        |name: &str| format!("trunkline_consumer_{name}{{topic=\"orders\",consumer=\"billing\"}}");
    let published = "trunkline_topic_published_messages_total{topic=\"orders\"}";
    let consumed = "trunkline_topic_consumed_messages_total{topic=\"orders\"}";
    for (broker, expected) in [(&first, (2.0, 0.0)), (&second, (1.0, 0.0)), (&third, (0.0, 1.0))] {
        let same = |metrics: &Metrics| {
            metrics.get("trunkline_topic_head{topic=\"orders\"}") == Some(3.0)
                && metrics.get(&of("position")) == Some(1.0)
                && metrics.get(&of("lag_messages")) == Some(2.0)
        };
        let metrics = metrics_until("the same values", broker, same).await;
        assert_eq!((metrics.value(published), metrics.value(consumed)), expected);
    }
    // One of them removes expired messages.
    let swept = "trunkline_retention_last_sweep_timestamp_seconds";
    until("one broker has swept", async || {
        let mut sweepers = 0;
        for broker in [&first, &second, &third] {
            sweepers += usize::from(broker.metrics().await.value(swept) > 0.0);
        }
        sweepers == 1
    })
    .await;
}

#[tokio::test]
async fn series_are_limited_and_what_is_left_out_is_said() {
    let broker = HttpBroker::start(&["--metrics-max-series", "2"]).await;
    for topic in ["a", "b", "c"] {
        broker.calls.topic(topic).await;
        broker.calls.consumer(topic, "reader").await;
        broker.calls.publish(topic, ["x"]).await;
    }
    let counted = |metrics: &Metrics| metrics.get("trunkline_consumers") == Some(3.0);
    let metrics = metrics_until("all consumers count", &broker, counted).await;
    assert_eq!(metrics.value("trunkline_topics"), 3.0);
    assert!(metrics.mention("topic=\"a\"") && metrics.mention("topic=\"b\""));
    assert!(!metrics.mention("topic=\"c\""));
    for family in ["topics", "consumers"] {
        let dropped = format!("trunkline_metrics_series_dropped{{family=\"{family}\"}}");
        assert_eq!(metrics.value(&dropped), 1.0);
    }

    let database = broker.calls.database.clone();
    let without = HttpBroker::start_on(database, &["--metrics-consumers", "false"]).await;
    let _holder = without.calls.consume("a", "reader").await;
    let _standby = without.calls.consume("a", "reader").await;
    until("one waits", async || without.metrics().await.value("trunkline_streams") == 2.0).await;
    let metrics = without.metrics().await;
    assert!(metrics.mention("topic=\"c\"") && !metrics.mention("consumer=\"reader\""));
    assert_eq!(metrics.value("trunkline_consumers"), 3.0);
    // That was asked for.
    assert_eq!(metrics.value("trunkline_metrics_series_dropped{family=\"consumers\"}"), 0.0);
}

/// A broker with all kinds of series.
async fn with_all_series() -> HttpBroker {
    let broker = HttpBroker::start(&[]).await;
    let calls = &broker.calls;
    calls.topic("orders").await;
    calls.consumer("orders", "billing").await;
    calls.publish("orders", ["one"]).await;
    let request = trunkline::proto::CreateSubscriptionRequest {
        topic: "orders".to_owned(),
        subscription_id: "pool".to_owned(),
        ..Default::default()
    };
    let mut worker = TestWorker::at(&calls.client, "orders", "pool");
    worker.service().create_subscription(request).await.unwrap();
    // The broker keeps a quiet one for a minute.
    assert_eq!(worker.receive(1).await.len(), 1);
    let get = trunkline::proto::GetTopicRequest { topic: "nothing".to_owned() };
    calls.topics().get_topic(get).await.unwrap_err();
    calls.sql().await.batch_execute("vacuum trunkline.batch").await.unwrap();
    broker
}

#[tokio::test]
async fn each_metric_is_documented_and_each_documented_one_is_served() {
    let broker = with_all_series().await;
    let mut holder = broker.calls.take_over("orders", "billing", "ann").await;
    holder.attached().await;
    let mut standby = broker.calls.consume("orders", "billing").await;
    standby.standby().await;
    let documented: BTreeSet<String> = std::fs::read_to_string(root().join("docs/metrics.md"))
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter(|line| !line.starts_with('/'))
        .map(|line| line.split(['`', '{']).next().unwrap().to_owned())
        .collect();
    // Vacuums, and who has the lease, are shown a moment later.
    for late in ["trunkline_postgres_last_vacuum", "holder=\"ann\""] {
        metrics_until(late, &broker, |metrics| metrics.mention(late)).await;
    }
    let text = broker.get("/metrics").await.body;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let served: BTreeSet<String> =
        types.map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    let undocumented: Vec<_> = served.difference(&documented).collect();
    let absent: Vec<_> = documented.difference(&served).collect();
    assert_eq!((undocumented, absent), (vec![], vec![]));
}

#[tokio::test]
#[cfg_attr(not(has_promtool), ignore = "promtool (of Prometheus) is not on this machine")]
async fn prometheus_finds_nothing_wrong_with_the_metrics() {
    let broker = with_all_series().await;
    let answer = broker.get("/metrics").await;
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let mut linting = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = linting.stdin.take().unwrap();
    stdin.write_all(answer.body.as_bytes()).await.unwrap();
    drop(stdin);
    let linted = soon("promtool", linting.wait_with_output()).await.unwrap();
    assert!(linted.status.success(), "{linted:?}");
}
