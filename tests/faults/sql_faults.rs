//! Producers that publish within transactions of their own, while brokers, PostgreSQL and others break
//! what they need.

use std::time::{Duration, Instant};

use trunkline::{
    client::Client,
    proto::{self, OnBusy, consume_response::Event},
};

use crate::{
    failover::pair,
    pooler::Pooler,
    postgres::{Postgres, connect},
    run::{Run, Setup},
    support::until,
};

async fn start(name: &str) -> Run {
    let run = Run::start(name, Setup { sql: true, ..Setup::default() }).await;
    run.work_until_stored(1_000).await;
    run
}

/// One of them moves messages out of the outbox, and the other one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_move_messages_from_the_outbox_are_killed() {
    let mut run = start("sql-brokers-killed").await;
    for number in [0, 1, 0, 1] {
        run.fault("SIGKILL of a broker", true);
        run.brokers[number].kill().await;
        run.work_until_stored(500).await;
        run.brokers[number].start_again().await;
        run.fault("SIGKILL of a broker", false);
        run.work_until_stored(300).await;
    }
    run.finish().await;
}

/// A broker that loses its lease may still be moving when another one begins.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_move_messages_from_the_outbox_are_ended() {
    let run = start("sql-sessions-ended").await;
    for round in 0..8 {
        run.fault("end of sessions", true);
        run.end_sessions(if round % 2 == 0 { "trunkline lease" } else { "trunkline query" }).await;
        run.fault("end of sessions", false);
        run.work_until_stored(200).await;
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_restarts_while_transactions_publish() {
    let mut run = start("sql-postgres-restarts").await;
    for _ in 0..3 {
        run.fault("SIGQUIT to the postmaster", true);
        run.postgres.stop_immediately().await;
        run.postgres.start_again().await;
        run.fault("SIGQUIT to the postmaster", false);
        run.work_until_stored(300).await;
    }
    run.finish().await;
}

/// Its clients share a few sessions, and each of their transactions may run in another one.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_pgbouncer), ignore = "PgBouncer is not on this machine (package pgbouncer)")]
async fn a_pooler_and_the_server_behind_it_are_killed_while_transactions_publish() {
    let postgres = Postgres::start(&[]).await;
    let mut pooler = Pooler::start(&postgres).await;
    let setup = Setup { sql: true, sql_url: Some(pooler.url()), ..Setup::default() };
    let mut run = Run::start_on("sql-pooler", setup, postgres).await;
    run.work_until_stored(1_000).await;
    for _ in 0..3 {
        run.fault("SIGKILL of the pooler", true);
        pooler.kill();
        run.work_for(Duration::from_millis(500)).await;
        pooler.start_again().await;
        run.fault("SIGKILL of the pooler", false);
        run.work_until_stored(300).await;
    }
    run.fault("SIGQUIT to the postmaster", true);
    run.postgres.stop_immediately().await;
    run.postgres.start_again().await;
    run.fault("SIGQUIT to the postmaster", false);
    run.work_until_stored(300).await;
    run.finish().await;
}

/// What it has published comes at its end, and holds up nobody until then, for a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_with_messages_in_the_outbox_stays_open() {
    let run = start("sql-transaction-open").await;
    let long = run.sql().await;
    run.fault("an open transaction", true);
    let opened = Instant::now();
    long.batch_execute("begin").await.unwrap();
    while opened.elapsed() < Duration::from_secs(60) {
        let publish = "select trunkline.publish_later('hot', 'x', producer => 'hot-a')";
        long.batch_execute(publish).await.unwrap();
        run.work_for(Duration::from_secs(2)).await;
        run.work_until_stored(200).await;
    }
    long.batch_execute("rollback").await.unwrap();
    run.fault("an open transaction", false);
    run.work_until_stored(200).await;
    run.finish().await;
}

/// Standbys have what the outbox had, and transactions that were open are gone.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "there is no pg_basebackup beside the server to create a standby"
)]
async fn a_standby_replaces_the_primary_while_transactions_publish() {
    let (primary, standby) = pair(true).await;
    let mut run =
        Run::start_on("sql-failover", Setup { sql: true, ..Setup::default() }, primary).await;
    run.work_until_stored(1_000).await;
    run.fault("SIGKILL of the primary, the standby is promoted", true);
    run.postgres.lose_power().await;
    standby.promote().await;
    run.switch_to(standby);
    run.fault("SIGKILL of the primary, the standby is promoted", false);
    run.work_until_stored(1_000).await;
    run.finish().await;
}

