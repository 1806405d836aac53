//! Failover from a primary to its standby.

use std::{collections::HashMap, fs, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    history::{Event, Run as Delivered, Values, What},
    postgres::Postgres,
    proxy::ALL,
    run::{Run, Setup},
    support::{until, within},
};

/// A primary and its standby; commits wait for a synchronous standby.
pub async fn pair(synchronous: bool) -> (Postgres, Postgres) {
    let primary = Postgres::start(&[]).await;
    let standby = primary
        .start_standby("standby")
        .await
        .expect("pg_basebackup was installed when the tests were built");
    if synchronous {
        primary.make_synchronous("standby").await;
    }
    (primary, standby)
}

/// Rows that the promoting session could see are removed by what is left to replay.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "there is no pg_basebackup beside the server to create a standby"
)]
async fn a_standby_is_promoted_although_it_has_much_left_to_replay() {
    let (mut primary, standby) = pair(false).await;
    let sql = primary.sql().await;
    let create = "create table counter (count integer) with (fillfactor = 50);
        insert into counter values (0)";
    sql.batch_execute(create).await.unwrap();
    let replayed =
        "select coalesce(replay_lsn = pg_current_wal_lsn(), false) from pg_stat_replication";
    let is_at = async |column: &str| {
        let query = replayed.replace("replay_lsn", column);
        until(column, async || {
            sql.query_opt(&query, &[]).await.unwrap().is_some_and(|row| row.get(0))
        })
        .await;
    };
    is_at("replay_lsn").await;
    standby.sql().await.query_one("select pg_wal_replay_pause()::text", &[]).await.unwrap();
    let count = "do $$ begin
            for i in 1..1000 loop update counter set count = i; commit; end loop;
        end $$";
    sql.batch_execute(count).await.unwrap();
    is_at("flush_lsn").await;
    primary.lose_power().await;
    standby.promote().await;
    let row = standby.sql().await.query_one("select count from counter", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 1000);
}

/// Its data is older than what clients know already, and it accepts no publishes.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "there is no pg_basebackup beside the server to create a standby"
)]
async fn a_broker_does_not_use_a_standby_as_a_primary() {
    let (primary, standby) = pair(true).await;
    let run = Run::start_on("standby-not-read", Setup::default(), primary).await;
    run.work_until_stored(500).await;
    run.fault("connections lead to a standby", true);
    // The observer of the tables stays with the primary.
    for proxy in &run.to_postgres {
        proxy.retarget(standby.port());
        proxy.cut(ALL, None);
    }
    run.work_for(Duration::from_secs(2)).await;
    let events = run.world.history.events().len();
    run.work_for(Duration::from_secs(2)).await;
    let attached = run.world.history.events()[events..]
        .iter()
        .find(|event| matches!(event.what, What::Attached { .. }))
        .cloned();
    assert_eq!(attached, None, "a stream attached through a standby");
    run.to_postgres.iter().for_each(|proxy| proxy.retarget(run.postgres.port()));
    run.fault("connections lead to a standby", false);
    run.work_until_stored(500).await;
    run.finish().await;
    drop(standby);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "there is no pg_basebackup beside the server to create a standby"
)]
async fn a_synchronous_standby_replaces_a_dead_primary() {
    let (primary, standby) = pair(true).await;
    let mut run = Run::start_on("failover", Setup::secured(), primary).await;
    run.work_until_stored(1_000).await;
    run.fault("SIGKILL of the primary, the standby is promoted", true);
    run.postgres.lose_power().await;
    standby.promote().await;
    run.switch_to(standby);
    run.fault("SIGKILL of the primary, the standby is promoted", false);
    run.work_until_stored(1_000).await;
    run.finish().await;
}

