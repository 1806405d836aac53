//! Traces: how they reach a collector, and what happens if they do not.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use trunkline::{client::Client, proto};

use crate::support::{
    Authority, RawClient, TestDatabase, TlsFolder, Trunkline,
    collector::{Collector, attribute},
    http::{get, http_address},
    soon,
    traced::{PARENT, TRACE, bytes, name_of},
    until,
};

#[tokio::test]
async fn traces_are_encrypted_and_carry_the_headers_and_names_that_are_given() {
    let database = TestDatabase::create().await;
    let authority = Authority::new();
    let collector = Collector::start_encrypted(&authority.sign("127.0.0.1")).await;
    let folder = TlsFolder::new(&authority);
    folder.write("ca.pem", &authority.pem());
    let ca = folder.path("ca.pem");
    let flags = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--database-url",
        &database.url,
        "--otlp-endpoint",
        &collector.endpoint,
        "--otlp-ca",
        ca.to_str().unwrap(),
        "--trace-sampling",
        "1",
    ];
    let mut command = Trunkline::command(&flags);
    command
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret")
        .env("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,service.version=7")
        .env("OTEL_SERVICE_NAME", "the-broker")
        // Whatever they say, spans are whole.
        .env("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1");
    let (_broker, endpoint) = Trunkline::serve_command(command).await;
    Client::connect(&endpoint).await.unwrap().ensure_topic("orders").await.unwrap();
    let is_create = |span: &Span| span.name == "trunkline.v1.TopicService/CreateTopic";
    let span = collector.span("a call", is_create).await;
    assert_eq!(name_of(&span, "rpc.response.status_code"), "OK");
    assert_eq!(collector.authorizations(), ["Bearer secret"]);
    let resource = collector.resources().pop().unwrap();
    for (name, value) in [("service.name", "the-broker"), ("service.version", "7")] {
        assert_eq!(attribute(&resource.attributes, name).as_deref(), Some(value));
    }
    assert!(attribute(&resource.attributes, "service.instance.id").is_some());
}

