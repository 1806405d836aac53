//! Parked messages: lists them, delivers them again, and forgets them.

use std::io;

use clap::Args;
use serde_json::json;

use super::super::{
    confirmation,
    failure::Failure,
    output::{OutputArgs, Table, confirm},
    pages::{PAGE_SIZE, for_each_page},
    plural::count,
    registration::Names,
    timestamp::{json_time, time},
};
use crate::{
    client::Client,
    proto::{DiscardParkedRequest, ListParkedRequest, OffsetRange, ReplayParkedRequest},
};

/// How many offsets and ranges one request names: fewer than a request of 128 KiB may hold.
const MAX_NAMED: usize = 4_000;

/// Parked messages.
#[derive(Args, Debug)]
pub(in super::super) struct SelectedArgs {
    /// The topic's name.
    topic: String,
    /// The subscription's id.
    subscription: String,
    /// Messages by their offsets: one, such as 17, or a range with its last offset, such as 20-29.
    #[arg(value_name = "OFFSET", value_parser = parse, required_unless_present = "all")]
    offsets: Vec<Offsets>,
    /// All parked messages.
    #[arg(long, conflicts_with = "offsets")]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Parked messages to forget.
#[derive(Args, Debug)]
pub(in super::super) struct DiscardArgs {
    #[command(flatten)]
    selected: SelectedArgs,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

/// Offsets as they are given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offsets {
    first: i64,
    last: i64,
}

fn parse(text: &str) -> Result<Offsets, String> {
    let offset = |text: &str| {
        let offset = text.parse::<i64>().ok();
        offset.filter(|offset| (0..i64::MAX).contains(offset))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (offset(first), offset(last)) {
        (Some(first), Some(last)) if first <= last => Ok(Offsets { first, last }),
        (Some(_), Some(_)) => Err("the last offset is less than the first one".to_owned()),
        _ => Err("give an offset, such as 17, or a range, such as 20-29".to_owned()),
    }
}

/// What one request names; nothing for all messages.
#[derive(Clone, Debug, Default, PartialEq)]
struct Selection {
    offsets: Vec<i64>,
    ranges: Vec<OffsetRange>,
}

impl Selection {
    fn of(given: &[Offsets]) -> Self {
        let mut selection = Self::default();
        for &Offsets { first, last } in given {
            match first == last {
                true => selection.offsets.push(first),
                false => {
                    let range = OffsetRange { first_offset: first, end_offset: last + 1 };
                    selection.ranges.push(range);
                }
            }
        }
        selection
    }
}

impl SelectedArgs {
    fn selections(&self) -> Vec<Selection> {
        match self.all {
            true => vec![Selection::default()],
            false => self.offsets.chunks(MAX_NAMED).map(Selection::of).collect(),
        }
    }
}

pub(super) async fn list(
    client: &Client,
    Names { topic, id }: Names,
    output: OutputArgs,
) -> Result<(), Failure> {
    let mut table = Table::new(&["OFFSET", "ATTEMPTS", "PARKED", "REASON"]);
    for_each_page(async |page_token| {
        let request = ListParkedRequest {
            topic: topic.clone(),
            subscription_id: id.clone(),
            page_size: PAGE_SIZE,
            page_token,
        };
        let page = client.subscriptions().list_parked(request).await?.into_inner();
        for message in page.messages {
            let object = json!({
                "offset": message.offset,
                "attempts": message.attempts,
                "reason": message.reason,
                "park_time": json_time(message.park_time),
            });
            let (offset, attempts) = (message.offset.to_string(), message.attempts.to_string());
            table.row([offset, attempts, time(message.park_time), message.reason], object);
        }
        Ok(page.next_page_token)
    })
    .await?;
    Ok(table.print(&mut io::stdout(), output)?)
}

pub(super) async fn replay(client: &Client, selected: SelectedArgs) -> Result<(), Failure> {
    let (topic, id) = (selected.topic.clone(), selected.subscription.clone());
    unpark(selected, "replayed", async |Selection { offsets, ranges }| {
        let (topic, subscription_id) = (topic.clone(), id.clone());
        let request = ReplayParkedRequest { topic, subscription_id, offsets, ranges };
        let answer = client.subscriptions().replay_parked(request).await?.into_inner();
        Ok(Progress { count: answer.replayed, has_more: answer.has_more })
    })
    .await
}

pub(super) async fn discard(
    client: &Client,
    DiscardArgs { selected, yes }: DiscardArgs,
) -> Result<(), Failure> {
    let (topic, id) = (selected.topic.clone(), selected.subscription.clone());
    if !yes && confirmation::is_possible() {
        let which = if selected.all { "all" } else { "these" };
        confirmation::ask(&format!(
            "forget {which} parked messages of subscription {id} on topic {topic}?"
        ))?;
    }
    unpark(selected, "discarded", async |Selection { offsets, ranges }| {
        let (topic, subscription_id) = (topic.clone(), id.clone());
        let request = DiscardParkedRequest { topic, subscription_id, offsets, ranges };
        let answer = client.subscriptions().discard_parked(request).await?.into_inner();
        Ok(Progress { count: answer.discarded, has_more: answer.has_more })
    })
    .await
}

/// Makes calls until they are about all messages that are selected, and confirms what is `done` with them.
async fn unpark(
    selected: SelectedArgs,
    done: &str,
    call: impl AsyncFnMut(Selection) -> Result<Progress, Failure>,
) -> Result<(), Failure> {
    let messages = repeat(&selected, done, call).await?;
    let SelectedArgs { topic, subscription: id, output, .. } = selected;
    let line =
        format!("{done} {} of subscription {id} on topic {topic}", count(messages, "message"));
    let mut object = json!({ "topic": topic, "subscription_id": id });
    object[done] = messages.into();
    Ok(confirm(&mut io::stdout(), output, &line, &object)?)
}

/// What came of one call.
struct Progress {
    count: i32,
    has_more: bool,
}

/// Makes a call for each part of what is selected, and again while there is more; returns the number of
/// messages.
async fn repeat(
    selected: &SelectedArgs,
    done: &str,
    mut call: impl AsyncFnMut(Selection) -> Result<Progress, Failure>,
) -> Result<u64, Failure> {
    let mut messages = 0;
    for selection in selected.selections() {
        loop {
            let progress = call(selection.clone()).await.map_err(|failure| match messages {
                0 => failure,
                messages => failure.after(&format!("{} {done}", count(messages, "message"))),
            })?;
            messages += u64::from(progress.count.unsigned_abs());
            if !progress.has_more || progress.count == 0 {
                break;
            }
        }
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_named_by_offsets_and_ranges() {
        let parsed = ["17", "20-29", "3-3", "0"].map(|text| parse(text).unwrap());
        let selection = Selection::of(&parsed);
        let range = OffsetRange { first_offset: 20, end_offset: 30 };
        assert_eq!(selection, Selection { offsets: vec![17, 3, 0], ranges: vec![range] });
        for bad in ["", "-", "-1", "1-", "29-20", "a", "1-2-3", "9223372036854775807"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
