//! Promises broken on purpose, each of which the checks must notice: what they find in the other
//! runs, which is nothing, then means something.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{
    proxy::Mode,
    run::{Run, Setup},
};

/// Starts brokers that break a promise.
async fn start(sabotage: &str) -> Run {
    start_as(&format!("sabotage-{sabotage}"), sabotage).await
}

async fn start_as(name: &str, sabotage: &str) -> Run {
    let environment = [("TRUNKLINE_SABOTAGE", sabotage)];
    Run::start(name, Setup { environment: &environment, ..Setup::default() }).await
}

/// Ends a run, in which one of the checks at least must have found something.
async fn assert_caught(run: Run, checks: &[&str]) {
    let name = run.name.clone();
    // What is stuck then is stuck for ever.
    let (_, found) = run.judge_within(Duration::from_secs(6)).await;
    let caught: Vec<_> =
        found.iter().filter(|found| checks.iter().any(|check| found.starts_with(check))).collect();
    println!("{name}: {} found, such as {:?}", found.len(), caught.first());
    assert!(!caught.is_empty(), "{name}: none of {checks:?} found anything, but {found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_before_the_commit_is_caught() {
    let mut run = start("acknowledge-before-commit").await;
    run.works(500).await;
    for _ in 0..3 {
        run.postgres.stop_immediately().await;
        run.postgres.start_again().await;
        run.works(200).await;
    }
    assert_caught(run, &["C1:"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_from_a_sequence_are_caught() {
    let run = start("offsets-from-sequence").await;
    run.works(2_000).await;
    run.end_sessions("trunkline writer").await;
    run.works(500).await;
    assert_caught(run, &["C4:", "C6:"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_moved_whatever_the_epoch_is_caught() {
    let run = start("no-epoch-check").await;
    run.works(3_000).await;
    // Two clients take a consumer from each other all the time.
    run.goes_on_for(Duration::from_secs(2)).await;
    assert_caught(run, &["C8:", "C9:"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_without_a_poll_are_caught() {
    let run = start("no-polling").await;
    run.works(500).await;
    for proxy in &run.to_postgres {
        proxy.set("trunkline listen", Mode::Refuse);
        proxy.cut("trunkline listen", None);
    }
    run.works(500).await;
    // Somebody is behind, and stays there.
    assert_caught(
        run,
        &["C10: hot/", "C10: side-", "C10: trimmed/", "C10: sized/", "C10: sought/"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_taken_for_a_commit_is_caught() {
    let run = start("swallow-rollback").await;
    run.works(200).await;
    let sql = run.sql().await;
    let cancel = "select pg_cancel_backend(pid) from pg_stat_activity
        where application_name = 'trunkline writer' and state = 'active'";
    for _ in 0..200 {
        sql.query(cancel, &[]).await.unwrap();
        run.goes_on_for(Duration::from_millis(10)).await;
    }
    assert_caught(run, &["C1:"]).await;
}

/// The checks see a fence as well as its lack: a broker that sleeps through a take-over.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_wakes_up_without_an_epoch_check_is_caught() {
    let run = start_as("sabotage-no-epoch-check-at-wake-up", "no-epoch-check").await;
    run.works(1_000).await;
    // Each time somebody has to be at work who does not know yet.
    for number in [0, 1, 0, 1, 0, 1, 0, 1] {
        run.brokers[number].signal(Signal::SIGSTOP);
        run.end_sessions_of(number).await;
        run.works(300).await;
        run.brokers[number].signal(Signal::SIGCONT);
        run.works(300).await;
    }
    assert_caught(run, &["C7:", "C8:", "C9:"]).await;
}
