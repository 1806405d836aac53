//! A PostgreSQL that ends sessions, crashes, restarts, and has no room.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{
    postgres::Postgres,
    run::{Run, Setup},
    support::until,
    tmpfs::Tmpfs,
};

#[tokio::test(flavor = "multi_thread")]
async fn listening_sessions_are_ended() {
    sessions_are_ended("listen").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_sessions_are_ended() {
    sessions_are_ended("lease").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_sessions_are_ended() {
    sessions_are_ended("writer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn position_sessions_are_ended() {
    sessions_are_ended("position").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn query_sessions_are_ended() {
    sessions_are_ended("query").await;
}

async fn sessions_are_ended(kind: &str) {
    let run = Run::start(&format!("{kind}-ended"), Setup::default()).await;
    let name = format!("pg_terminate_backend of trunkline {kind}");
    run.works(500).await;
    for _ in 0..8 {
        run.fault(&name, true);
        run.end_sessions(&format!("trunkline {kind}")).await;
        run.fault(&name, false);
        run.works(200).await;
    }
    run.finish().await;
}

/// What fails then fails within its transaction, and nobody may believe that it was committed.
#[tokio::test(flavor = "multi_thread")]
async fn statements_are_cancelled() {
    let run = Run::start("statements-cancelled", Setup::default()).await;
    run.works(500).await;
    let sql = run.sql().await;
    for _ in 0..100 {
        run.fault("pg_cancel_backend of whatever runs", true);
        run.cancel_statements(&sql).await;
        run.fault("pg_cancel_backend of whatever runs", false);
        run.goes_on_for(Duration::from_millis(15)).await;
    }
    run.finish().await;
}

/// PostgreSQL then ends all sessions, and recovers.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_is_killed() {
    let run = Run::start("backend-killed", Setup::default()).await;
    run.works(500).await;
    for kind in ["writer", "lease", "query"] {
        run.fault("SIGKILL of a backend", true);
        // One that ended with the others may be on its way back.
        until("a backend is killed", async || run.kill_backend(&format!("trunkline {kind}")).await)
            .await;
        run.postgres.answers().await;
        run.fault("SIGKILL of a backend", false);
        run.works(300).await;
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_restarts_again_and_again() {
    let mut run = Run::start("postgres-restarted", Setup::default()).await;
    run.works(500).await;
    for _ in 0..4 {
        run.fault("immediate restart of PostgreSQL", true);
        run.postgres.stop_immediately().await;
        run.postgres.start_again().await;
        run.fault("immediate restart of PostgreSQL", false);
        run.works(300).await;
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_away_for_a_while() {
    let mut run = Run::start("postgres-away", Setup::default()).await;
    run.works(500).await;
    run.fault("SIGKILL of PostgreSQL, 5 s without it", true);
    run.postgres.kill().await;
    run.goes_on_for(Duration::from_secs(5)).await;
    run.postgres.start_again().await;
    run.fault("SIGKILL of PostgreSQL, 5 s without it", false);
    run.works(500).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_stands_still_and_goes_on() {
    let run = Run::start("postgres-stopped", Setup::default()).await;
    run.works(500).await;
    run.fault("SIGSTOP of PostgreSQL", true);
    run.postgres.signal_all(Signal::SIGSTOP);
    run.goes_on_for(Duration::from_secs(8)).await;
    run.postgres.signal_all(Signal::SIGCONT);
    run.fault("SIGSTOP of PostgreSQL", false);
    run.works(500).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(can_mount), ignore = "no disk can be full where nothing can be mounted")]
async fn the_disk_is_full() {
    let disk = Tmpfs::mount("256m").expect("a disk");
    let postgres = Postgres::start_on(&disk, &["log_min_messages=fatal"]).await;
    let mut run = Run::start_on("disk-full", Setup::default(), postgres).await;
    run.works(500).await;
    run.fault("the disk is full", true);
    let filler = disk.fill();
    run.goes_on_for(Duration::from_secs(5)).await;
    drop(filler);
    // A server that could not write its log of changes has ended by itself.
    run.postgres.recovers().await;
    run.fault("the disk is full", false);
    run.works(500).await;
    run.finish().await;
    drop(disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_table_is_full() {
    let few = ["max_locks_per_transaction=10", "max_connections=40"];
    let run = Run::start("lock-table-full", Setup { postgres: &few, ..Setup::default() }).await;
    run.works(500).await;
    run.fault("the lock table is full", true);
    let locks = run.fill_the_lock_table().await;
    run.goes_on_for(Duration::from_secs(4)).await;
    drop(locks);
    run.fault("the lock table is full", false);
    run.works(500).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_connections_are_taken() {
    let few = ["max_connections=24", "superuser_reserved_connections=0"];
    let run = Run::start("connections-taken", Setup { postgres: &few, ..Setup::default() }).await;
    run.works(500).await;
    run.fault("all connections are taken", true);
    let hogs = run.take_all_connections().await;
    run.goes_on_for(Duration::from_secs(4)).await;
    drop(hogs);
    run.fault("all connections are taken", false);
    run.works(500).await;
    run.finish().await;
}

/// The other topics go on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn somebody_holds_the_row_of_a_topic() {
    let run = Run::start("row-held", Setup::default()).await;
    run.works(500).await;
    let mut sql = run.sql().await;
    let hold = "select 1 from trunkline.topic_head h join trunkline.topic t on t.id = h.topic_id
        where name = 'hot' for update of h";
    let transaction = sql.transaction().await.unwrap();
    transaction.query_one(hold, &[]).await.unwrap();
    run.fault("a transaction holds the row of a topic", true);
    run.works(500).await;
    run.goes_on_for(Duration::from_secs(3)).await;
    transaction.rollback().await.unwrap();
    run.fault("a transaction holds the row of a topic", false);
    run.works(500).await;
    run.finish().await;
}
