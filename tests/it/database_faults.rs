//! Database outages, at the broker's start and while it runs.

use std::time::Duration;

use nix::sys::signal::Signal;
use tonic::{Code, Request, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use trunkline::{
    client::Client,
    embedded::{DATABASE, EmbeddedPostgres},
    proto::{self, consume_response::Event},
};

use crate::support::{LIMITS, TestBroker, Trunkline, info, retry_delay, soon, until};

async fn health(client: &Client) -> ServingStatus {
    let answer =
        HealthClient::new(client.connection()).check(HealthCheckRequest::default()).await.unwrap();
    answer.into_inner().status()
}

async fn publish(client: &Client) -> Result<i64, Status> {
    let request = proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: "p".to_owned(),
        messages: vec![proto::NewMessage { payload: "x".into(), ..Default::default() }],
        ..Default::default()
    };
    Ok(client.producers().publish(request).await?.into_inner().first_offset)
}

#[tokio::test]
async fn a_broker_survives_a_database_outage_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = EmbeddedPostgres::start(dir.path()).await.unwrap();
    let url = postgres.url(DATABASE);
    let (broker, endpoint) =
        Trunkline::serve(&["--listen", "127.0.0.1:0", "--database-url", &url]).await;
    let client = Client::connect(&endpoint).await.unwrap();
    let topic = proto::CreateTopicRequest { topic: "orders".to_owned(), ..Default::default() };
    client.topics().create_topic(topic).await.unwrap();
    let (topic, producer_id) = ("orders".to_owned(), "p".to_owned());
    let producer = proto::RegisterProducerRequest { topic, producer_id, ..Default::default() };
    client.producers().register_producer(producer).await.unwrap();
    let (topic, consumer_id) = ("orders".to_owned(), "c".to_owned());
    let consumer = proto::RegisterConsumerRequest { topic, consumer_id, ..Default::default() };
    client.consumers().register_consumer(consumer).await.unwrap();
    assert_eq!(publish(&client).await.unwrap(), 0);
    assert_eq!(health(&client).await, ServingStatus::Serving);
    let request = || proto::ConsumeRequest {
        topic: "orders".to_owned(),
        consumer_id: "c".to_owned(),
        ..Default::default()
    };
    let mut stream = client.consumers().consume(request()).await.unwrap().into_inner();

    postgres.stop().await.unwrap();
    until("health reports the outage", async || health(&client).await == ServingStatus::NotServing)
        .await;
    let status = loop {
        if let Err(status) = soon("the stream ends", stream.message()).await {
            break status;
        }
    };
    info(&status, Code::Unavailable, "DATABASE_UNAVAILABLE");
    assert!(retry_delay(&status).is_some());
    let status = soon("a publish is answered", publish(&client)).await.unwrap_err();
    info(&status, Code::Unavailable, "DATABASE_UNAVAILABLE");
    assert!(retry_delay(&status).is_some());
    let get = proto::GetTopicRequest { topic: "orders".to_owned() };
    let status = client.topics().get_topic(get).await.unwrap_err();
    info(&status, Code::Unavailable, "DATABASE_UNAVAILABLE");

    let postgres = EmbeddedPostgres::start(dir.path()).await.unwrap();
    until("health reports the recovery", async || health(&client).await == ServingStatus::Serving)
        .await;
    until("publishing works again", async || publish(&client).await.is_ok()).await;
    until("consuming works again", async || {
        let mut stream = client.consumers().consume(request()).await.unwrap().into_inner();
        matches!(soon("a frame", stream.message()).await, Ok(Some(_)))
    })
    .await;
    drop(broker);
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_publish_whose_session_is_lost_has_an_unknown_outcome() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let mut locking = broker.sql().await;
    let lock = locking.transaction().await.unwrap();
    lock.execute("update trunkline.topic_head set next_offset = next_offset", &[]).await.unwrap();
    let sql = broker.sql().await;
    let end_the_writer = until("the waiting writer is terminated", async || {
        let ended = "select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and application_name = 'trunkline writer'
              and wait_event_type = 'Lock'";
        !sql.query(ended, &[]).await.unwrap().is_empty()
    });
    let publish = broker.try_publish("orders", "producer", ["first"]);
    let (published, ()) = tokio::join!(publish, end_the_writer);
    let status = published.unwrap_err();
    info(&status, Code::Unavailable, "OUTCOME_UNKNOWN");
    assert!(retry_delay(&status).is_some());
    lock.rollback().await.unwrap();
    assert_eq!(broker.publish("orders", ["second"]).await, 0);
}

/// Another statement on the same session would wait behind the one that hangs.
#[tokio::test]
async fn sessions_with_an_abandoned_statement_are_not_reused() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let sql = broker.sql().await;
    // Every read of a producer now takes longer than any call of this test may.
    sql.batch_execute(
        "alter table trunkline.producer_topic rename to registered;
         create view trunkline.producer_topic as
         select registered.* from trunkline.registered, pg_sleep(60)",
    )
    .await
    .unwrap();
    let calls = (0..LIMITS.queries).map(|_| {
        let client = broker.client.clone();
        async move {
            let (topic, producer_id) = ("orders".to_owned(), "producer".to_owned());
            let mut request = Request::new(proto::GetProducerRequest { topic, producer_id });
            request.set_timeout(Duration::from_millis(1500));
            client.producers().get_producer(request).await.unwrap_err().code()
        }
    });
    let refusals = futures::future::join_all(calls).await;
    // The client's timer and the broker's run out at the same time.
    let at_the_deadline = |code| matches!(code, Code::Cancelled | Code::DeadlineExceeded);
    assert!(refusals.iter().copied().all(at_the_deadline), "{refusals:?}");
    let request = proto::GetTopicRequest { topic: "orders".to_owned() };
    soon("another call is answered", broker.client.topics().get_topic(request)).await.unwrap();
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name = 'trunkline query'
          and wait_event = 'PgSleep'";
    let hanging = sql.query(end, &[]).await.unwrap().len();
    assert_eq!(hanging, LIMITS.queries, "a call waited behind others");
}

