//! Brokers that are killed, suspended or stopped, and come back.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{
    proxy::{ALL, Mode},
    run::{Run, Setup, register},
    support::{soon, until},
    workload::flood,
};

#[tokio::test(flavor = "multi_thread")]
async fn all_checks_hold_without_a_fault() {
    let run = Run::start("nothing", Setup::default()).await;
    run.work_until_stored(5_000).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_killed_repeatedly() {
    let mut run = Run::start("broker-killed", Setup::secured()).await;
    run.work_until_stored(1_000).await;
    for number in [0, 1, 0] {
        run.fault("SIGKILL of a broker", true);
        run.brokers[number].kill().await;
        run.work_until_stored(500).await;
        run.brokers[number].start_again().await;
        run.fault("SIGKILL of a broker", false);
        run.work_until_stored(500).await;
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_suspended_and_resumed() {
    let run = Run::start("broker-stopped", Setup { may_be_silent: true, ..Setup::default() }).await;
    run.work_until_stored(1_000).await;
    run.fault("SIGSTOP of a broker", true);
    run.brokers[0].signal(Signal::SIGSTOP);
    run.work_for(Duration::from_secs(7)).await;
    run.brokers[0].signal(Signal::SIGCONT);
    run.fault("SIGSTOP of a broker", false);
    run.work_until_stored(1_000).await;
    run.finish().await;
}

/// Others take its leases meanwhile; when it resumes, it still believes that it has them.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_resumes_after_others_took_its_leases() {
    let run = Run::start("broker-fenced", Setup { may_be_silent: true, ..Setup::secured() }).await;
    run.work_until_stored(1_000).await;
    for number in [0, 1] {
        run.fault("SIGSTOP of a broker, end of its sessions", true);
        run.brokers[number].signal(Signal::SIGSTOP);
        run.end_sessions_of(number).await;
        run.work_until_stored(500).await;
        run.brokers[number].signal(Signal::SIGCONT);
        run.fault("SIGSTOP of a broker, end of its sessions", false);
        run.work_until_stored(500).await;
    }
    run.finish().await;
}

/// Accepted publishes are stored and answered, although each commit takes time.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_stops_while_thousands_of_publishes_wait() {
    /// More than a writer's queue holds.
    const SENT: i64 = 6_000;
    let mut run = Run::start("broker-drained", Setup::default()).await;
    register(&run.client(0).await, "hot", "hot-flood").await;
    run.work_until_stored(1_000).await;
    for (number, first) in [(0, 0), (1, SENT)] {
        run.to_postgres[number].set("trunkline writer", Mode::Hold);
        let names = ("hot".into(), "hot-flood".into());
        let flood = flood(run.world.clone(), number, names, first..first + SENT);
        let flood = tokio::spawn(flood);
        // It is not visible from outside how many the broker has accepted.
        run.work_for(Duration::from_secs(3)).await;
        run.fault("SIGTERM of a broker", true);
        let draining = || run.brokers[number].log_text().matches(" draining").count();
        run.brokers[number].signal(Signal::SIGTERM);
        until("the broker drains", async || draining() > 0).await;
        run.to_postgres[number].set("trunkline writer", Mode::Delay(Duration::from_millis(20)));
        run.brokers[number].has_stopped().await.unwrap();
        let acknowledged = soon("all publishes are answered", flood).await.unwrap();
        println!("{acknowledged} of {SENT} were accepted and acknowledged");
        // How many it accepts within the time depends on the machine.
        assert!(acknowledged > 100, "{acknowledged} of {SENT} were acknowledged");
        run.to_postgres[number].set("trunkline writer", Mode::Pass);
        run.brokers[number].start_again().await;
        run.fault("SIGTERM of a broker", false);
        run.work_until_stored(500).await;
    }
    run.finish().await;
}

/// Calls that cannot be answered are cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_stops_while_the_database_hangs() {
    let mut run = Run::start("broker-drained-hanging", Setup::secured()).await;
    run.work_until_stored(1_000).await;
    run.fault("SIGTERM of a broker whose connections are half open", true);
    run.to_postgres[0].set(ALL, Mode::Hold);
    run.work_for(Duration::from_secs(1)).await;
    run.brokers[0].try_stop().await.unwrap();
    run.to_postgres[0].set(ALL, Mode::Pass);
    run.to_postgres[0].cut(ALL, None);
    run.brokers[0].start_again().await;
    run.fault("SIGTERM of a broker whose connections are half open", false);
    run.work_until_stored(500).await;
    run.finish().await;
}