/// The brokers' connections still lead to the old primary, which believes it is the primary.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "there is no pg_basebackup beside the server to create a standby"
)]
async fn a_standby_replaces_a_primary_that_lives_on() {
    let (primary, standby) = pair(true).await;
    let mut run = Run::start_on("failover-zombie", Setup::secured(), primary).await;
    run.work_until_stored(1_000).await;
    run.fault("SIGSTOP of the primary, the standby is promoted, SIGCONT", true);
    run.postgres.signal_all(Signal::SIGSTOP);
    standby.promote().await;
    let mut zombie = run.switch_to(standby);
    zombie.signal_all(Signal::SIGCONT);
    run.work_for(Duration::from_secs(5)).await;
    zombie.lose_power().await;
    run.fault("SIGSTOP of the primary, the standby is promoted, SIGCONT", false);
    run.work_until_stored(1_000).await;
    run.finish().await;
}

/// The commits wait for the standby, and uncommitted messages must not be visible.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "there is no pg_basebackup beside the server to create a standby"
)]
async fn nothing_is_visible_before_the_synchronous_standby_has_it() {
    let (primary, standby) = pair(true).await;
    let run = Run::start_on("commit-waits", Setup::default(), primary).await;
    run.work_until_stored(500).await;
    run.fault("SIGSTOP of the synchronous standby", true);
    standby.signal_all(Signal::SIGSTOP);
    // What the standby had received may still be acknowledged.
    let settled = async {
        let answers = || run.world.history.events().iter().filter(|event| is_commit(event)).count();
        let mut before = answers();
        loop {
            run.work_for(Duration::from_millis(500)).await;
            let now = answers();
            if std::mem::replace(&mut before, now) == now {
                return;
            }
        }
    };
    within(Duration::from_secs(20), "commits stop", settled).await;
    let from = run.world.history.events().len();
    run.work_for(Duration::from_secs(3)).await;
    let events = run.world.history.events();
    let sql = run.sql().await;
    let position =
        sql.query_one("select pg_current_wal_lsn() > replay_lsn from pg_stat_replication", &[]);
    assert!(position.await.unwrap().get::<_, bool>(0), "no commit waits");
    let acknowledged = acknowledged(&events[..from]);
    let is_new = |run: &Delivered| {
        let Values { producer, first, count } = &run.values;
        acknowledged.get(producer).is_none_or(|next| first + count > *next)
    };
    let seen = events[from..].iter().find(|event| match &event.what {
        // A client that waited for a commit in vain may go on to read what it had received.
        What::Delivered { runs } | What::Handed { runs, .. } => runs.iter().any(is_new),
        _ => is_commit(event),
    });
    assert_eq!(seen, None, "visible although the standby does not have it");
    standby.signal_all(Signal::SIGCONT);
    run.fault("SIGSTOP of the synchronous standby", false);
    run.work_until_stored(500).await;
    run.finish().await;
    drop(standby);
}

/// Whether an event shows that something was committed just now.
fn is_commit(event: &Event) -> bool {
    match &event.what {
        What::Published { .. } | What::Committed | What::LogEnds { .. } => true,
        // Nothing is stored for settlements that apply to nothing.
        What::Settled { applied } => applied.iter().any(|count| *count > 0),
        _ => false,
    }
}

/// For each producer, the value that follows the last one whose storage was acknowledged.
fn acknowledged(events: &[Event]) -> HashMap<Arc<str>, i64> {
    let mut sent = HashMap::new();
    let mut acknowledged = HashMap::new();
    for event in events {
        match &event.what {
            What::Publish { values, .. } => {
                sent.insert(event.op, values);
            }
            What::Published { .. } => {
                let Values { producer, first, count } = sent[&event.op];
                let next: &mut i64 = acknowledged.entry(producer.clone()).or_default();
                *next = (*next).max(first + count);
            }
            _ => {}
        }
    }
    acknowledged
}

