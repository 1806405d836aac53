//! `trunkline lag`: which consumers are behind, and how far.

mod watch;

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    io,
    time::{Duration, SystemTime},
};

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use prost_types::Timestamp;
use serde_json::json;

use super::{
    failure::{Failure, print_notice},
    output::{OutputArgs, OutputFormat, Table},
    pages::{CALLS_AT_A_TIME, PAGE_SIZE, for_each_page, is_of_deleted_topic},
};
use crate::{
    client::{Client, Start},
    proto::{Consumer, ListConsumersRequest, ListTopicsRequest, ReadMessagesRequest},
};
use watch::LagList;

/// Which consumers to list.
#[derive(Args, Debug)]
pub(super) struct LagArgs {
    /// The topics whose consumers to list; all topics if none is given.
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// How many consumers to list.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Also list consumers that are caught up.
    #[arg(long)]
    all: bool,
    /// List again and again until Ctrl-C: from 1s to 1h apart, 2s if no interval is given. On a
    /// terminal, each list takes the place of the one before.
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "2s", value_parser = watch::parse_watch)]
    watch: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(client: &Client, args: LagArgs) -> Result<(), Failure> {
    if let Some(interval) = args.watch {
        return watch::watch(args.output, interval, async || list(client, &args).await).await;
    }
    let LagList { table, shown, notice } = list(client, &args).await?;
    if shown > 0 || args.output.format == OutputFormat::Json {
        table.print(&mut io::stdout(), args.output)?;
    }
    if let Some(notice) = notice {
        print_notice(&notice);
    }
    Ok(())
}

async fn list(client: &Client, args: &LagArgs) -> Result<LagList, Failure> {
    let mut ranking = Ranking::new(args.limit as usize, args.all);
    if args.topics.is_empty() {
        rank_all_topics(client, &mut ranking).await?;
    } else {
        // A topic that is named twice is listed once.
        let topics = BTreeSet::from_iter(args.topics.iter().cloned());
        rank_topics(client, topics, Origin::CommandLine, &mut ranking).await?;
    }
    let mut table = Table::new(&["TOPIC", "CONSUMER", "LAG", "BEHIND", "HOLDER"]);
    let mut shown = 0;
    let now = SystemTime::now();
    let measure = async |row| Ok::<_, Failure>((row, time_behind(client, row, now).await?));
    let mut measured = stream::iter(ranking.rows.iter().map(measure)).buffered(CALLS_AT_A_TIME);
    while let Some((row, behind)) = measured.try_next().await? {
        let behind = match behind {
            Behind::Time(time) => Some(time),
            Behind::Unknown => None,
            Behind::TopicDeleted => continue,
        };
        add(&mut table, row, behind);
        shown += 1;
    }
    drop(measured);
    Ok(LagList { table, shown, notice: ranking.notice(shown) })
}

/// Where the names of topics come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The topics may not exist.
    CommandLine,
    /// The broker has just listed the topics.
    Broker,
}

/// Ranks the consumers of all topics that the caller may know of, one page of topics at a time.
async fn rank_all_topics(client: &Client, ranking: &mut Ranking) -> Result<(), Failure> {
    for_each_page(async |page_token| {
        let request = ListTopicsRequest { page_size: PAGE_SIZE, page_token };
        let page = client.topics().list_topics(request).await?.into_inner();
        let names = page.topics.into_iter().map(|topic| topic.name);
        rank_topics(client, names, Origin::Broker, ranking).await?;
        Ok(page.next_page_token)
    })
    .await
}

async fn rank_topics(
    client: &Client,
    topics: impl IntoIterator<Item = String>,
    origin: Origin,
    ranking: &mut Ranking,
) -> Result<(), Failure> {
    let (limit, all) = (ranking.limit, ranking.all);
    let listing = topics
        .into_iter()
        .map(|topic| rank_consumers(client, topic, origin, Ranking::new(limit, all)));
    let mut listed = stream::iter(listing).buffer_unordered(CALLS_AT_A_TIME);
    while let Some(of_topic) = listed.try_next().await? {
        ranking.merge(of_topic);
    }
    Ok(())
}