#[tokio::test]
async fn what_is_left_is_exported_when_the_broker_stops() {
    let database = TestDatabase::create().await;
    let collector = Collector::start().await;
    let start = ["--listen", "127.0.0.1:0", "--database-url", &database.url];
    let traces = ["--otlp-endpoint", &collector.endpoint, "--trace-sampling", "1"];
    let (mut broker, endpoint) = Trunkline::serve(&[&start[..], &traces].concat()).await;
    Client::connect(&endpoint).await.unwrap().ensure_topic("orders").await.unwrap();
    broker.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(broker.wait().await.success());
    let names: Vec<_> = collector.spans().into_iter().map(|span| span.name).collect();
    assert!(names.contains(&"trunkline.v1.TopicService/CreateTopic".to_owned()), "{names:?}");
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nobody_up() {
    let database = TestDatabase::create().await;
    // Accepts connections, and never answers, neither in plain nor by TLS.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", deaf.local_addr().unwrap());
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let silent_by_tls = silent.replace("http", "https");
    tokio::join!(
        held_up_by_nobody(&database, &silent, true),
        held_up_by_nobody(&database, &silent_by_tls, true),
        held_up_by_nobody(&database, &nowhere, false),
    );
    drop(deaf);
}

/// Makes calls whose spans nobody accepts, until the queue is full if the collector hangs.
async fn held_up_by_nobody(database: &TestDatabase, collector: &str, hangs: bool) {
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--database-url",
        &database.url,
        "--otlp-endpoint",
        collector,
        "--trace-sampling",
        "1",
    ];
    let (mut broker, at) = Trunkline::serve(&flags).await;
    let http = http_address(&mut broker, "http").await;
    let client = Client::connect(&at).await.unwrap();
    client.ensure_topic("orders").await.unwrap();
    let call = async |count: usize| {
        let get = || proto::GetTopicRequest { topic: "orders".to_owned() };
        let calls = (0..count).map(|_| {
            let mut topics = client.topics();
            async move { topics.get_topic(get()).await.unwrap() }
        });
        soon("all calls", futures_util::future::join_all(calls)).await;
    };
    let metric = async |name: &str| {
        let metrics = get(&http, "/metrics", &[("Host", "localhost")]).await.body;
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    if hangs {
        // The queue fills, as only 256 spans leave it in 5 s.
        until("spans are dropped", async || {
            call(300).await;
            metric("trunkline_trace_spans_dropped_total").await > 0.0
        })
        .await;
    } else {
        call(300).await;
    }
    let line = broker.log_line("export spans").await;
    assert!(line.contains("WARN") && line.contains("spans="), "{line}");
    until("every failure is counted", async || {
        metric("trunkline_trace_spans_failed_total").await > 0.0
    })
    .await;
    assert_eq!(metric("trunkline_trace_spans_exported_total").await, 0.0);
    broker.signal(nix::sys::signal::Signal::SIGTERM);
    let stopping = Instant::now();
    assert!(broker.wait().await.success());
    // It does not wait for another export, which may take 5 s.
    assert!(stopping.elapsed() < Duration::from_millis(4_500), "{:?}", stopping.elapsed());
}

#[tokio::test]
async fn where_callers_must_prove_who_they_are_strangers_cause_no_traces() {
    let database = Arc::new(TestDatabase::create().await);
    let root = trunkline::server::bootstrap(&database.url).await.unwrap();
    let collector = Collector::start().await;
    let start = ["--listen", "127.0.0.1:0", "--database-url", &database.url];
    let flags = ["--auth", "required", "--trace-sampling", "1"];
    let (_broker, endpoint) =
        Trunkline::serve_traced(&collector, &[&start[..], &flags].concat()).await;
    let client = RawClient::connect(&endpoint).await;
    let method = "trunkline.v1.TopicService/ListTopics";
    let health = "grpc.health.v1.Health/Check";
    for (number, method, token) in
        [(1, method, "tlk_wrong"), (3, health, ""), (4, health, &root), (2, method, &root)]
    {
        let headers = [
            ("traceparent", format!("00-{}0{number}-{PARENT}-01", &TRACE[..30])),
            ("authorization", format!("Bearer {token}")),
        ];
        let headers = if token.is_empty() { &headers[..1] } else { &headers };
        soon("a call", client.call(method, headers, &[b""])).await;
    }
    let trace = bytes(&format!("{}02", &TRACE[..30]));
    collector.named(method, &trace).await;
    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.trace_id == trace), "{spans:?}");
}

#[tokio::test]
async fn options_for_traces_that_make_no_sense_are_refused() {
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let authority = Authority::new();
    let folder = TlsFolder::new(&authority);
    folder.write("ca.pem", &authority.pem());
    let ca = folder.path("ca.pem");
    let ca = ca.to_str().unwrap();
    for (flags, said) in [
        (&["--otlp-endpoint", "http://a:1", "--otlp-ca", ca][..], "must begin with https://"),
        (&["--otlp-endpoint", "localhost:4317"], "--otlp-endpoint: it must be a URL"),
        (&["--otlp-endpoint", "http://a:1", "--trace-sampling", "2"], "a number from 0 to 1"),
        (&["--otlp-endpoint", "http://a:1", "--trace-sampling", "-1"], "a number from 0 to 1"),
        (&["--otlp-ca", "/nonexistent"], "--otlp-endpoint"),
        (
            &["--otlp-endpoint", "https://a:1", "--otlp-ca", "/nonexistent/ca.pem"],
            "--otlp-ca /nonexistent/ca.pem: No such file",
        ),
    ] {
        let finished = Trunkline::run(&[&serve, flags].concat()).await;
        assert_ne!(finished.code(), 0);
        assert!(finished.stderr.contains(said), "{flags:?}: {}", finished.stderr);
    }
}
