//! Brokers that die, stand still, stop, and come back.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{
    proxy::{ALL, Mode},
    run::{Run, Setup, register},
    support::{soon, until},
    workload::flood,
};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_breaks() {
    let run = Run::start("nothing", Setup::default()).await;
    run.works(5_000).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_killed_again_and_again() {
    let mut run = Run::start("broker-killed", Setup::default()).await;
    run.works(1_000).await;
    for number in [0, 1, 0] {
        run.fault("SIGKILL of a broker", true);
        run.brokers[number].kill().await;
        run.works(500).await;
        run.brokers[number].start_again().await;
        run.fault("SIGKILL of a broker", false);
        run.works(500).await;
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_stands_still_and_goes_on() {
    let run = Run::start("broker-stopped", Setup { may_be_silent: true, ..Setup::default() }).await;
    run.works(1_000).await;
    run.fault("SIGSTOP of a broker", true);
    run.brokers[0].signal(Signal::SIGSTOP);
    run.goes_on_for(Duration::from_secs(7)).await;
    run.brokers[0].signal(Signal::SIGCONT);
    run.fault("SIGSTOP of a broker", false);
    run.works(1_000).await;
    run.finish().await;
}

/// Its leases go to others meanwhile: when it wakes up, it believes that they are still its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_wakes_up_whose_leases_are_with_others() {
    let run = Run::start("broker-fenced", Setup { may_be_silent: true, ..Setup::default() }).await;
    run.works(1_000).await;
    for number in [0, 1] {
        run.fault("SIGSTOP of a broker, end of its sessions", true);
        run.brokers[number].signal(Signal::SIGSTOP);
        run.end_sessions_of(number).await;
        run.works(500).await;
        run.brokers[number].signal(Signal::SIGCONT);
        run.fault("SIGSTOP of a broker, end of its sessions", false);
        run.works(500).await;
    }
    run.finish().await;
}

/// What was taken in is stored and answered, though each commit takes its time.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_asked_to_stop_while_thousands_wait() {
    /// More than a writer's queue holds.
    const SENT: i64 = 6_000;
    let mut run = Run::start("broker-drained", Setup::default()).await;
    register(&run.client(0).await, "hot", "hot-flood").await;
    run.works(1_000).await;
    for (number, first) in [(0, 0), (1, SENT)] {
        run.to_postgres[number].set("trunkline writer", Mode::Hold);
        let names = ("hot".into(), "hot-flood".into());
        let flood = flood(run.world.clone(), number, names, first..first + SENT);
        let flood = tokio::spawn(flood);
        // Nobody can see from outside how many it has taken in.
        run.goes_on_for(Duration::from_secs(3)).await;
        run.fault("SIGTERM of a broker", true);
        let draining = || run.brokers[number].log_text().matches(" draining").count();
        run.brokers[number].signal(Signal::SIGTERM);
        until("the broker drains", async || draining() > 0).await;
        run.to_postgres[number].set("trunkline writer", Mode::Delay(Duration::from_millis(20)));
        run.brokers[number].has_stopped().await.unwrap();
        let acknowledged = soon("all are answered", flood).await.unwrap();
        println!("{acknowledged} of {SENT} were taken in, and acknowledged");
        assert!(acknowledged > 1_000, "{acknowledged} of {SENT} were acknowledged");
        run.to_postgres[number].set("trunkline writer", Mode::Pass);
        run.brokers[number].start_again().await;
        run.fault("SIGTERM of a broker", false);
        run.works(500).await;
    }
    run.finish().await;
}

/// What cannot be answered then is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_asked_to_stop_while_the_database_hangs() {
    let mut run = Run::start("broker-drained-hanging", Setup::default()).await;
    run.works(1_000).await;
    run.fault("SIGTERM of a broker whose connections are half open", true);
    run.to_postgres[0].set(ALL, Mode::Hold);
    run.goes_on_for(Duration::from_secs(1)).await;
    run.brokers[0].try_stop().await.unwrap();
    run.to_postgres[0].set(ALL, Mode::Pass);
    run.to_postgres[0].cut(ALL, None);
    run.brokers[0].start_again().await;
    run.fault("SIGTERM of a broker whose connections are half open", false);
    run.works(500).await;
    run.finish().await;
}
