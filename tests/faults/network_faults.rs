//! Connections that break, hang or lag, each kind by itself: between brokers and PostgreSQL, and
//! between clients and brokers.

use std::time::Duration;

use crate::{
    network::{Network, Partition, connections_to},
    proxy::{ALL, Mode},
    run::{KINDS, Run, Setup},
    support::until_within,
    verdict,
};

/// Also within the answer to a commit: it was done, and nobody hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_cut_off() {
    let run = Run::start("answers-cut", Setup::default()).await;
    let mut chances = run.world.chances("cuts");
    run.works(500).await;
    for kind in KINDS {
        for _ in 0..6 {
            run.fault(&format!("cut within an answer to {kind}"), true);
            let after = chances.usize(..200);
            for proxy in &run.to_postgres {
                proxy.cut(kind, Some(after));
            }
            run.works(100).await;
            run.fault(&format!("cut within an answer to {kind}"), false);
        }
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_reset() {
    let run = Run::start("connections-reset", Setup::default()).await;
    run.works(500).await;
    for _ in 0..8 {
        run.fault("reset of all connections to PostgreSQL", true);
        run.to_postgres.iter().for_each(|proxy| proxy.cut(ALL, None));
        run.fault("reset of all connections to PostgreSQL", false);
        run.works(200).await;
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_connections_hang() {
    connections_hang("writer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_connections_hang() {
    connections_hang("lease").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn query_connections_hang() {
    connections_hang("query").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn position_connections_hang() {
    connections_hang("position").await;
}

/// Half open: nothing comes back, and nothing says that it will not.
async fn connections_hang(kind: &str) {
    let run = Run::start(&format!("{kind}-hangs"), Setup::default()).await;
    let name = format!("trunkline {kind} is half open");
    run.works(500).await;
    run.fault(&name, true);
    run.to_postgres[0].set(&format!("trunkline {kind}"), Mode::Hold);
    // Longer than anybody may wait for an answer.
    run.goes_on_for(Duration::from_secs(18)).await;
    // What hung is over; what comes then is passed on.
    run.to_postgres[0].cut(&format!("trunkline {kind}"), None);
    run.to_postgres[0].set(&format!("trunkline {kind}"), Mode::Pass);
    run.fault(&name, false);
    run.works(500).await;
    run.finish().await;
}

/// Wake-ups are hints: without any, the polls find all within a second or two.
#[tokio::test(flavor = "multi_thread")]
async fn no_wake_up_arrives() {
    let run = Run::start("wake-ups-lost", Setup::default()).await;
    run.works(500).await;
    run.fault("no NOTIFY arrives", true);
    run.to_postgres.iter().for_each(|proxy| proxy.set("trunkline listen", Mode::Hold));
    for _ in 0..3 {
        run.works(200).await;
        run.reaches_everybody_within(Duration::from_secs(5)).await;
    }
    run.to_postgres.iter().for_each(|proxy| proxy.set("trunkline listen", Mode::Pass));
    run.fault("no NOTIFY arrives", false);
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_postgres_is_long() {
    let run = Run::start("postgres-far", Setup::default()).await;
    run.works(500).await;
    for milliseconds in [20, 150] {
        run.fault("delay of what goes to and from PostgreSQL", true);
        let delay = Mode::Delay(Duration::from_millis(milliseconds));
        run.to_postgres[0].set(ALL, delay);
        run.works(500).await;
        run.goes_on_for(Duration::from_secs(2)).await;
        run.to_postgres[0].set(ALL, Mode::Pass);
        run.fault("delay of what goes to and from PostgreSQL", false);
    }
    run.finish().await;
}

/// Both ends only find out by what is never acknowledged: no proxy stands between them.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(can_partition),
    ignore = "packets cannot be dropped here, for which nft must be allowed to (package nftables)"
)]
async fn a_broker_is_parted_from_postgres() {
    let address = Network::new().address_of(0);
    let (host, both) = (address.to_string(), format!("listen_addresses=127.0.0.1,{address}"));
    let setup = Setup { postgres: &[&both], straight_to: Some(&host), ..Setup::default() };
    let run = Run::start("broker-parted", setup).await;
    run.works(500).await;
    assert!(connections_to(address) > 0, "a broker's sessions");
    run.fault("packets between a broker and PostgreSQL are dropped", true);
    let partition = Partition::of(address).expect("a partition");
    // The broker gives up what it asks for; the kernel ends connections that nobody uses.
    let none_is_left = async || connections_to(address) == 0;
    until_within(Duration::from_secs(20), "the connections end", none_is_left).await;
    drop(partition);
    run.fault("packets between a broker and PostgreSQL are dropped", false);
    run.works(500).await;
    run.finish().await;
}

/// It answers nothing, not even that it takes no connections.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(can_partition),
    ignore = "packets cannot be dropped here, for which nft must be allowed to (package nftables)"
)]
async fn the_first_of_two_hosts_goes_dark() {
    let address = Network::new().address_of(0);
    let both = format!("listen_addresses=127.0.0.1,{address}");
    let hosts = format!("{address},127.0.0.1");
    let setup = Setup { postgres: &[&both], straight_to: Some(&hosts), ..Setup::default() };
    let run = Run::start("host-dark", setup).await;
    run.works(500).await;
    assert!(connections_to(address) > 0, "a broker's sessions");
    run.fault("packets to the first of two hosts are dropped", true);
    let partition = Partition::of(address).expect("a partition");
    let is_told = async || run.brokers[0].log_text().contains("opened a new lease session");
    until_within(Duration::from_secs(25), "the broker is at the second host", is_told).await;
    // The kernel ends connections that nobody uses.
    let none_is_left = async || connections_to(address) == 0;
    until_within(Duration::from_secs(25), "the connections end", none_is_left).await;
    assert_eq!(verdict::does_not_work(&run.brokers[0]).await, [""; 0]);
    run.fault("packets to the first of two hosts are dropped", false);
    run.works(500).await;
    run.finish().await;
    drop(partition);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_cut_off() {
    let run = Run::start("clients-cut", Setup::default()).await;
    let mut chances = run.world.chances("cuts");
    run.works(500).await;
    for round in 0..12 {
        run.fault("cut of the connections of clients", true);
        let after = (round % 2 == 0).then(|| chances.usize(..2_000));
        run.to_broker.iter().for_each(|proxy| proxy.cut("", after));
        run.fault("cut of the connections of clients", false);
        run.works(200).await;
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_vanish_and_come_back() {
    let run = Run::start("clients-vanish", Setup { may_be_silent: true, ..Setup::default() }).await;
    run.works(500).await;
    run.fault("the connections of clients are half open", true);
    run.to_broker[0].set("", Mode::Hold);
    run.goes_on_for(Duration::from_secs(8)).await;
    run.to_broker[0].set("", Mode::Pass);
    run.fault("the connections of clients are half open", false);
    run.works(500).await;
    run.finish().await;
}
