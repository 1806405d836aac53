//! The end of a run: reads the tables, checks logs and clients, and writes the figures.

mod subscriptions;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio_stream::StreamExt as _;
use tonic::Status;
use trunkline::proto::{self, consume_request::Stop, consume_response::Event};

use crate::{
    access::ADMIN,
    broker::Broker,
    check::Figures,
    history::{self, Event as Line, Run, What},
    postgres,
    run::append_line,
    support::{holds_within, within},
    values,
    workload::World,
};

/// How long reading a topic may take after a soak.
const READ_WITHIN: Duration = Duration::from_secs(300);

/// How often a broker may log the same warning within a minute, whatever breaks.
const MAX_WARNINGS: usize = 7;

/// The same for other lines, such as changes of its health.
const MAX_NEWS: usize = 20;

/// Notes what is stored, and what each broker delivers of it.
pub async fn read_everything(world: &World, name: &Arc<str>, brokers: &[Broker], topics: &[&str]) {
    let sql = postgres::connect(&world.database.borrow().clone()).await.unwrap();
    subscriptions::note(world, name, &sql, topics).await;
    for topic in topics {
        let topic: Arc<str> = (*topic).into();
        for broker in brokers {
            match within(READ_WITHIN, "a topic is read", read(world, broker, &topic)).await {
                Ok(runs) => {
                    let broker = broker.name.clone();
                    world
                        .history
                        .note(name, What::FreshRead { topic: topic.clone(), broker, runs });
                }
                Err(status) => {
                    world.alarm(format!("{} cannot read {topic}: {status:?}", broker.name))
                }
            }
        }
        let ends = "select first_offset, next_offset from trunkline.topic_head h
            join trunkline.topic t on t.id = h.topic_id where name = $1";
        let row = sql.query_one(ends, &[&&*topic]).await.unwrap();
        let (first, head) = (row.get(0), row.get(1));
        let runs = table(&sql, &topic, first).await;
        world.history.note(name, What::Table { topic, first, head, runs });
    }
}

/// What a new consumer of a broker gets.
async fn read(world: &World, broker: &Broker, topic: &str) -> Result<Vec<Run>, Status> {
    let client = world.caller(ADMIN).connect(&broker.endpoint()).await.unwrap();
    let consumer = format!("fresh-{}", broker.name);
    let request = proto::RegisterConsumerRequest {
        topic: topic.to_owned(),
        consumer_id: consumer.clone(),
        ..Default::default()
    };
    client.consumers().register_consumer(request).await?;
    let request = proto::ConsumeRequest {
        topic: topic.to_owned(),
        consumer_id: consumer,
        stop: Some(Stop::UntilCaughtUp(true)),
        ..Default::default()
    };
    let mut stream = client.consumers().consume(request).await?.into_inner();
    let mut runs = Vec::new();
    while let Some(frame) = stream.message().await? {
        if let Some(Event::Batch(batch)) = frame.event {
            batch.messages.iter().for_each(|message| values::add(&mut runs, message));
        }
    }
    Ok(runs)
}

/// The contents of the tables, from the log start on.
async fn table(sql: &tokio_postgres::Client, topic: &str, first: i64) -> Vec<Run> {
    let rows = "select base_offset, payloads, keys, producers, producer_counts
        from trunkline.batch b join trunkline.topic t on t.id = b.topic_id
        where name = $1 order by base_offset";
    let rows = sql.query_raw(rows, [topic]).await.unwrap();
    let mut rows = std::pin::pin!(rows);
    let mut runs = Vec::new();
    while let Some(row) = rows.next().await {
        let row = row.unwrap();
        let (base, payloads, keys): (i64, Vec<&[u8]>, Vec<&[u8]>) =
            (row.get(0), row.get(1), row.get(2));
        let (producers, counts): (Vec<&str>, Vec<i32>) = (row.get(3), row.get(4));
        let producers = producers.iter().zip(counts).flat_map(|(producer, count)| {
            std::iter::repeat_n(*producer, usize::try_from(count).unwrap_or(0))
        });
        for (((offset, payload), key), producer) in (base..).zip(payloads).zip(keys).zip(producers)
        {
            // The oldest batch may start before the log start.
            if offset >= first {
                let value = values::parse(key, producer, payload);
                let (producer, number) = value.unwrap_or(("corrupt", offset));
                history::add(&mut runs, offset, producer, number);
            }
        }
    }
    runs
}

