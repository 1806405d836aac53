//! Failover without a workload: a few calls on one topic, in an order that the test chooses.

use tonic::Code;
use trunkline::{client::Client, proto};

use crate::{
    failover::pair,
    proxy::Mode,
    run::{Run, Setup},
    support::{soon, until},
    verdict,
};

/// The lost offsets are reused before anyone reads, so only the publish that reuses them can find
/// the truncation.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "there is no pg_basebackup beside the server to create a standby"
)]
async fn a_truncation_of_few_messages_is_found_by_the_next_publish() {
    let (primary, mut standby) = pair(false).await;
    let mut run = Run::prepare("failover-with-small-truncation", &Setup::default(), primary).await;
    let client = with_a_consumer(&run).await;
    let producer = client.producer("few", "few").register().open().await.unwrap();
    producer.publish("kept").await.unwrap();
    standby_has_all(&run.sql().await).await;
    standby.stop_immediately().await;
    for _ in 0..5 {
        producer.publish("lost").await.unwrap();
    }
    run.postgres.lose_power().await;
    standby.start_again().await;
    standby.promote().await;
    run.switch_to(standby);
    // Without a sequence, so that it is not refused: more messages than were lost.
    let request = without_sequence(&client, "new", 20).await;
    until("the messages are stored", async || {
        client.producers().publish(request.clone()).await.is_ok()
    })
    .await;
    let lost = "the database has lost messages topic=few first=1 end=6";
    until("the broker logs it", async || run.brokers[0].log_text().contains(lost)).await;
    let status = match client.consumers().consume(consume_request()).await {
        Ok(stream) => stream.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::DataLoss, "{status:?}");
}

/// The old primary still accepts writes, and its sessions do not end; only new ones lead elsewhere.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "there is no pg_basebackup beside the server to create a standby"
)]
async fn all_sessions_leave_a_primary_that_was_replaced() {
    let (primary, standby) = pair(false).await;
    let mut run = Run::prepare("old-primary-left", &Setup::default(), primary).await;
    let client = with_a_consumer(&run).await;
    let mut stream = client.consumers().consume(consume_request()).await.unwrap().into_inner();
    client.producer("few", "few").register().open().await.unwrap().publish("kept").await.unwrap();
    let sql = run.sql().await;
    let address = run.address_of(0).to_string();
    let writers = async |sql: &tokio_postgres::Client| -> i64 {
        let count = "select count(*) from pg_stat_activity
            where application_name = 'trunkline writer' and client_addr = $1::text::inet";
        sql.query_one(count, &[&address]).await.unwrap().get(0)
    };
    // A writer session is being opened during all of this.
    run.to_postgres[0].set("trunkline writer", Mode::Hold);
    run.to_postgres[0].cut("trunkline writer", None);
    until("the writer session is gone", async || writers(&sql).await == 0).await;
    let late = without_sequence(&client, "late", 1).await;
    let late = tokio::spawn({
        let client = client.clone();
        async move { client.producers().publish(late).await }
    });
    until("a new writer session is being opened", async || writers(&sql).await >= 1).await;
    let rows_of = async |sql: &tokio_postgres::Client| -> i64 {
        sql.query_one("select count(*) from trunkline.batch", &[]).await.unwrap().get(0)
    };
    standby_has_all(&sql).await;
    let old = rows_of(&sql).await;
    standby.promote().await;
    let old_primary = run.switch_to(standby);
    // One kind of session is reopened.
    run.to_postgres.iter().for_each(|proxy| proxy.cut("trunkline query", None));
    until("the permanent sessions have left", async || {
        let permanent = "select count(*) from pg_stat_activity
            where application_name in ('trunkline lease', 'trunkline listen')";
        sql.query_one(permanent, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    run.to_postgres[0].set("trunkline writer", Mode::Pass);
    let ended = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a status"),
                Err(status) => return status,
            }
        }
    };
    let status = soon("the stream ends", ended).await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let _ = soon("the late publish is answered", late).await;
    let new = run.sql().await;
    until("all brokers have a lease session", async || {
        let count = "select count(*) from pg_stat_activity where application_name = $1";
        new.query_one(count, &[&"trunkline lease"]).await.unwrap().get::<_, i64>(0) == 2
    })
    .await;
    let before = rows_of(&new).await;
    for broker in &run.brokers {
        assert_eq!(verdict::work_problems(&run.world, broker).await, [""; 0]);
    }
    let mut stream = client.consumers().consume(consume_request()).await.unwrap().into_inner();
    until("the stream has a lease again", async || {
        let event = stream.message().await.unwrap().unwrap().event;
        matches!(event, Some(proto::consume_response::Event::Attached(_)))
    })
    .await;
    assert_eq!(rows_of(&sql).await, old, "the old primary was written to");
    assert!(rows_of(&new).await > before);
    drop(old_primary);
}

/// A client of the first broker, and a consumer of the topic `few`.
async fn with_a_consumer(run: &Run) -> Client {
    let client = run.client(0).await;
    client.ensure_topic("few").await.unwrap();
    let request = proto::RegisterConsumerRequest {
        topic: "few".to_owned(),
        consumer_id: "few".to_owned(),
        ..Default::default()
    };
    client.consumers().register_consumer(request).await.unwrap();
    client
}

/// A stream of the consumer `few`.
fn consume_request() -> proto::ConsumeRequest {
    proto::ConsumeRequest {
        topic: "few".to_owned(),
        consumer_id: "few".to_owned(),
        ..Default::default()
    }
}

/// A publish of the producer `few` without a sequence.
async fn without_sequence(
    client: &Client,
    payload: &'static str,
    count: usize,
) -> proto::PublishRequest {
    proto::PublishRequest {
        topic: "few".to_owned(),
        producer_id: "few".to_owned(),
        messages: vec![proto::NewMessage { payload: payload.into(), ..Default::default() }; count],
        producer_epoch: producer_epoch(client).await,
        ..Default::default()
    }
}

/// Waits until the standby has everything; asks the primary.
async fn standby_has_all(sql: &tokio_postgres::Client) {
    let caught_up = "select replay_lsn >= pg_current_wal_lsn() from pg_stat_replication";
    until("the standby has everything", async || {
        sql.query_one(caught_up, &[]).await.unwrap().get(0)
    })
    .await;
}

async fn producer_epoch(client: &Client) -> i64 {
    let request =
        proto::GetProducerRequest { topic: "few".to_owned(), producer_id: "few".to_owned() };
    let mut epoch = None;
    until("the producer is found", async || {
        let found = client.producers().get_producer(request.clone()).await;
        epoch = found.ok().and_then(|found| found.into_inner().producer).map(|it| it.epoch);
        epoch.is_some()
    })
    .await;
    epoch.unwrap()
}
