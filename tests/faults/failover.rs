//! A primary that dies, and its standby that takes its place.

use std::{collections::HashMap, fs, path::PathBuf, time::Duration};

use nix::sys::signal::Signal;
use tonic::Code;
use trunkline::{client::Client, proto};

use crate::{
    history::What,
    postgres::Postgres,
    proxy::{ALL, Mode},
    run::{Run, Setup},
    support::{soon, until},
    verdict,
};

/// A primary whose commits wait for a standby, and the standby.
async fn pair(synchronous: bool) -> (Postgres, Postgres) {
    let primary = Postgres::start(&[]).await;
    let standby = primary.start_standby("standby").await.expect("a standby");
    if synchronous {
        primary.waits_for("standby").await;
    }
    (primary, standby)
}

/// What it tells is older than what was told before, and it takes no publishes.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "pg_basebackup, which makes standbys, is not beside the server"
)]
async fn a_standby_is_not_taken_for_a_primary() {
    let (primary, standby) = pair(true).await;
    let run = Run::start_on("standby-not-read", Setup::default(), primary).await;
    run.works(500).await;
    run.fault("the way leads to a standby", true);
    // Whoever looks at the tables goes on to look at the primary's.
    for proxy in &run.to_postgres {
        proxy.lead_to(standby.port());
        proxy.cut(ALL, None);
    }
    run.goes_on_for(Duration::from_secs(2)).await;
    let events = run.world.history.events().len();
    run.goes_on_for(Duration::from_secs(2)).await;
    let attached = run.world.history.events()[events..]
        .iter()
        .find(|event| matches!(event.what, What::Attached { .. }))
        .cloned();
    assert_eq!(attached, None, "somebody reads from a standby");
    run.to_postgres.iter().for_each(|proxy| proxy.lead_to(run.postgres.port()));
    run.fault("the way leads to a standby", false);
    run.works(500).await;
    run.finish().await;
    drop(standby);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "pg_basebackup, which makes standbys, is not beside the server"
)]
async fn a_synchronous_standby_takes_the_place_of_its_primary() {
    let (primary, standby) = pair(true).await;
    let mut run = Run::start_on("failover", Setup::default(), primary).await;
    run.works(1_000).await;
    run.fault("SIGKILL of the primary, the standby is promoted", true);
    run.postgres.lose_power().await;
    standby.promote().await;
    run.lead_to(standby);
    run.fault("SIGKILL of the primary, the standby is promoted", false);
    run.works(1_000).await;
    run.finish().await;
}

/// The brokers' connections lead to it still, and it believes that it is the primary.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "pg_basebackup, which makes standbys, is not beside the server"
)]
async fn a_standby_takes_the_place_of_a_primary_that_lives_on() {
    let (primary, standby) = pair(true).await;
    let mut run = Run::start_on("failover-zombie", Setup::default(), primary).await;
    run.works(1_000).await;
    run.fault("SIGSTOP of the primary, the standby is promoted, SIGCONT", true);
    run.postgres.signal_all(Signal::SIGSTOP);
    standby.promote().await;
    let mut zombie = run.lead_to(standby);
    zombie.signal_all(Signal::SIGCONT);
    run.goes_on_for(Duration::from_secs(5)).await;
    zombie.lose_power().await;
    run.fault("SIGSTOP of the primary, the standby is promoted, SIGCONT", false);
    run.works(1_000).await;
    run.finish().await;
}

/// Its commits wait, and nobody may see what is not committed.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "pg_basebackup, which makes standbys, is not beside the server"
)]
async fn nothing_is_seen_before_the_standby_has_it() {
    let (primary, standby) = pair(true).await;
    let run = Run::start_on("commit-waits", Setup::default(), primary).await;
    run.works(500).await;
    run.fault("SIGSTOP of the synchronous standby", true);
    standby.signal_all(Signal::SIGSTOP);
    // What was on its way to the standby may still be acknowledged.
    run.goes_on_for(Duration::from_millis(500)).await;
    let from = run.world.history.events().len();
    run.goes_on_for(Duration::from_secs(3)).await;
    let events = run.world.history.events();
    let sql = run.sql().await;
    let position =
        sql.query_one("select pg_current_wal_lsn() > replay_lsn from pg_stat_replication", &[]);
    assert!(position.await.unwrap().get::<_, bool>(0), "no commit waits");
    let seen = events[from..].iter().find(|event| {
        matches!(
            event.what,
            What::Published { .. } | What::Committed | What::Delivered { .. } | What::Ends { .. }
        )
    });
    assert_eq!(seen, None, "seen though the standby does not have it");
    standby.signal_all(Signal::SIGCONT);
    run.fault("SIGSTOP of the synchronous standby", false);
    run.works(500).await;
    run.finish().await;
    drop(standby);
}