/// What the standby did not have yet is lost, which cannot be avoided, but must be reported.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(has_basebackup),
    ignore = "there is no pg_basebackup beside the server to create a standby"
)]
async fn a_truncation_by_an_asynchronous_standby_is_reported_to_everyone() {
    let (primary, mut standby) = pair(false).await;
    let mut run = Run::start_on("failover-with-truncation", Setup::secured(), primary).await;
    run.work_until_stored(1_000).await;
    run.fault("SIGKILL of the primary, a standby that is behind is promoted", true);
    standby.stop_immediately().await;
    run.work_until_stored(1_000).await;
    run.all_delivered_within(Duration::from_secs(5)).await;
    run.postgres.lose_power().await;
    standby.start_again().await;
    standby.promote().await;
    run.switch_to(standby);
    run.fault("SIGKILL of the primary, a standby that is behind is promoted", false);
    // Producers with sequences find a gap, and end; the others go on.
    run.work_until_stored(100).await;
    until("both brokers log it", async || {
        let logged = |log: String| log.contains("the database has lost messages topic=hot");
        run.brokers.iter().all(|broker| logged(broker.log_text()))
    })
    .await;
    let history = run.world.history.clone();
    let logs = ["broker-0.log", "broker-1.log"].map(|log| run.dir.join(log));
    let (report, found) = run.judge().await;
    println!("{:?}", report.figures);
    let logged = lost_as_logged(&logs);
    for lost in &report.lost {
        let range = logged.get(&lost.topic).cloned().unwrap_or_default();
        let is_logged = range.start <= lost.first && lost.end <= range.end;
        assert!(is_logged, "{lost:?} is not in the logs: {logged:?}");
    }
    assert!(report.figures.lost > 0, "nothing was lost: {found:#?}");
    let told = |consumer: &str| {
        history.events().iter().any(|event| {
            matches!(&event.what, What::Refused { reason, .. } if reason == "MESSAGES_LOST")
                && event.client.contains(consumer)
        })
    };
    // Only consumers whose clients never leave by themselves: one may leave just when it is told,
    // and cannot have used a broker that did not know of the truncation.
    let staying = [
        ("hot", "manual"),
        ("hot", "slow"),
        ("side-1", "side"),
        ("trimmed", "trimmed"),
        ("trimmed", "behind"),
        ("sought", "sought"),
    ];
    let both_know = |topic: &str| {
        logs.iter().all(|log| lost_as_logged(std::slice::from_ref(log)).contains_key(topic))
    };
    for (topic, consumer) in staying.into_iter().filter(|(topic, _)| both_know(topic)) {
        assert!(told(&format!("{topic}-{consumer}")), "{consumer} on {topic} was not told");
    }
    assert!(
        found.iter().any(|found| found.contains("SEQUENCE_GAP")),
        "no producer was told: {found:#?}"
    );
    // Only these violations may follow from the truncation.
    let expected =
        ["C1:", "C3:", "C4:", "C6:", "C7:", "C8:", "C9:", "C13:", "C14:", "C15:", "C16:"];
    let wrong: Vec<_> = found
        .iter()
        .filter(|found| !expected.iter().any(|check| found.starts_with(check)))
        .filter(|found| !found.contains("MESSAGES_LOST") && !found.contains("SEQUENCE_GAP"))
        .filter(|found| !found.contains("the database has lost messages"))
        // These calls refer to messages that existed a moment ago.
        .filter(|found| !found.contains("COMMIT_BEYOND"))
        .filter(|found| !found.contains("OFFSET_OUT_OF_RANGE"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The lost offsets of each topic according to logs.
fn lost_as_logged(logs: &[PathBuf]) -> HashMap<String, Range<i64>> {
    let mut ranges: HashMap<String, Range<i64>> = HashMap::new();
    for log in logs {
        for line in fs::read_to_string(log).unwrap().lines() {
            let Some((_, what)) = line.split_once("the database has lost messages ") else {
                continue;
            };
            let values: HashMap<_, _> =
                what.split(' ').filter_map(|word| word.split_once('=')).collect();
            let (first, end) = (values["first"].parse().unwrap(), values["end"].parse().unwrap());
            let range = ranges.entry(values["topic"].to_owned()).or_insert(first..end);
            *range = range.start.min(first)..range.end.max(end);
        }
    }
    ranges
}