#[tokio::test]
async fn sessions_that_an_operator_terminates_are_replaced() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["first"]).await;
    let mut stream = broker.consume("orders", "billing").await;
    assert_eq!(stream.payloads(1).await, ["first"]);
    let sql = broker.sql().await;
    sql.batch_execute(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database()
           and application_name in ('trunkline query', 'trunkline writer', 'trunkline position')",
    )
    .await
    .unwrap();
    // A broker may notice a dead session only when it uses it: then nothing is stored.
    let mut offset = None;
    until("publishing works again", async || {
        offset = broker.try_publish("orders", "producer", ["second"]).await.ok();
        offset.is_some()
    })
    .await;
    assert_eq!(offset.unwrap().first_offset, 1);
    until("the catalogue can be read again", async || {
        let get = proto::GetTopicRequest { topic: "orders".to_owned() };
        broker.topics().get_topic(get).await.is_ok()
    })
    .await;
    // The stream may have met a dead session, and ended with an error.
    until("the message is delivered", async || match stream.try_next().await {
        Ok(Event::Batch(batch)) => batch.messages[0].payload == "second",
        Ok(_) => false,
        Err(status) => {
            info(&status, Code::Unavailable, "DATABASE_UNAVAILABLE");
            stream = broker.consume("orders", "billing").await;
            false
        }
    })
    .await;
}

/// The more often it is lost, the longer the broker waits before it opens another one.
#[tokio::test]
async fn a_stream_waits_while_the_lease_session_is_reopened() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    for _ in 0..5 {
        let mut stream = broker.consume("orders", "billing").await;
        stream.attaches().await;
        broker.end_sessions("trunkline lease").await;
        info(&stream.ended().await, Code::Unavailable, "DATABASE_UNAVAILABLE");
    }
    broker.consume("orders", "billing").await.attaches().await;
}

#[tokio::test]
async fn a_stream_ends_if_no_lease_session_can_be_opened() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut stream = broker.consume("orders", "billing").await;
    stream.attaches().await;
    let rename = async |from: &str, to: &str| {
        let rename = format!("alter function pg_catalog.{from}(integer, integer) rename to {to}");
        broker.sql().await.batch_execute(&rename).await.unwrap();
    };
    rename("pg_try_advisory_lock", "gone").await;
    broker.end_sessions("trunkline lease").await;
    info(&stream.ended().await, Code::Unavailable, "DATABASE_UNAVAILABLE");
    let status = broker.consume("orders", "billing").await.ended().await;
    info(&status, Code::Unavailable, "DATABASE_UNAVAILABLE");
    assert!(retry_delay(&status).is_some());
    rename("gone", "pg_try_advisory_lock").await;
    broker.consume("orders", "billing").await.attaches().await;
}

#[tokio::test]
async fn an_internal_error_shows_no_sql_to_a_client() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let sql = broker.sql().await;
    sql.batch_execute("alter table trunkline.batch rename column payloads to gone").await.unwrap();
    let status = broker.try_publish("orders", "producer", ["first"]).await.unwrap_err();
    assert!(info(&status, Code::Internal, "INTERNAL").is_empty());
    assert!(!status.message().contains("payloads"), "{status:?}");
}

#[tokio::test]
async fn a_broker_waits_for_a_database_that_is_down_at_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = EmbeddedPostgres::start(dir.path()).await.unwrap();
    let url = postgres.url(DATABASE);
    postgres.stop().await.unwrap();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--database-url", &url];
    let mut broker = Trunkline::spawn(&arguments);
    broker.log_line("wait for the database").await;
    let postgres = EmbeddedPostgres::start(dir.path()).await.unwrap();
    let ready = soon("the ready line", broker.stdout.next_line()).await.unwrap().unwrap();
    assert!(ready.starts_with("listening on 127.0.0.1:"), "{ready}");
    broker.signal(Signal::SIGTERM);
    assert!(broker.wait().await.success());
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_database_that_stays_down_ends_the_start_with_69_after_30_s() {
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().to_str().unwrap().replace('/', "%2F");
    let url = format!("postgresql://u:s3cret@/d?host={host}");
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--database-url", &url];
    let finished = Trunkline::run_patiently(&arguments, Duration::from_secs(45)).await;
    assert_eq!(finished.code(), 69, "{finished:?}");
    let last = finished.stderr.lines().last().unwrap();
    assert!(last.starts_with("trunkline: reach the database: "), "{last}");
    // It tries once a second, and logs that every ten seconds.
    assert!(finished.stderr.matches("wait for the database").count() >= 3, "{finished:?}");
    assert!(!finished.stderr.contains("s3cret"), "{finished:?}");
}

#[tokio::test]
async fn an_invalid_database_url_ends_the_start_at_once() {
    let finished = Trunkline::run(&["serve", "--database-url", "nonsense"]).await;
    assert_eq!(finished.code(), 2, "{finished:?}");
    assert!(finished.stderr.contains("read the database URL"), "{finished:?}");
    let finished = Trunkline::run(&["serve", "--database-url-file", "/nowhere/url"]).await;
    assert_eq!(finished.code(), 1, "{finished:?}");
    assert!(finished.stderr.contains("read /nowhere/url"), "{finished:?}");
}
