//! Brokers that die, stand still, stop, and come back.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{
    proxy::Mode,
    run::{Run, Setup},
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

/// With queues that are full, as each commit takes its time.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_asked_to_stop_while_all_are_at_work() {
    let mut run = Run::start("broker-drained", Setup::default()).await;
    run.works(1_000).await;
    for number in [0, 1] {
        run.to_postgres[number].set("trunkline writer", Mode::Delay(Duration::from_millis(100)));
        run.goes_on_for(Duration::from_secs(1)).await;
        run.fault("SIGTERM of a broker", true);
        run.brokers[number].try_stop().await.unwrap();
        run.to_postgres[number].set("trunkline writer", Mode::Pass);
        run.brokers[number].start_again().await;
        run.fault("SIGTERM of a broker", false);
        run.works(500).await;
    }
    run.finish().await;
}
