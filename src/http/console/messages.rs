//! The messages of a topic: from where the visitor wants, and one by one.

use std::{fmt::Write as _, time::SystemTime};

use axum::{
    Extension,
    extract::{Path, Query},
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    format,
    layout::{self, Place},
    path,
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

/// How much of a payload is shown in one line, and in all.
const PREVIEW: usize = 200;
const SHOWN: usize = 64 * 1024;

/// How far JSON is indented at most: deeper nesting would make a small payload a huge page.
const DEEPEST: usize = 32;

/// How many bytes a line of hexadecimal numbers shows.
const HEX_LINE: usize = 16;

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

/// The beginning of some bytes in one line. What is no text, or cannot be seen, is replaced.
pub(super) fn one_line(bytes: &[u8]) -> String {
    let begin = &bytes[..bytes.len().min(4 * PREVIEW)];
    let text = String::from_utf8_lossy(begin);
    let visible = |letter: char| match letter {
        '\n' | '\r' | '\t' => ' ',
        letter if letter.is_control() => '\u{fffd}',
        letter => letter,
    };
    let mut line: String = text.chars().map(visible).take(PREVIEW).collect();
    if text.chars().nth(PREVIEW).is_some() || begin.len() < bytes.len() {
        line.push('…');
    }
    line
}

/// How to show a payload.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Form {
    Text,
    Json,
    Hex,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Shape {
    #[serde(rename = "as")]
    form: Option<Form>,
}

/// Shows one message: below its row, or on a page of its own.
pub(super) async fn show_one(
    Extension(visitor): Extension<Visitor>,
    Path((name, offset)): Path<(String, i64)>,
    Query(Shape { form }): Query<Shape>,
    headers: HeaderMap,
) -> Result<Markup, Problem> {
    let message = find(&visitor, &name, offset).await?;
    let detail = detail(&name, &message, form);
    if headers.contains_key("hx-request") {
        return Ok(detail);
    }
    let crumbs = [("Topics", "/topics".to_owned()), (name.as_str(), path::topic(&name))];
    let title = format!("Message {offset}");
    let content = html! {
        (layout::heading(&crumbs, &title, &html! {}))
        section.card { div.card-body { (detail) } }
    };
    Ok(layout::page(&visitor, Place::Topics, &title, &content))
}

/// Hands a payload out as it is.
pub(super) async fn download(
    Extension(visitor): Extension<Visitor>,
    Path((name, offset)): Path<(String, i64)>,
) -> Result<Response, Problem> {
    let message = find(&visitor, &name, offset).await?;
    let letters = name.chars().map(|letter| match letter {
        letter if letter.is_ascii_alphanumeric() || "._-".contains(letter) => letter,
        _ => '_',
    });
    let file: String = letters.collect();
    let disposition = format!("attachment; filename=\"{file}-{offset}.bin\"");
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, message.payload).into_response())
}

async fn find(visitor: &Visitor, topic: &str, offset: i64) -> Result<Message, Problem> {
    let request = ReadMessagesRequest {
        topic: topic.to_owned(),
        start: Some(Start::Offset(offset)),
        max_messages: 1,
    };
    let none = || Problem::not_found("there is no message at this offset");
    let read = visitor.calls.topics().read_messages(request).await;
    let read = read.map_err(|status| match status.code() {
        tonic::Code::OutOfRange | tonic::Code::InvalidArgument => none(),
        _ => status.into(),
    })?;
    let found = read.into_inner().messages.into_iter().find(|message| message.offset == offset);
    found.ok_or_else(none)
}

fn detail(topic: &str, message: &Message, form: Option<Form>) -> Markup {
    let is_text = || std::str::from_utf8(&message.payload).is_ok();
    let json = match form {
        None | Some(Form::Json) => as_json(&message.payload),
        Some(_) => None,
    };
    let form = form.unwrap_or_else(|| match json.is_some() {
        true => Form::Json,
        false if is_text() => Form::Text,
        false => Form::Hex,
    });
    let at = path::message(topic, message.offset);
    let forms =
        [(Form::Text, "text", "Text"), (Form::Json, "json", "JSON"), (Form::Hex, "hex", "Hex")];
    let mut headers: Vec<_> = message.headers.iter().collect();
    headers.sort();
    html! {
        div.message-detail {
            dl.pairs {
                dt { "Offset" } dd.mono { (message.offset) }
                dt { "Published" } dd { (format::time(message.publish_time)) }
                dt { "Producer" } dd { (message.producer_id) }
                dt { "Key" }
                dd.mono {
                    @match &message.key {
                        Some(key) => (String::from_utf8_lossy(key)),
                        None => span.muted { "none" },
                    }
                }
                @for (name, value) in headers { dt { "Header " (name) } dd.mono { (value) } }
                dt { "Size" } dd { (format::bytes(message.payload.len() as i64)) }
            }
            div.row {
                nav.switch aria-label="How to show the payload" {
                    @for (of, name, text) in forms {
                        @let target = format!("{at}?as={name}");
                        a href=(target) hx-get=(target) hx-target="closest .message-detail"
                            hx-swap="outerHTML" aria-current=[(of == form).then_some("true")] { (text) }
                    }
                }
                a.button.button-small href=(format!("{at}/raw")) download { "Download" }
            }
            (payload(&message.payload, form, json))
        }
    }
}