/// Clients that store what they receive, and their position, in one transaction: some from a stream, and
/// some with `receive`. They are killed at any moment, take over from each other, and are sought to where
/// they are.
#[tokio::test(flavor = "multi_thread")]
async fn each_message_takes_effect_once_although_consumers_are_killed_a_hundred_times() {
    let run = start("sql-exactly-once").await;
    let client = run.client(0).await;
    for consumer in ["streaming", "pulling"] {
        let request = proto::RegisterConsumerRequest {
            topic: "side-0".to_owned(),
            consumer_id: consumer.to_owned(),
            ..Default::default()
        };
        client.consumers().register_consumer(request).await.unwrap();
    }
    let sql = run.sql().await;
    // Nothing keeps a row from being inserted twice.
    sql.batch_execute("create table effect (consumer text, message bigint)").await.unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    let database = run.world.database.borrow().clone();
    let stream = |client| tokio::spawn(take_effect(client, database.clone()));
    let pull = || tokio::spawn(pull(database.clone()));
    let mut streaming =
        [stream(run.client(0).await), stream(run.client(1).await), stream(run.client(0).await)];
    let mut pulling = [pull(), pull(), pull()];
    run.fault("consumers end at any moment", true);
    for kill in 0..100 {
        run.work_for(Duration::from_millis(rng.u64(20..150))).await;
        let victim = rng.usize(..3);
        streaming[victim].abort();
        streaming[victim] = stream(run.client(kill % 2).await);
        pulling[victim].abort();
        pulling[victim] = pull();
        if kill % 10 == 0 {
            // Begins a new epoch, and moves nothing.
            let seek = "select trunkline.seek('side-0', consumer_id, position) from (
                select consumer_id, position from trunkline.consumer_topic
                where consumer_id in ('streaming', 'pulling') order by id
                for update) stored";
            sql.batch_execute(seek).await.unwrap();
        }
    }
    run.fault("consumers end at any moment", false);
    run.world.stop_writing.cancel();
    until("every message has taken effect", async || {
        let done = "select bool_and(position = next_offset) from trunkline.consumer_topic c
            join trunkline.topic_head using (topic_id)
            where consumer_id in ('streaming', 'pulling')";
        sql.query_one(done, &[]).await.unwrap().get(0)
    })
    .await;
    streaming.iter().chain(&pulling).for_each(|worker| worker.abort());
    let effects = "select count(*), count(distinct message), min(message),
            (select position from trunkline.consumer_topic where consumer_id = consumer)
        from effect group by consumer";
    let rows = sql.query(effects, &[]).await.unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        let (count, distinct, first, position): (i64, i64, i64, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        assert_eq!((count, distinct, first), (position, position, 0));
        assert!(count > 500, "{count} messages took effect");
    }
    run.finish().await;
}

/// Receives as the consumer `pulling`, and stores the offsets of what it receives.
async fn pull(database: String) {
    loop {
        let _ = pull_until_it_fails(&database).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn pull_until_it_fails(database: &str) -> Result<(), tokio_postgres::Error> {
    let sql = connect(database).await?;
    loop {
        sql.batch_execute("begin").await?;
        let receive = "insert into effect
            select 'pulling', \"offset\" from trunkline.receive('side-0', 'pulling', 20)";
        let received = sql.execute(receive, &[]).await?;
        sql.batch_execute("commit").await?;
        if received == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Receives as the consumer `streaming`, and stores the offsets of what it receives.
async fn take_effect(client: Client, database: String) {
    // A new client takes over, as its predecessor may still hold the lease.
    let mut on_busy = OnBusy::TakeOver;
    loop {
        let _ = take_effect_until_it_fails(&client, &database, on_busy).await;
        on_busy = OnBusy::Wait;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn take_effect_until_it_fails(
    client: &Client,
    database: &str,
    on_busy: OnBusy,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let sql = connect(database).await?;
    let request = proto::ConsumeRequest {
        topic: "side-0".to_owned(),
        consumer_id: "streaming".to_owned(),
        commit_mode: proto::CommitMode::Manual.into(),
        on_busy: on_busy.into(),
        max_batch_messages: 20,
        ..Default::default()
    };
    let mut stream = client.consumers().consume(request).await?.into_inner();
    let mut epoch = 0;
    while let Some(frame) = stream.message().await? {
        match frame.event {
            Some(Event::Attached(attached)) => epoch = attached.epoch,
            Some(Event::Repositioned(repositioned)) => epoch = repositioned.epoch,
            Some(Event::Batch(batch)) => {
                let offsets: Vec<i64> = batch.messages.iter().map(|it| it.offset).collect();
                let Some(last) = offsets.last() else { continue };
                sql.batch_execute("begin").await?;
                let insert = "insert into effect select 'streaming', unnest($1::bigint[])";
                sql.execute(insert, &[&offsets]).await?;
                let commit = "select trunkline.commit_position('side-0', 'streaming', $1, $2)";
                sql.execute(commit, &[&(last + 1), &epoch]).await?;
                sql.batch_execute("commit").await?;
            }
            _ => {}
        }
    }
    Ok(())
}