/// Adds the consumers of a topic to an empty ranking. It stays empty if the topic is deleted
/// meanwhile.
async fn rank_consumers(
    client: &Client,
    topic: String,
    origin: Origin,
    mut ranking: Ranking,
) -> Result<Ranking, Failure> {
    let mut existed = origin == Origin::Broker;
    let listed = for_each_page(async |page_token| {
        let topic = topic.clone();
        let request = ListConsumersRequest { topic, page_size: PAGE_SIZE, page_token };
        let page = client.consumers().list_consumers(request).await?.into_inner();
        existed = true;
        page.consumers.into_iter().for_each(|consumer| ranking.add(consumer));
        Ok(page.next_page_token)
    })
    .await;
    match listed {
        Ok(()) => Ok(ranking),
        Err(failure) if existed && is_of_deleted_topic(&failure) => {
            Ok(Ranking::new(ranking.limit, ranking.all))
        }
        Err(failure) => Err(failure),
    }
}

/// How long ago the message at a consumer's position was stored.
enum Behind {
    /// So long ago; no time if the consumer is caught up.
    Time(Duration),
    /// The message was removed, or the caller may not read it.
    Unknown,
    /// The topic was deleted meanwhile.
    TopicDeleted,
}

async fn time_behind(client: &Client, row: &Row, now: SystemTime) -> Result<Behind, Failure> {
    if row.lag.0 == 0 {
        return Ok(Behind::Time(Duration::ZERO));
    }
    let request = ReadMessagesRequest {
        topic: row.topic.clone(),
        start: Some(Start::Offset(row.position).into()),
        max_messages: 1,
    };
    let read = client.topics().read_messages(request).await.map_err(Failure::from);
    let page = match read {
        Ok(read) => read.into_inner(),
        Err(failure) => {
            return match failure.reason() {
                Some("TOPIC_NOT_FOUND") => Ok(Behind::TopicDeleted),
                Some("NOT_GRANTED" | "OFFSET_OUT_OF_RANGE") => Ok(Behind::Unknown),
                _ => Err(failure),
            };
        }
    };
    // If the message has just been removed, the first one that is left takes its place.
    let message = page.messages.into_iter().find(|message| message.offset == row.position);
    let age = message.and_then(|message| age(message.publish_time, now));
    Ok(age.map_or(Behind::Unknown, Behind::Time))
}

/// The time since a message was stored: none if the database's clock is ahead of this one.
fn age(publish_time: Option<Timestamp>, now: SystemTime) -> Option<Duration> {
    let stored = SystemTime::try_from(publish_time?).ok()?;
    Some(now.duration_since(stored).unwrap_or_default())
}

fn add(table: &mut Table, row: &Row, behind: Option<Duration>) {
    let Row { lag: Reverse(lag), topic, consumer_id, holder, .. } = row;
    let holder = (!holder.is_empty()).then_some(holder);
    let seconds = |time: Duration| Duration::from_secs(time.as_secs());
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    table.row(
        [
            topic.clone(),
            consumer_id.clone(),
            lag.to_string(),
            or_dash(behind.map(|time| humantime::format_duration(seconds(time)).to_string())),
            or_dash(holder.cloned()),
        ],
        json!({
            "topic": topic,
            "consumer_id": consumer_id,
            "lag": lag,
            "behind_seconds": behind.map(|time| time.as_secs_f64()),
            "holder": holder,
        }),
    );
}

/// A consumer. Its order is that of the list: by lag, largest first, then by topic and id.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    lag: Reverse<i64>,
    topic: String,
    consumer_id: String,
    position: i64,
    /// Empty if nobody holds the lease.
    holder: String,
}

impl From<Consumer> for Row {
    fn from(consumer: Consumer) -> Self {
        let Consumer { topic, consumer_id, position, lag, holder, .. } = consumer;
        Self { lag: Reverse(lag), topic, consumer_id, position, holder }
    }
}

/// The consumers to list, no more of them than the limit, and the number of those that could be.
struct Ranking {
    limit: usize,
    /// Whether to list consumers that are caught up.
    all: bool,
    rows: BTreeSet<Row>,
    total: usize,
    behind: usize,
}

