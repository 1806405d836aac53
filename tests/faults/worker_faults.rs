//! The broker that owns a subscription breaks, while workers share its messages.

use std::time::Duration;

use crate::{
    history::What,
    proxy::{ALL, Mode},
    run::{Run, Setup},
    support::until,
};

/// The subscription whose owner breaks.
const TOPIC: &str = "hot";
const SUBSCRIPTION: &str = "pool";

/// Waits until workers have settled messages since a line of the history.
async fn workers_settle(run: &Run, since: usize) {
    let worker = format!("{TOPIC}-{SUBSCRIPTION}-");
    until("workers settle messages", async || {
        run.world.history.events()[since..].iter().any(|event| match &event.what {
            What::Settled { applied } => {
                event.client.starts_with(&worker) && applied.iter().any(|count| *count > 0)
            }
            _ => false,
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_a_subscription_is_killed_repeatedly() {
    let mut run = Run::start("owner-killed", Setup::secured()).await;
    run.work_until_stored(1_000).await;
    // Each time the other broker becomes the owner.
    for _ in 0..6 {
        let owner = run.owner_of(TOPIC, SUBSCRIPTION, None).await;
        run.fault("SIGKILL of the owner of a subscription", true);
        run.brokers[owner].kill().await;
        run.owner_of(TOPIC, SUBSCRIPTION, Some(owner)).await;
        workers_settle(&run, run.world.history.events().len()).await;
        run.brokers[owner].start_again().await;
        run.fault("SIGKILL of the owner of a subscription", false);
        run.work_until_stored(300).await;
    }
    run.finish().await;
}

/// Including the answer to what the owner stores, which is stored although it does not learn of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_connections_of_a_subscriptions_owner_are_reset() {
    let run = Run::start("owner-reset", Setup::secured()).await;
    let mut rng = run.world.rng("cuts");
    run.work_until_stored(500).await;
    for round in 0..9 {
        let owner = run.owner_of(TOPIC, SUBSCRIPTION, None).await;
        run.fault("reset of connections of the owner of a subscription", true);
        let proxy = &run.to_postgres[owner];
        match round % 3 {
            0 => proxy.cut("trunkline position", Some(rng.usize(..200))),
            1 => proxy.cut("trunkline lease", None),
            _ => proxy.cut(ALL, None),
        }
        run.fault("reset of connections of the owner of a subscription", false);
        run.work_until_stored(200).await;
        workers_settle(&run, run.world.history.events().len()).await;
    }
    run.finish().await;
}

/// Meanwhile no other broker can own it: PostgreSQL is not told that the connections are of no use.
#[tokio::test(flavor = "multi_thread")]
async fn the_connections_of_a_subscriptions_owner_hang() {
    let run = Run::start("owner-hangs", Setup::default()).await;
    run.work_until_stored(500).await;
    let owner = run.owner_of(TOPIC, SUBSCRIPTION, None).await;
    run.fault("the connections of the owner of a subscription are half open", true);
    run.to_postgres[owner].set(ALL, Mode::Hold);
    // Longer than any wait for an answer may take.
    run.work_for(Duration::from_secs(18)).await;
    // Resets the hanging connections, and passes new ones on.
    run.to_postgres[owner].cut(ALL, None);
    run.to_postgres[owner].set(ALL, Mode::Pass);
    run.fault("the connections of the owner of a subscription are half open", false);
    workers_settle(&run, run.world.history.events().len()).await;
    run.work_until_stored(500).await;
    run.finish().await;
}