fn payload(payload: &[u8], form: Form, json: Option<String>) -> Markup {
    let begin = &payload[..payload.len().min(SHOWN)];
    let shown = match form {
        Form::Json => match json {
            Some(json) => json,
            None if begin.len() < payload.len() => {
                return html! { p.muted { "The payload is too large to be shown as JSON." } };
            }
            None => return html! { p.muted { "The payload is not JSON." } },
        },
        Form::Text => String::from_utf8_lossy(begin).into_owned(),
        Form::Hex => hex(begin),
    };
    let class = if form == Form::Hex { "payload payload-hex" } else { "payload" };
    html! {
        @if payload.is_empty() {
            p.muted { "The payload is empty." }
        } @else {
            pre class=(class) tabindex="0" aria-label="Payload" { code { (shown) } }
            @if begin.len() < payload.len() {
                p.muted { "Only the first " (format::bytes(SHOWN as i64)) " are shown." }
            }
        }
    }
}

/// JSON with line breaks; `None` if the payload is none, or too large to be shown whole.
fn as_json(payload: &[u8]) -> Option<String> {
    let value = (payload.len() <= SHOWN).then_some(payload)?;
    let value: Box<serde_json::value::RawValue> = serde_json::from_slice(value).ok()?;
    // Not by way of a `Value`, which would sort the names and round numbers.
    Some(indent(value.get()))
}

/// Breaks JSON into lines, and changes nothing else.
fn indent(json: &str) -> String {
    let (mut text, mut depth, mut in_string, mut escaped) = (String::new(), 0, false, false);
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth.min(DEEPEST)));
    };
    let mut letters = json.chars().peekable();
    while let Some(letter) = letters.next() {
        if in_string {
            text.push(letter);
            in_string = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
            continue;
        }
        match letter {
            '"' => {
                in_string = true;
                text.push(letter);
            }
            '{' | '[' => {
                text.push(letter);
                while letters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                let end = if letter == '{' { '}' } else { ']' };
                match letters.next_if_eq(&end) {
                    Some(end) => text.push(end),
                    None => {
                        depth += 1;
                        line(&mut text, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(letter);
            }
            ',' => {
                text.push(letter);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            letter if letter.is_ascii_whitespace() => {}
            letter => text.push(letter),
        }
    }
    text
}

/// Bytes as hexadecimal numbers, and as letters.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, line) in bytes.chunks(HEX_LINE).enumerate() {
        let _ = write!(text, "{:08x} ", number * HEX_LINE);
        for place in 0..HEX_LINE {
            match line.get(place) {
                Some(byte) => drop(write!(text, " {byte:02x}")),
                None => text.push_str("   "),
            }
        }
        text.push_str("  ");
        let letter = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' };
        text.extend(line.iter().map(letter));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_broken_into_lines_and_nothing_else_changes() {
        for (json, lines) in [
            (
                r#"{"b":1.10,"a":[1,{}],"s":"x,\"{y"}"#,
                "{\n  \"b\": 1.10,\n  \"a\": [\n    1,\n    {}\n  ],\n  \"s\": \"x,\\\"{y\"\n}",
            ),
            ("[ ]", "[]"),
            ("12345678901234567890123", "12345678901234567890123"),
            (r#""a\\""#, r#""a\\""#),
        ] {
            assert_eq!(as_json(json.as_bytes()).as_deref(), Some(lines));
        }
        let deep = ["[".repeat(SHOWN / 2), "]".repeat(SHOWN / 2)].concat();
        assert!(as_json(deep.as_bytes()).unwrap().len() < 8 * 1024 * 1024);
        assert_eq!(as_json(b"{"), None);
        assert_eq!(as_json(&[0xff]), None);
    }

    #[test]
    fn bytes_are_shown_as_numbers_and_letters() {
        let text = hex(b"hello, world! 12\x00");
        let first = "00000000  68 65 6c 6c 6f 2c 20 77 6f 72 6c 64 21 20 31 32  hello, world! 12\n";
        assert!(text.starts_with(first), "{text}");
        assert!(text.ends_with("  .\n"), "{text}");
    }

    #[test]
    fn a_preview_is_one_line_of_what_can_be_seen() {
        assert_eq!(one_line(b"a\nb\x1b[31m"), "a b\u{fffd}[31m");
        assert_eq!(one_line(&[b'x'; 1_000]).chars().count(), PREVIEW + 1);
        assert_eq!(one_line(&[0xff, b'y']), "\u{fffd}y");
    }

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
