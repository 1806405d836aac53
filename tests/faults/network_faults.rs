//! Connections that break, hang or lag, between brokers and PostgreSQL by kind of session, and
//! between clients and brokers.

use std::time::Duration;

use crate::{
    network::{Network, Partition, connections_to},
    proxy::{ALL, Mode},
    run::{KINDS, Run, Setup},
    support::until_within,
    verdict,
};

/// Including the answer to a commit, which was done although the broker does not learn of it.
#[tokio::test(flavor = "multi_thread")]
async fn connections_break_within_an_answer() {
    let run = Run::start("answers-cut", Setup::default()).await;
    let mut rng = run.world.rng("cuts");
    run.work_until_stored(500).await;
    for kind in KINDS {
        for _ in 0..6 {
            run.fault(&format!("cut within an answer to {kind}"), true);
            let after = rng.usize(..200);
            for proxy in &run.to_postgres {
                proxy.cut(kind, Some(after));
            }
            run.work_until_stored(100).await;
            run.fault(&format!("cut within an answer to {kind}"), false);
        }
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_reset() {
    let run = Run::start("connections-reset", Setup::secured()).await;
    run.work_until_stored(500).await;
    for _ in 0..8 {
        run.fault("reset of all connections to PostgreSQL", true);
        run.to_postgres.iter().for_each(|proxy| proxy.cut(ALL, None));
        run.fault("reset of all connections to PostgreSQL", false);
        run.work_until_stored(200).await;
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writer_connections_hang() {
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

/// The connections are half open: nothing arrives, and no error is reported.
async fn connections_hang(kind: &str) {
    let run = Run::start(&format!("{kind}-hangs"), Setup::default()).await;
    let name = format!("trunkline {kind} is half open");
    run.work_until_stored(500).await;
    run.fault(&name, true);
    run.to_postgres[0].set(&format!("trunkline {kind}"), Mode::Hold);
    // Longer than any wait for an answer may take.
    run.work_for(Duration::from_secs(18)).await;
    // Resets the hanging connections, and passes new ones on.
    run.to_postgres[0].cut(&format!("trunkline {kind}"), None);
    run.to_postgres[0].set(&format!("trunkline {kind}"), Mode::Pass);
    run.fault(&name, false);
    run.work_until_stored(500).await;
    run.finish().await;
}

/// Without notifications, polls find everything within a second or two.
#[tokio::test(flavor = "multi_thread")]
async fn no_notification_arrives() {
    let run = Run::start("notifications-lost", Setup::default()).await;
    run.work_until_stored(500).await;
    run.fault("no NOTIFY arrives", true);
    run.to_postgres.iter().for_each(|proxy| proxy.set("trunkline listen", Mode::Hold));
    for _ in 0..3 {
        run.work_until_stored(200).await;
        run.all_delivered_within(Duration::from_secs(5)).await;
    }
    run.to_postgres.iter().for_each(|proxy| proxy.set("trunkline listen", Mode::Pass));
    run.fault("no NOTIFY arrives", false);
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_round_trip_to_postgres_is_long() {
    let run = Run::start("postgres-far", Setup::default()).await;
    run.work_until_stored(500).await;
    for milliseconds in [20, 150] {
        run.fault("delay of everything to and from PostgreSQL", true);
        let delay = Mode::Delay(Duration::from_millis(milliseconds));
        run.to_postgres[0].set(ALL, delay);
        run.work_until_stored(500).await;
        run.work_for(Duration::from_secs(2)).await;
        run.to_postgres[0].set(ALL, Mode::Pass);
        run.fault("delay of everything to and from PostgreSQL", false);
    }
    run.finish().await;
}

/// Without a proxy in between, so both ends notice only by missing acknowledgements.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(can_partition),
    ignore = "packets cannot be dropped, as nft is missing or not permitted (package nftables)"
)]
async fn a_broker_is_partitioned_from_postgres() {
    let address = Network::new().address_of(0);
    let (host, both) = (address.to_string(), format!("listen_addresses=127.0.0.1,{address}"));
    let setup = Setup { postgres: &[&both], direct_hosts: Some(&host), ..Setup::secured() };
    let run = Run::start("broker-parted", setup).await;
    run.work_until_stored(500).await;
    assert!(connections_to(address) > 0, "the broker has sessions");
    run.fault("packets between a broker and PostgreSQL are dropped", true);
    let partition = Partition::of(address).expect("the kernel can drop packets");
    // The broker abandons statements; the kernel closes idle connections.
    let none_left = async || connections_to(address) == 0;
    until_within(Duration::from_secs(20), "the connections end", none_left).await;
    drop(partition);
    run.fault("packets between a broker and PostgreSQL are dropped", false);
    run.work_until_stored(500).await;
    run.finish().await;
}

/// It does not answer at all, not even to refuse connections.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(can_partition),
    ignore = "packets cannot be dropped, as nft is missing or not permitted (package nftables)"
)]
async fn the_first_of_two_hosts_becomes_unreachable() {
    let address = Network::new().address_of(0);
    let both = format!("listen_addresses=127.0.0.1,{address}");
    let hosts = format!("{address},127.0.0.1");
    let setup = Setup { postgres: &[&both], direct_hosts: Some(&hosts), ..Setup::secured() };
    let run = Run::start("host-dark", setup).await;
    run.work_until_stored(500).await;
    assert!(connections_to(address) > 0, "the broker has sessions");
    run.fault("packets to the first of two hosts are dropped", true);
    let partition = Partition::of(address).expect("the kernel can drop packets");
    let reopened = async || run.brokers[0].log_text().contains("opened a new lease session");
    until_within(Duration::from_secs(25), "the broker uses the second host", reopened).await;
    // The kernel closes idle connections.
    let none_left = async || connections_to(address) == 0;
    until_within(Duration::from_secs(25), "the connections end", none_left).await;
    assert_eq!(verdict::work_problems(&run.world, &run.brokers[0]).await, [""; 0]);
    run.fault("packets to the first of two hosts are dropped", false);
    run.work_until_stored(500).await;
    run.finish().await;
    drop(partition);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_clients_are_cut() {
    let run = Run::start("clients-cut", Setup::secured()).await;
    let mut rng = run.world.rng("cuts");
    run.work_until_stored(500).await;
    for round in 0..12 {
        run.fault("cut of the connections of clients", true);
        let after = (round % 2 == 0).then(|| rng.usize(..2_000));
        run.to_broker.iter().for_each(|proxy| proxy.cut("", after));
        run.fault("cut of the connections of clients", false);
        run.work_until_stored(200).await;
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_vanish_and_come_back() {
    let run = Run::start("clients-vanish", Setup { may_be_silent: true, ..Setup::default() }).await;
    run.work_until_stored(500).await;
    run.fault("the connections of clients are half open", true);
    run.to_broker[0].set("", Mode::Hold);
    run.work_for(Duration::from_secs(8)).await;
    run.to_broker[0].set("", Mode::Pass);
    run.fault("the connections of clients are half open", false);
    run.work_until_stored(500).await;
    run.finish().await;
}
