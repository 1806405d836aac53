//! Promises that are broken on purpose: the checks must notice each, which shows that they would
//! find violations in the other runs.

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

/// Finishes a run in which at least one of the checks must find a violation.
async fn assert_caught(run: Run, checks: &[&str]) {
    let name = run.name.clone();
    // A short time, as whatever is stuck stays stuck.
    let (_, found) = run.judge_within(Duration::from_secs(6)).await;
    let caught: Vec<_> =
        found.iter().filter(|found| checks.iter().any(|check| found.starts_with(check))).collect();
    println!("{name}: {} found, such as {:?}", found.len(), caught.first());
    assert!(!caught.is_empty(), "{name}: none of {checks:?} found anything, but {found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_before_the_commit_is_caught() {
    let mut run = start("acknowledge-before-commit").await;
    run.work_until_stored(500).await;
    for _ in 0..3 {
        run.postgres.stop_immediately().await;
        run.postgres.start_again().await;
        run.work_until_stored(200).await;
    }
    assert_caught(run, &["C1:"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_from_a_sequence_are_caught() {
    let run = start("offsets-from-sequence").await;
    run.work_until_stored(2_000).await;
    run.end_sessions("trunkline writer").await;
    run.work_until_stored(500).await;
    assert_caught(run, &["C4:", "C6:"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_moved_without_an_epoch_check_is_caught() {
    let run = start("no-epoch-check").await;
    run.work_until_stored(3_000).await;
    // Meanwhile two clients take over a consumer from each other.
    run.work_for(Duration::from_secs(2)).await;
    assert_caught(run, &["C8:", "C9:"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_polls_are_caught() {
    let run = start("no-polling").await;
    run.work_until_stored(500).await;
    for proxy in &run.to_postgres {
        proxy.set("trunkline listen", Mode::Refuse);
        proxy.cut("trunkline listen", None);
    }
    run.work_until_stored(500).await;
    // Some consumer stays behind.
    assert_caught(
        run,
        &["C10: hot/", "C10: side-", "C10: trimmed/", "C10: sized/", "C10: sought/"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_taken_for_a_commit_is_caught() {
    let run = start("swallow-rollback").await;
    run.work_until_stored(200).await;
    let sql = run.sql().await;
    let cancel = "select pg_cancel_backend(pid) from pg_stat_activity
        where application_name = 'trunkline writer' and state = 'active'";
    for _ in 0..200 {
        sql.query(cancel, &[]).await.unwrap();
        run.work_for(Duration::from_millis(10)).await;
    }
    assert_caught(run, &["C1:"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settlements_that_are_answered_before_they_are_stored_are_caught() {
    let mut run = start("settle-before-store").await;
    run.work_until_stored(1_000).await;
    for _ in 0..4 {
        let owner = run.owner_of("hot", "pool", None).await;
        run.brokers[owner].kill().await;
        run.owner_of("hot", "pool", Some(owner)).await;
        run.brokers[owner].start_again().await;
        run.work_until_stored(300).await;
    }
    assert_caught(run, &["C13:", "C14:", "C15:"]).await;
}

/// The counterpart of the run in which a broker resumes after others took its leases.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_resumes_without_an_epoch_check_is_caught() {
    let run = start_as("sabotage-no-epoch-check-at-resume", "no-epoch-check").await;
    run.work_until_stored(1_000).await;
    // Repeated, as a client must be using the old lease just then.
    for number in [0, 1, 0, 1, 0, 1, 0, 1] {
        run.brokers[number].signal(Signal::SIGSTOP);
        run.end_sessions_of(number).await;
        run.work_until_stored(300).await;
        run.brokers[number].signal(Signal::SIGCONT);
        run.work_until_stored(300).await;
    }
    assert_caught(run, &["C7:", "C8:", "C9:"]).await;
}