/// What the standby did not have yet is lost: that cannot be helped, and must not go unnoticed.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "pg_basebackup, which makes standbys, is not beside the server"
)]
async fn an_asynchronous_standby_lacks_messages_and_everybody_is_told() {
    let (primary, mut standby) = pair(false).await;
    let mut run = Run::start_on("failover-with-loss", Setup::default(), primary).await;
    run.works(1_000).await;
    run.fault("SIGKILL of the primary, a standby that is behind is promoted", true);
    standby.stop_immediately().await;
    run.works(1_000).await;
    run.reaches_everybody_within(Duration::from_secs(5)).await;
    run.postgres.lose_power().await;
    standby.start_again().await;
    standby.promote().await;
    run.lead_to(standby);
    run.fault("SIGKILL of the primary, a standby that is behind is promoted", false);
    // Producers that count find a gap, and end; the others go on.
    run.works(100).await;
    until("both brokers say so", async || {
        let says = |log: String| log.contains("the database has lost messages topic=hot");
        run.brokers.iter().all(|broker| says(broker.log_text()))
    })
    .await;
    let history = run.world.history.clone();
    let logs = ["broker-0.log", "broker-1.log"].map(|log| run.dir.join(log));
    let (report, found) = run.judge().await;
    println!("{:?}", report.figures);
    let told = lost_as_logged(&logs);
    for lost in &report.lost {
        let (first, end) = told.get(&lost.topic).copied().unwrap_or_default();
        assert!(
            first <= lost.first && lost.end <= end,
            "{lost:?} is not in what was told: {told:?}"
        );
    }
    assert!(report.figures.lost > 0, "nothing was lost: {found:#?}");
    let told = |consumer: &str| {
        history.events().iter().any(|event| {
            matches!(&event.what, What::Refused { reason, .. } if reason == "MESSAGES_LOST")
                && event.client.contains(consumer)
        })
    };
    // All whose clients do not leave of their own accord, as one may while it is told, nor may have
    // gone to a broker that knew nothing of what is lost.
    let staying = [
        ("hot", "manual"),
        ("hot", "slow"),
        ("side-1", "side"),
        ("trimmed", "trimmed"),
        ("trimmed", "behind"),
        ("sought", "sought"),
    ];
    let both_know = |topic: &str| {
        logs.iter().all(|log| lost_as_logged(std::slice::from_ref(log)).contains_key(topic))
    };
    for (topic, consumer) in staying.into_iter().filter(|(topic, _)| both_know(topic)) {
        assert!(told(&format!("{topic}-{consumer}")), "nobody told {consumer} on {topic}");
    }
    assert!(
        found.iter().any(|found| found.contains("SEQUENCE_GAP")),
        "no producer was told: {found:#?}"
    );
    // What follows from the loss, and nothing else: messages, their order and positions are others.
    let follows = ["C1:", "C3:", "C4:", "C6:", "C7:", "C8:", "C9:"];
    let wrong: Vec<_> = found
        .iter()
        .filter(|found| !follows.iter().any(|check| found.starts_with(check)))
        .filter(|found| !found.contains("MESSAGES_LOST") && !found.contains("SEQUENCE_GAP"))
        .filter(|found| !found.contains("the database has lost messages"))
        // What was asked for was there a moment ago.
        .filter(|found| !found.contains("COMMIT_BEYOND"))
        .filter(|found| !found.contains("OFFSET_OUT_OF_RANGE"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What logs tell of each topic to be lost: from and to before an offset.
fn lost_as_logged(logs: &[PathBuf]) -> HashMap<String, (i64, i64)> {
    let mut told: HashMap<String, (i64, i64)> = HashMap::new();
    for log in logs {
        for line in fs::read_to_string(log).unwrap().lines() {
            let Some((_, what)) = line.split_once("the database has lost messages ") else {
                continue;
            };
            let values: HashMap<_, _> =
                what.split(' ').filter_map(|word| word.split_once('=')).collect();
            let (first, end) = (values["first"].parse().unwrap(), values["end"].parse().unwrap());
            let one = told.entry(values["topic"].to_owned()).or_insert((first, end));
            *one = (one.0.min(first), one.1.max(end));
        }
    }
    told
}

/// Offsets that were lost are given away before anybody reads: only who gives them away can tell.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "pg_basebackup, which makes standbys, is not beside the server"
)]
async fn a_loss_of_few_messages_is_found_by_the_next_publish() {
    let (primary, mut standby) = pair(false).await;
    let mut run = Run::prepare("failover-with-little-loss", &Setup::default(), primary).await;
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
    run.lead_to(standby);
    // Without a sequence, by somebody who does not know: as many as were lost, and more.
    let request = without_sequence(&client, "new", 20).await;
    until("it is stored", async || client.producers().publish(request.clone()).await.is_ok()).await;
    let lost = "the database has lost messages topic=few first=1 end=6";
    until("the broker says so", async || run.brokers[0].log_text().contains(lost)).await;
    let status = match client.consumers().consume(of_the_consumer()).await {
        Ok(stream) => stream.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::DataLoss, "{status:?}");
}

/// Nothing keeps it from writing, and its sessions do not end: those that are opened lead elsewhere.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "pg_basebackup, which makes standbys, is not beside the server"
)]
async fn all_sessions_leave_a_primary_whose_place_is_taken() {
    let (primary, standby) = pair(false).await;
    let mut run = Run::prepare("old-primary-left", &Setup::default(), primary).await;
    let client = with_a_consumer(&run).await;
    let mut stream = client.consumers().consume(of_the_consumer()).await.unwrap().into_inner();
    client.producer("few", "few").register().open().await.unwrap().publish("kept").await.unwrap();
    let sql = run.sql().await;
    let address = run.address_of(0).to_string();
    let writers = async |sql: &tokio_postgres::Client| -> i64 {
        let count = "select count(*) from pg_stat_activity
            where application_name = 'trunkline writer' and client_addr = $1::text::inet";
        sql.query_one(count, &[&address]).await.unwrap().get(0)
    };
    // One that publishes is on its way all the while.
    run.to_postgres[0].set("trunkline writer", Mode::Hold);
    run.to_postgres[0].cut("trunkline writer", None);
    until("it has gone", async || writers(&sql).await == 0).await;
    let late = without_sequence(&client, "late", 1).await;
    let late = tokio::spawn({
        let client = client.clone();
        async move { client.producers().publish(late).await }
    });
    until("it has been asked for", async || writers(&sql).await >= 1).await;
    let rows_of = async |sql: &tokio_postgres::Client| -> i64 {
        sql.query_one("select count(*) from trunkline.batch", &[]).await.unwrap().get(0)
    };
    standby_has_all(&sql).await;
    let old = rows_of(&sql).await;
    standby.promote().await;
    let old_primary = run.lead_to(standby);
    // One kind of session is opened anew.
    run.to_postgres.iter().for_each(|proxy| proxy.cut("trunkline query", None));
    until("what lasts has left", async || {
        let lasting = "select count(*) from pg_stat_activity
            where application_name in ('trunkline lease', 'trunkline listen')";
        sql.query_one(lasting, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    run.to_postgres[0].set("trunkline writer", Mode::Pass);
    let ended = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("an end without a status"),
                Err(status) => return status,
            }
        }
    };
    let status = soon("the stream ends", ended).await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let _ = soon("the late one is answered", late).await;
    let new = run.sql().await;
    until("all brokers have a lease session", async || {
        let count = "select count(*) from pg_stat_activity where application_name = $1";
        new.query_one(count, &[&"trunkline lease"]).await.unwrap().get::<_, i64>(0) == 2
    })
    .await;
    let before = rows_of(&new).await;
    for broker in &run.brokers {
        assert_eq!(verdict::does_not_work(broker).await, [""; 0]);
    }
    let mut stream = client.consumers().consume(of_the_consumer()).await.unwrap().into_inner();
    until("a lease is had again", async || {
        let event = stream.message().await.unwrap().unwrap().event;
        matches!(event, Some(proto::consume_response::Event::Attached(_)))
    })
    .await;
    assert_eq!(rows_of(&sql).await, old, "somebody wrote to the old primary");
    assert!(rows_of(&new).await > before);
    drop(old_primary);
}

/// A client at the first broker, and a consumer of its topic.
async fn with_a_consumer(run: &Run) -> Client {
    let client = run.client(0).await;
    client.ensure_topic("few").await.unwrap();
    let request = proto::RegisterConsumerRequest {
        topic: "few".to_owned(),
        consumer_id: "few".to_owned(),
        start: None,
    };
    client.consumers().register_consumer(request).await.unwrap();
    client
}

fn of_the_consumer() -> proto::ConsumeRequest {
    proto::ConsumeRequest {
        topic: "few".to_owned(),
        consumer_id: "few".to_owned(),
        ..Default::default()
    }
}

/// A request of the topic's producer that does not count.
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

/// Waits for it; asked at the primary.
async fn standby_has_all(sql: &tokio_postgres::Client) {
    let caught_up = "select replay_lsn >= pg_current_wal_lsn() from pg_stat_replication";
    until("the standby has all", async || sql.query_one(caught_up, &[]).await.unwrap().get(0))
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