/// The lines that a broker logged too often within a minute.
pub fn repeated_too_often(broker: &str, log: &str) -> Vec<String> {
    // For each line, its times within the last minute, and the most within any minute.
    let mut repeated: BTreeMap<String, (Vec<SystemTime>, usize)> = BTreeMap::new();
    // Each line of the audit is one that nothing else tells.
    for line in log.lines().filter(|line| !is_of_audit(line)) {
        let Some((time, words)) = line.split_once(' ') else { continue };
        // A line without a time continues the one before.
        let Ok(time) = humantime::parse_rfc3339(time) else { continue };
        // Numbers in the error do not make it another line.
        let problem = words.find("error=").unwrap_or(words.len());
        let (what, why) = words.split_at(problem);
        let why = why.chars().map(|c| if c.is_ascii_digit() { '0' } else { c });
        let words = what.chars().chain(why).collect();
        let (lately, most) = repeated.entry(words).or_default();
        // A clock that jumps back starts another minute.
        lately.retain(|before| {
            time.duration_since(*before).is_ok_and(|since| since <= Duration::from_secs(60))
        });
        lately.push(time);
        *most = lately.len().max(*most);
    }
    let too_often =
        repeated.into_iter().map(|(words, (_, most))| (words, most)).filter(|(words, most)| {
            *most > if words.contains(" INFO ") { MAX_NEWS } else { MAX_WARNINGS }
        });
    too_often
        .map(|(words, most)| format!("log: {broker} logged {most} times in a minute: {words}"))
        .collect()
}

/// Whether a line of a broker's log is a record of the audit.
fn is_of_audit(line: &str) -> bool {
    line.contains(" audit: ")
}

/// Errors and panics that a broker logged, which it must never do, whatever breaks. A record of the
/// audit that the database did not take is in the log instead, as an error.
pub fn errors_logged(broker: &str, log: &str) -> Vec<String> {
    let is_record = |line: &str| is_of_audit(line) && line.contains("could not store the record");
    let wrong = log.lines().filter(|line| {
        line.contains(" ERROR ") && !is_record(line) || line.contains("panicked at")
    });
    wrong.take(5).map(|line| format!("log: {broker} logged: {line}")).collect()
}

/// Why a broker does not work by itself now that nothing is broken, as the clients of the run would
/// have moved to another one.
pub async fn work_problems(world: &World, broker: &Broker) -> Vec<String> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mut found = Vec::new();
    // The name of a topic selects its writer.
    for _ in 0..4 {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let topic = format!("{}-works-{number}", broker.name);
        let works =
            tokio::time::timeout(Duration::from_secs(5), publish_and_read(world, broker, &topic));
        match works.await {
            Ok(Ok(1)) => {}
            Ok(outcome) => found.push(format!("C10: {} does not work: {outcome:?}", broker.name)),
            Err(_) => found.push(format!("C10: {} does not work: no answer in 5 s", broker.name)),
        }
    }
    for what in ["hears_others", "database_up"] {
        let is_up = async || !is_not(broker, what);
        // A connection that was cut last may not be open again yet.
        if !holds_within(Duration::from_secs(5), is_up).await {
            found.push(format!("C10: {} still reports {what}=false", broker.name));
        }
    }
    found
}

/// Whether the last log line about a state says false.
fn is_not(broker: &Broker, what: &str) -> bool {
    let log = broker.log_text();
    let last = log.lines().rev().find(|line| line.contains(&format!("{what}=")));
    last.is_some_and(|line| line.contains(&format!("{what}=false")))
}

/// Publishes a message to a new topic; returns how many are read.
async fn publish_and_read(world: &World, broker: &Broker, topic: &str) -> Result<i64, String> {
    let client = world.caller(ADMIN).connect(&broker.endpoint()).await;
    let client = client.map_err(|error| error.to_string())?;
    client.ensure_topic(topic).await.map_err(|error| error.to_string())?;
    let producer = client.producer(topic, "probe").register().open().await;
    let producer = producer.map_err(|error| error.to_string())?;
    producer.publish(values::message("probe", 0)).await.map_err(|error| error.to_string())?;
    let runs = read(world, broker, topic).await.map_err(|status| format!("{status:?}"))?;
    Ok(runs.iter().map(|run| run.values.count).sum())
}

/// Clients none of whose operations succeeded, as a run in which nothing happened proves nothing.
pub fn idle_clients(events: &[Line]) -> Vec<String> {
    let mut did: BTreeMap<&str, bool> = BTreeMap::new();
    for event in events {
        match &event.what {
            What::Publish { .. }
            | What::Consume { .. }
            | What::Work { .. }
            | What::Seek { .. }
            | What::Trim { .. } => {
                did.entry(whose(event)).or_default();
            }
            What::Published { .. }
            | What::Delivered { .. }
            | What::Handed { .. }
            | What::Sought { .. }
            | What::Trimmed { .. } => {
                did.insert(whose(event), true);
            }
            _ => {}
        }
    }
    let idle = did.iter().filter(|(_, did)| !**did);
    idle.map(|(client, _)| format!("no operation of {client} succeeded")).collect()
}

