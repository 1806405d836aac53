//! Tokens and grants that change, or cannot be read, while clients work.

use std::time::Duration;

use crate::{
    history::{Event, What},
    proxy::Mode,
    run::{Run, Setup},
    support::{until, until_within},
};

/// Longer than a broker trusts its copy of tokens and grants for new calls.
const UNCONFIRMED: Duration = Duration::from_secs(9);

/// How soon a change must reach open streams.
const APPLIES_WITHIN: Duration = Duration::from_secs(5);

/// Work would be noticed within this time.
const QUIET: Duration = Duration::from_secs(1);

async fn start(name: &str) -> Run {
    let run = Run::start(name, Setup { may_be_denied: true, ..Setup::secured() }).await;
    run.work_until_stored(500).await;
    run
}

/// How many calls or streams were refused, or ended, with a reason.
fn refused(events: &[Event], reason: &str) -> usize {
    let is_refusal = |event: &&Event| match &event.what {
        What::Refused { reason: found, .. } => found == reason,
        _ => false,
    };
    events.iter().filter(is_refusal).count()
}

/// Waits until a client was refused with a reason since an event.
async fn is_refused(run: &Run, since: usize, reason: &str) {
    let refused = async || refused(&run.world.history.events()[since..], reason) > 0;
    until_within(APPLIES_WITHIN, reason, refused).await;
}

/// Polls wait for the lock, and continue after it.
#[tokio::test(flavor = "multi_thread")]
async fn the_access_tables_are_locked() {
    let run = start("access-locked").await;
    let mut sql = run.sql().await;
    let transaction = sql.transaction().await.unwrap();
    run.fault("a transaction holds the access tables", true);
    let lock = "lock table trunkline.access_version, trunkline.access_token,
        trunkline.access_grant in access exclusive mode";
    transaction.batch_execute(lock).await.unwrap();
    // Shorter than brokers trust their copies, so nobody notices.
    run.work_until_stored(300).await;
    transaction.rollback().await.unwrap();
    run.fault("a transaction holds the access tables", false);
    run.work_until_stored(300).await;
    assert_eq!(refused(&run.world.history.events(), "DATABASE_UNAVAILABLE"), 0);
    run.finish().await;
}

/// New calls are refused after a while, and open streams go on.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_grants_cannot_be_read() {
    let run = start("access-unread").await;
    run.fault("the connections that read tokens and grants are half open", true);
    run.to_postgres.iter().for_each(|proxy| proxy.set("trunkline access", Mode::Hold));
    let begun = run.world.history.events().len();
    let refuses =
        async || refused(&run.world.history.events()[begun..], "DATABASE_UNAVAILABLE") > 0;
    until_within(UNCONFIRMED, "new calls are refused", refuses).await;
    // Both brokers refuse them by then.
    run.work_for(Duration::from_secs(2)).await;
    let lapsed = run.world.history.events().len();
    // One that publishes on a stream, and one that receives without another call.
    for client in ["hot-piped", "hot-slow-0"] {
        until("an open stream goes on", async || {
            run.world.history.events()[lapsed..]
                .iter()
                .any(|event| *event.client == *client && is_work(event))
        })
        .await;
    }
    let events = run.world.history.events();
    let called = events[lapsed..].iter().find(|event| {
        // The clients that make a call for each publish.
        event.client.ends_with("-a") && matches!(event.what, What::Published { .. })
    });
    assert_eq!(called, None, "a new call was accepted");
    run.to_postgres.iter().for_each(|proxy| {
        proxy.cut("trunkline access", None);
        proxy.set("trunkline access", Mode::Pass);
    });
    run.fault("the connections that read tokens and grants are half open", false);
    run.work_until_stored(500).await;
    run.finish().await;
}

/// Their clients continue with the new ones.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_rotated() {
    let run = start("tokens-rotated").await;
    for revoked_first in [false, true] {
        let begun = run.world.history.events().len();
        run.fault("tokens are replaced", true);
        run.access().rotate(&run.brokers, revoked_first).await;
        is_refused(&run, begun, "TOKEN_REVOKED").await;
        run.access().are_known_to(&run.brokers).await;
        run.fault("tokens are replaced", false);
        run.work_until_stored(500).await;
    }
    run.finish().await;
}

/// Without any grant on a topic, it does not exist for its clients; with another one, they learn
/// what they lack. Nothing acknowledged is lost.
#[tokio::test(flavor = "multi_thread")]
async fn all_grants_are_withdrawn_and_restored() {
    let run = start("grants-withdrawn").await;
    let mut sql = run.sql().await;
    for (leaves_another, reason) in [(false, "TOPIC_NOT_FOUND"), (true, "NOT_GRANTED")] {
        let begun = run.world.history.events().len();
        run.fault("all grants are withdrawn", true);
        run.access().withdraw_grants(&mut sql, leaves_another).await;
        is_refused(&run, begun, reason).await;
        until_within(APPLIES_WITHIN + QUIET, "all streams have ended", async || {
            let before = run.world.history.events().len();
            run.work_for(QUIET).await;
            !run.world.history.events()[before..].iter().any(is_work)
        })
        .await;
        run.access().restore_grants(&mut sql).await;
        run.fault("all grants are withdrawn", false);
        run.work_until_stored(500).await;
    }
    run.finish().await;
}

/// Whether something was stored or delivered.
fn is_work(event: &Event) -> bool {
    matches!(event.what, What::Published { .. } | What::Delivered { .. } | What::Handed { .. })
}
