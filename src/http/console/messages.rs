//! The messages of a topic, from where the visitor wants.

use std::time::SystemTime;

use axum::{
    Extension,
    extract::{Path, Query},
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    format, layout, path,
    payload::one_line,
    problem::Problem,
    topic::{self, Tab},
    visitor::Visitor,
};
use crate::proto::{
    GetConsumerRequest, Message, ReadMessagesRequest, ReadMessagesResponse, Topic,
    read_messages_request::Start,
};

/// How many messages a page shows at most, and unless it is told.
const MOST: i64 = 500;
const USUAL: i64 = 50;

/// Which messages to show.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    from: From,
    #[serde(default)]
    offset: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    consumer: String,
    /// How many messages.
    #[serde(default)]
    n: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum From {
    #[default]
    Latest,
    Earliest,
    Offset,
    Time,
    Consumer,
}

impl From {
    const ALL: [(Self, &str, &str); 5] = [
        (Self::Latest, "latest", "the newest"),
        (Self::Earliest, "earliest", "the oldest"),
        (Self::Offset, "offset", "an offset"),
        (Self::Time, "time", "a time"),
        (Self::Consumer, "consumer", "a consumer's position"),
    ];
}

pub(super) async fn show(
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Markup, Problem> {
    let found = topic::find(&visitor, &name).await?;
    let read = read(&visitor, &found, &wanted).await;
    let content = html! {
        section.card aria-label="Messages" {
            (form(&wanted, read.as_ref().err()))
            @match &read {
                Ok(read) => (list(&found, &wanted, read)),
                // What is wrong is said at its field.
                Err(problem) if problem.field.is_some() => {},
                Err(problem) => div.card-body { (problem.part()) },
            }
        }
    };
    Ok(topic::page(&visitor, &found, Tab::Messages, &content))
}

/// Reads the messages. A problem's field is one of the form.
async fn read(
    visitor: &Visitor,
    topic: &Topic,
    wanted: &Wanted,
) -> Result<ReadMessagesResponse, Problem> {
    let count = count(&wanted.n)?;
    let start = match wanted.from {
        From::Latest => Start::Offset((topic.head - count).max(topic.first_offset)),
        From::Earliest => Start::Offset(topic.first_offset),
        From::Offset => Start::Offset(offset(&wanted.offset)?.max(topic.first_offset)),
        From::Time => Start::Time(time(&wanted.time)?),
        From::Consumer => {
            let consumer_id = wanted.consumer.trim().to_owned();
            let request = GetConsumerRequest { topic: topic.name.clone(), consumer_id };
            let found = visitor.calls.consumers().get_consumer(request).await;
            let found = found.map_err(|status| of_field("consumer", status))?;
            let position = found.into_inner().consumer.map_or(0, |consumer| consumer.position);
            Start::Offset(position.max(topic.first_offset))
        }
    };
    let request = ReadMessagesRequest {
        topic: topic.name.clone(),
        start: Some(start),
        max_messages: i32::try_from(count).unwrap_or(i32::MAX),
    };
    let read =
        visitor.calls.topics().read_messages(request).await.map_err(|status| {
            match status.code() {
                tonic::Code::InvalidArgument | tonic::Code::OutOfRange => match wanted.from {
                    From::Offset => of_field("offset", status),
                    From::Time => of_field("time", status),
                    From::Consumer => of_field("consumer", status),
                    From::Latest | From::Earliest => status.into(),
                },
                _ => status.into(),
            }
        })?;
    Ok(read.into_inner())
}

/// What is wrong with the place to read from.
fn of_field(field: &str, status: tonic::Status) -> Problem {
    let problem = Problem::from(status);
    match problem.status.as_u16() {
        400 | 404 => problem.at(Some(field.to_owned())),
        _ => problem,
    }
}

fn count(text: &str) -> Result<i64, Problem> {
    match text.trim() {
        "" => Ok(USUAL),
        text => match text.parse() {
            Ok(count) if (1..=MOST).contains(&count) => Ok(count),
            _ => Err(Problem::invalid("n", &format!("must be a number from 1 to {MOST}"))),
        },
    }
}

pub(super) fn offset(text: &str) -> Result<i64, Problem> {
    let digits = text.trim().replace([',', '_'], "");
    match digits.parse() {
        Ok(offset) if offset >= 0 => Ok(offset),
        _ => Err(Problem::invalid("offset", "must be an offset, such as 1234")),
    }
}

/// A time: of a field of a browser, which has no zone and is taken as UTC, or as programs write it; or
/// how long ago it was.
pub(super) fn time(text: &str) -> Result<prost_types::Timestamp, Problem> {
    let text = text.trim();
    let parsed = match text.strip_prefix('-') {
        Some(ago) => {
            humantime::parse_duration(ago).ok().and_then(|ago| SystemTime::now().checked_sub(ago))
        }
        None => humantime::parse_rfc3339_weak(text).ok().or_else(|| {
            // Without seconds.
            humantime::parse_rfc3339_weak(&format!("{text}:00")).ok()
        }),
    };
    let problem = "must be a time in UTC, such as 2026-11-29T08:30:00Z, or an age such as -15m";
    parsed.map(Into::into).ok_or_else(|| Problem::invalid("time", problem))
}

fn form(wanted: &Wanted, problem: Option<&Problem>) -> Markup {
    let of = |field| {
        problem.filter(|problem| problem.field.as_deref() == Some(field)).map(Problem::text)
    };
    html! {
        form.card-head.field-row method="get" {
            div.field {
                label for="from" { "Start at" }
                select id="from" name="from" {
                    @for (from, name, text) in From::ALL {
                        option value=(name) selected[from == wanted.from] { (text) }
                    }
                }
            }
            @for (id, label, value, hint, of_field) in [
                ("offset", "Offset", &wanted.offset, "1234", of("offset")),
                ("time", "Time (UTC), or age", &wanted.time, "2026-11-29T08:30:00Z or -15m", of("time")),
                ("consumer", "Consumer", &wanted.consumer, "billing", of("consumer")),
            ] {
                div.field.size-l data-when=(format!("from {id}")) {
                    label for=(id) { (label) }
                    input id=(id) name=(id) value=(value) autocomplete="off" spellcheck="false"
                        placeholder=(hint) aria-invalid=[of_field.map(|_| "true")]
                        aria-describedby=[of_field.map(|_| format!("{id}-error"))];
                    (layout::field_error(id, of_field))
                }
            }
            div.field.size-n {
                label for="n" { "Messages" }
                input id="n" name="n" inputmode="numeric" value=(wanted.n) placeholder=(USUAL)
                    autocomplete="off" aria-invalid=[of("n").map(|_| "true")]
                    aria-describedby=[of("n").map(|_| "n-error")];
                (layout::field_error("n", of("n")))
            }
            button.button.button-main type="submit" { "Show" }
        }
        (finder("#messages"))
    }
}

/// A field that finds text in the messages that a page shows in the rows of an element.
pub(super) fn finder(rows: &str) -> Markup {
    html! {
        div.card-head {
            label for="in-page" { "Find in these messages" }
            div.size-l {
                input id="in-page" type="search" autocomplete="off" data-search
                    data-filter-rows=(rows);
            }
            span.muted role="status" data-filter-count=(rows) {}
        }
    }
}

fn list(topic: &Topic, wanted: &Wanted, read: &ReadMessagesResponse) -> Markup {
    let count = count(&wanted.n).unwrap_or(USUAL);
    let first = read.messages.first().map_or(read.next_offset, |message| message.offset);
    let at = path::topic(&topic.name);
    let page = |from: i64| format!("{at}?from=offset&offset={from}&n={count}");
    html! {
        @if topic.head == 0 {
            (layout::empty(
                "Nothing has been published yet",
                "This ships a file: each line is a message.",
                &format!("trunkline produce {} --producer web-1 --register app.log", topic.name),
            ))
        } @else if read.messages.is_empty() {
            div.empty {
                h2 { "There are no messages here" }
                p.muted { "The log ends at offset " (format::number(read.head)) "." }
            }
        } @else {
            table.grid.messages id="messages" {
                caption.visually-hidden { "Messages" }
                (head())
                @for message in &read.messages { (row(&topic.name, message)) }
            }
        }
        @if first > read.first_offset || read.next_offset < read.head {
            div.card-foot.pager {
                @if first > read.first_offset {
                    a.button.button-small rel="prev"
                        href=(page((first - count).max(read.first_offset))) { "Earlier" }
                }
                @if read.next_offset < read.head {
                    a.button.button-small rel="next" href=(page(read.next_offset)) { "Later" }
                }
            }
        }
    }
}

/// The headings of a list of messages.
pub(super) fn head() -> Markup {
    html! {
        thead {
            tr {
                th.w-m scope="col" { "Offset" }
                th.w-l scope="col" { "Time" }
                th.w-m scope="col" { "Key" }
                th.num.w-xs scope="col" { "Headers" }
                th.w-m scope="col" { "Producer" }
                th.num.w-xs scope="col" { "Size" }
                th scope="col" { "Payload" }
            }
        }
    }
}

/// A message in a list.
pub(super) fn row(topic: &str, message: &Message) -> Markup {
    let id = format!("m-{}", message.offset);
    let detail = format!("{id}-detail");
    html! {
        tbody.message id=(id) {
            tr {
                th scope="row" {
                    a href=(path::message(topic, message.offset)) data-expand=(detail)
                        aria-expanded="false" aria-controls=(detail) {
                        span.visually-hidden { "Offset " } (message.offset)
                    }
                }
                td data-label="Time" { (format::time(message.publish_time)) }
                td.cut data-label="Key" {
                    span.mono { (one_line(message.key.as_deref().unwrap_or_default())) }
                }
                td.num data-label="Headers" { (message.headers.len()) }
                td.cut data-label="Producer" { (message.producer_id) }
                td.num data-label="Size" { (format::bytes(message.payload.len() as i64)) }
                td.preview.wide data-label="Payload" { (one_line(&message.payload)) }
            }
            tr.detail id=(detail) hidden { td.wide colspan="7" {} }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_offsets_and_counts_are_read_as_people_write_them() {
        assert_eq!(offset(" 1,234 ").unwrap(), 1_234);
        assert!(offset("-1").is_err() && offset("x").is_err() && offset("").is_err());
        assert_eq!(time("1970-01-01T00:01").unwrap().seconds, 60);
        assert_eq!(time("1970-01-01 00:01:01").unwrap().seconds, 61);
        assert!(time("-15m").is_ok() && time("yesterday").is_err() && time("").is_err());
        assert_eq!(count("").unwrap(), USUAL);
        assert!(count("0").is_err() && count("501").is_err() && count("500").is_ok());
        assert_eq!(count("x").unwrap_err().field.as_deref(), Some("n"));
    }
}