/// The name of a client without its number: of two clients of a consumer, one may wait for the
/// other all the time.
fn whose(event: &Line) -> &str {
    event.client.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// Statuses that a fault may lead to: all mean that the call may be retried. Requests in flight
/// after a refused one may also find a gap.
const ALLOWED: [(&str, &str); 8] = [
    ("Unavailable", ""),
    ("Aborted", ""),
    ("ResourceExhausted", ""),
    ("DeadlineExceeded", ""),
    ("OutOfRange", "SEQUENCE_GAP"),
    // Reported by the client's side for a broken connection.
    ("TRANSPORT", ""),
    ("LIBRARY", ""),
    ("Cancelled", ""),
];

/// What they may lead to in addition while tokens and grants are taken from clients.
const DENIED: [(&str, &str); 4] = [
    ("Unauthenticated", "TOKEN_REVOKED"),
    // Another broker has created it just now.
    ("Unauthenticated", "TOKEN_UNKNOWN"),
    ("PermissionDenied", "NOT_GRANTED"),
    ("NotFound", "TOPIC_NOT_FOUND"),
];

/// Refusals that a fault must not lead to, as a client cannot know how to handle them.
pub fn unexpected_codes(events: &[Line], may_be_denied: bool) -> Vec<String> {
    let denied = if may_be_denied { &DENIED[..] } else { &[] };
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    for event in events {
        if let What::Refused { code, reason, message } = &event.what
            && !ALLOWED
                .iter()
                .chain(denied)
                .any(|(allowed, only)| code == allowed && (only.is_empty() || reason == only))
        {
            *refusals
                .entry(format!("code: {} got {code} {reason}: {message}", event.client))
                .or_default() += 1;
        }
    }
    refusals.into_iter().map(|(what, count)| format!("{what} ({count} times)")).collect()
}

/// Appends the figures of a run to a file.
pub fn note_figures(dir: &Path, name: &str, figures: &Figures, took: Duration) {
    let Figures {
        operations,
        acknowledged,
        unknown,
        recovered,
        refused,
        delivered,
        lost,
        duplicates,
        ..
    } = figures;
    let line = format!(
        "| {name} | {:.0} | {operations} | {acknowledged} | {unknown} | {recovered} | {refused} | {delivered} | {lost} | {duplicates} |",
        took.as_secs_f64()
    );
    append_line(&dir.parent().unwrap().join("figures.md"), &line);
}

#[cfg(test)]
mod tests {
    use super::{errors_logged, repeated_too_often};

    /// A log with lines at these seconds and days.
    fn log(times: &[(u64, u64)]) -> String {
        let line = |(second, day): &(u64, u64)| {
            format!(
                "2026-01-{day:02}T00:{:02}:{:02}Z  WARN hear error=os {second}\n",
                second / 60,
                second % 60
            )
        };
        times.iter().map(line).collect()
    }

    #[test]
    fn a_burst_is_found_however_long_the_run_is() {
        let burst: Vec<_> = (0..8).map(|second| (second, 1)).chain([(3_000, 1)]).collect();
        let found = repeated_too_often("a", &log(&burst));
        assert_eq!(found, ["log: a logged 8 times in a minute:  WARN hear error=os 0"]);
    }

    #[test]
    fn seven_lines_a_minute_are_allowed_even_if_the_clock_jumps() {
        let times = [(0, 1), (0, 4), (5, 4)].into_iter().chain((0..40).map(|it| (9 * it, 1)));
        assert_eq!(repeated_too_often("a", &log(&times.collect::<Vec<_>>())), [""; 0]);
    }

    #[test]
    fn records_that_were_not_stored_are_no_errors_of_the_broker() {
        let record = "2026-01-01T00:00:00Z ERROR request{}: audit: moved a position, and could not \
                      store the record of it act=\"seek\"\n";
        assert_eq!(errors_logged("a", record), [""; 0]);
        assert_eq!(repeated_too_often("a", &record.repeat(100)), [""; 0]);
        let wrong = "2026-01-01T00:00:00Z ERROR lose messages\n";
        assert_eq!(errors_logged("a", &format!("{record}{wrong}")).len(), 1);
    }
}
