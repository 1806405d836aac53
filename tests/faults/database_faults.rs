//! PostgreSQL terminates sessions, crashes, restarts, or runs out of resources.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{
    postgres::Postgres,
    run::{Run, Setup},
    support::until,
    tmpfs::Tmpfs,
};

#[tokio::test(flavor = "multi_thread")]
async fn listening_sessions_are_terminated() {
    sessions_are_terminated("listen").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_sessions_are_terminated() {
    sessions_are_terminated("lease").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writer_sessions_are_terminated() {
    sessions_are_terminated("writer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn position_sessions_are_terminated() {
    sessions_are_terminated("position").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn query_sessions_are_terminated() {
    sessions_are_terminated("query").await;
}

async fn sessions_are_terminated(kind: &str) {
    // Streams check their tokens and grants while they get new sessions.
    let secured = ["lease", "query"].contains(&kind);
    let setup = Setup { secured, ..Setup::default() };
    let run = Run::start(&format!("{kind}-ended"), setup).await;
    let name = format!("pg_terminate_backend of trunkline {kind}");
    run.work_until_stored(500).await;
    for _ in 0..8 {
        run.fault(&name, true);
        run.end_sessions(&format!("trunkline {kind}")).await;
        run.fault(&name, false);
        run.work_until_stored(200).await;
    }
    run.finish().await;
}

/// A cancelled statement fails within its transaction, which must not count as committed.
#[tokio::test(flavor = "multi_thread")]
async fn statements_are_cancelled() {
    let run = Run::start("statements-cancelled", Setup::default()).await;
    run.work_until_stored(500).await;
    let sql = run.sql().await;
    for _ in 0..100 {
        run.fault("pg_cancel_backend of running statements", true);
        run.cancel_statements(&sql).await;
        run.fault("pg_cancel_backend of running statements", false);
        run.work_for(Duration::from_millis(15)).await;
    }
    run.finish().await;
}

/// PostgreSQL then terminates all sessions, and recovers.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_is_killed() {
    let run = Run::start("backend-killed", Setup::secured()).await;
    run.work_until_stored(500).await;
    for kind in ["writer", "lease", "query"] {
        run.fault("SIGKILL of a backend", true);
        // A session that ended with the others may not be open again yet.
        until("a backend is killed", async || run.kill_backend(&format!("trunkline {kind}")).await)
            .await;
        run.postgres.until_ready().await;
        run.fault("SIGKILL of a backend", false);
        run.work_until_stored(300).await;
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_restarts_repeatedly() {
    let mut run = Run::start("postgres-restarted", Setup::secured()).await;
    run.work_until_stored(500).await;
    for _ in 0..4 {
        run.fault("immediate restart of PostgreSQL", true);
        run.postgres.stop_immediately().await;
        run.postgres.start_again().await;
        run.fault("immediate restart of PostgreSQL", false);
        run.work_until_stored(300).await;
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_down_for_a_while() {
    let mut run = Run::start("postgres-away", Setup::secured()).await;
    run.work_until_stored(500).await;
    run.fault("SIGKILL of PostgreSQL, 5 s without it", true);
    run.postgres.kill().await;
    run.work_for(Duration::from_secs(5)).await;
    run.postgres.start_again().await;
    run.fault("SIGKILL of PostgreSQL, 5 s without it", false);
    run.work_until_stored(500).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_suspended_and_resumed() {
    let run = Run::start("postgres-stopped", Setup::default()).await;
    run.work_until_stored(500).await;
    run.fault("SIGSTOP of PostgreSQL", true);
    run.postgres.signal_all(Signal::SIGSTOP);
    run.work_for(Duration::from_secs(8)).await;
    run.postgres.signal_all(Signal::SIGCONT);
    run.fault("SIGSTOP of PostgreSQL", false);
    run.work_until_stored(500).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(can_mount), ignore = "a full disk needs the right to mount a file system")]
async fn the_disk_is_full() {
    let disk = Tmpfs::mount("256m").expect("a file system can be mounted");
    let postgres = Postgres::start_on(&disk, &["log_min_messages=fatal"]).await;
    let mut run = Run::start_on("disk-full", Setup::default(), postgres).await;
    run.work_until_stored(500).await;
    run.fault("the disk is full", true);
    let filler = disk.fill();
    run.work_for(Duration::from_secs(5)).await;
    drop(filler);
    // A server that could not write its write-ahead log has exited.
    run.postgres.recovers().await;
    run.fault("the disk is full", false);
    run.work_until_stored(500).await;
    run.finish().await;
    drop(disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_table_is_full() {
    let few = ["max_locks_per_transaction=10", "max_connections=40"];
    let run = Run::start("lock-table-full", Setup { postgres: &few, ..Setup::default() }).await;
    run.work_until_stored(500).await;
    run.fault("the lock table is full", true);
    let locks = run.fill_the_lock_table().await;
    run.work_for(Duration::from_secs(4)).await;
    drop(locks);
    run.fault("the lock table is full", false);
    run.work_until_stored(500).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_connections_are_in_use() {
    let few = ["max_connections=24", "superuser_reserved_connections=0"];
    let run = Run::start("connections-taken", Setup { postgres: &few, ..Setup::default() }).await;
    run.work_until_stored(500).await;
    run.fault("all connections are taken", true);
    let hogs = run.take_all_connections().await;
    run.work_for(Duration::from_secs(4)).await;
    drop(hogs);
    run.fault("all connections are taken", false);
    run.work_until_stored(500).await;
    run.finish().await;
}

/// The other topics are not affected.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_locks_the_row_of_a_topic() {
    let run = Run::start("row-held", Setup::default()).await;
    run.work_until_stored(500).await;
    let mut sql = run.sql().await;
    let hold = "select 1 from trunkline.topic_head h join trunkline.topic t on t.id = h.topic_id
        where name = 'hot' for update of h";
    let transaction = sql.transaction().await.unwrap();
    transaction.query_one(hold, &[]).await.unwrap();
    run.fault("a transaction holds the row of a topic", true);
    run.work_until_stored(500).await;
    run.work_for(Duration::from_secs(3)).await;
    transaction.rollback().await.unwrap();
    run.fault("a transaction holds the row of a topic", false);
    run.work_until_stored(500).await;
    run.finish().await;
}