impl Ranking {
    fn new(limit: usize, all: bool) -> Self {
        Self { limit, all, rows: BTreeSet::new(), total: 0, behind: 0 }
    }

    fn add(&mut self, consumer: Consumer) {
        let is_behind = consumer.lag > 0;
        if is_behind || self.all {
            self.total += 1;
            self.behind += usize::from(is_behind);
            self.keep(consumer.into());
        }
    }

    fn merge(&mut self, other: Self) {
        self.total += other.total;
        self.behind += other.behind;
        other.rows.into_iter().for_each(|row| self.keep(row));
    }

    fn keep(&mut self, row: Row) {
        self.rows.insert(row);
        if self.rows.len() > self.limit {
            self.rows.pop_last();
        }
    }

    /// What to say beside the list if it does not have all, or is empty.
    fn notice(&self, shown: usize) -> Option<String> {
        let Self { all, total, behind, .. } = self;
        if self.rows.len() < *total {
            return Some(match all {
                true => format!(
                    "showing {shown} of {total} consumers, {behind} of which are behind: --limit shows more"
                ),
                false => format!(
                    "showing {shown} of {total} consumers that are behind: --limit shows more"
                ),
            });
        }
        let nobody = if *all { "there are no consumers" } else { "no consumer is behind" };
        (shown == 0).then(|| nobody.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(topic: &str, id: &str, lag: i64) -> Consumer {
        let (topic, consumer_id) = (topic.to_owned(), id.to_owned());
        Consumer { topic, consumer_id, lag, ..Default::default() }
    }

    fn rank(limit: usize, all: bool, consumers: &[(&str, &str, i64)]) -> Ranking {
        let mut ranking = Ranking::new(limit, all);
        consumers.iter().for_each(|(topic, id, lag)| ranking.add(consumer(topic, id, *lag)));
        ranking
    }

    fn names(ranking: &Ranking) -> Vec<String> {
        ranking.rows.iter().map(|row| format!("{}/{}", row.topic, row.consumer_id)).collect()
    }

    #[test]
    fn the_consumers_with_the_largest_lag_are_kept_in_order() {
        let some = [("b", "x", 5), ("a", "y", 5), ("a", "x", 5), ("a", "z", 0), ("c", "x", 10)];
        assert_eq!(names(&rank(9, false, &some)), ["c/x", "a/x", "a/y", "b/x"]);
        let mut ranking = rank(3, false, &some);
        assert_eq!(
            (names(&ranking), ranking.total),
            (vec!["c/x".into(), "a/x".into(), "a/y".into()], 4)
        );
        ranking.merge(rank(3, false, &[("d", "x", 7), ("d", "y", 1)]));
        assert_eq!(
            (names(&ranking), ranking.total),
            (vec!["c/x".into(), "d/x".into(), "a/x".into()], 6)
        );
    }

    #[test]
    fn a_notice_says_what_the_list_does_not_show() {
        let some = [("a", "x", 5), ("a", "y", 4), ("a", "z", 0)];
        let notice = |limit, all| {
            let ranking = rank(limit, all, &some);
            ranking.notice(ranking.rows.len()).unwrap_or_default()
        };
        assert_eq!(
            notice(1, false),
            "showing 1 of 2 consumers that are behind: --limit shows more"
        );
        assert_eq!(notice(2, false), "");
        assert_eq!(
            notice(2, true),
            "showing 2 of 3 consumers, 2 of which are behind: --limit shows more"
        );
        assert_eq!(notice(3, true), "");
        let nobody = |all| rank(1, all, &[]).notice(0).unwrap();
        assert_eq!(
            (&*nobody(false), &*nobody(true)),
            ("no consumer is behind", "there are no consumers")
        );
    }

    #[test]
    fn a_message_from_the_future_is_not_old() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        assert_eq!(age(at(70), now), Some(Duration::from_secs(30)));
        assert_eq!(age(at(101), now), Some(Duration::ZERO));
        assert_eq!(age(None, now), None);
    }
}
