//! A consumer: where it is, who reads, and where to put it.

use std::{collections::HashMap, sync::Arc, time::Instant};

use axum::{
    Extension, Form,
    extract::{Path, Query, State as Shared},
    response::{IntoResponse as _, Redirect, Response},
};
use maud::{Markup, html};

use super::{
    Console, chart,
    form::{self, Sent, Shown},
    format,
    layout::{self, Place},
    messages, path,
    payload::one_line,
    problem::Problem,
    topic,
    visitor::Visitor,
};
use crate::{
    proto::{
        AuditRecord, Consumer, GetConsumerRequest, ListAuditRequest, LogEdge, Message,
        ReadMessagesRequest, SeekRequest, read_messages_request::Start, seek_request::Target,
    },
    storage::ConsumerState,
};

/// How many take-overs the page lists.
const TAKE_OVERS: usize = 10;

pub(super) async fn show(
    Shared(console): Shared<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    Path((topic, id)): Path<(String, String)>,
) -> Result<Markup, Problem> {
    let consumer = find(&visitor, &topic, &id).await?;
    Ok(page(&console, &visitor, &consumer, &Shown::default()).await)
}

async fn page(
    console: &Console,
    visitor: &Visitor,
    consumer: &Consumer,
    shown: &Shown<'_>,
) -> Markup {
    let (topic, id) = (consumer.topic.as_str(), consumer.consumer_id.as_str());
    let crumbs = [
        ("Topics", "/topics".to_owned()),
        (topic, path::topic(topic)),
        ("Consumers", format!("{}/consumers", path::topic(topic))),
    ];
    let at_position = format!("{}?from=consumer&consumer={}", path::topic(topic), path::encode(id));
    let actions = html! { a.button href=(at_position) { "Messages at its position" } };
    let content = html! {
        (layout::heading(&crumbs, id, &actions))
        div.columns-wide {
            (part(console, consumer).await)
            div.stack {
                (seek(visitor, consumer, shown))
                (take_overs(visitor, topic, id).await)
            }
        }
    };
    layout::page(visitor, Place::Topics, id, &content)
}

/// The part that changes.
pub(super) async fn show_part(
    Shared(console): Shared<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    Path((topic, id)): Path<(String, String)>,
) -> Result<Markup, Problem> {
    let consumer = find(&visitor, &topic, &id).await?;
    Ok(part(&console, &consumer).await)
}

async fn find(visitor: &Visitor, topic: &str, id: &str) -> Result<Consumer, Problem> {
    let request = GetConsumerRequest { topic: topic.to_owned(), consumer_id: id.to_owned() };
    let found = visitor.calls.consumers().get_consumer(request).await?.into_inner();
    found.consumer.ok_or_else(|| Problem::not_found("the consumer is gone"))
}

async fn part(console: &Console, consumer: &Consumer) -> Markup {
    let Consumer { topic, consumer_id, .. } = consumer;
    let snapshot = console.overview.current().await.ok();
    let is_it = |it: &&ConsumerState| it.topic.as_str() == topic && it.id.as_str() == consumer_id;
    let state = snapshot.as_ref().and_then(|snapshot| snapshot.consumers.iter().find(is_it));
    let lags = state.map(|state| console.overview.lag_lately(state.key)).unwrap_or_default();
    let load = console.broker.load();
    let standbys = load.waiting.iter().find(|waiting| {
        waiting.topic.as_str() == topic && waiting.consumer.as_str() == consumer_id
    });
    let again = format!("{}/now", path::consumer(topic, consumer_id));
    html! {
        div.stack id="consumer-live" hx-get=(again) hx-trigger="every 2s" hx-swap="outerHTML" {
            dl.facts {
                div { dt { "Position" } dd { (format::number(consumer.position)) } }
                div { dt { "Head" } dd { (format::number(consumer.head)) } }
                div {
                    dt { "Lag" }
                    dd { (format::number(consumer.lag)) " " span.muted { (format::plural(consumer.lag, "message")) } }
                }
                div {
                    dt { "Lag in time" }
                    dd {
                        @match state {
                            Some(state) => (format::duration(state.behind)),
                            None => span.muted { "not known" },
                        }
                    }
                }
                div {
                    dt { "Holder" }
                    dd {
                        @if consumer.holder.is_empty() && consumer.lag > 0 {
                            span.dot.dot-warn { "nobody" }
                        } @else {
                            (topic::holder(consumer))
                        }
                    }
                }
                div {
                    dt { "Standbys of this broker" }
                    dd { (standbys.map_or(0, |waiting| waiting.streams)) }
                }
                div {
                    dt { "Position moved" }
                    dd {
                        @match state {
                            Some(state) => { (format::duration(state.unchanged_for)) " ago" }
                            None => (format::ago(consumer.last_activity_time)),
                        }
                    }
                }
                div { dt { "Epoch" } dd { (consumer.epoch) } }
                @if !consumer.owner.is_empty() { div { dt { "Owner" } dd { (consumer.owner) } } }
            }
            figure.card aria-labelledby="lag-title" {
                figcaption.card-head {
                    h2 id="lag-title" { "Lag in messages, last hour" }
                    span.muted { "while somebody watched or scraped this broker" }
                }
                div.card-body { (chart::lag(&lags, Instant::now())) }
            }
        }
    }
}

/// Where a form asks to put the position.
fn target_of(wanted: &HashMap<String, String>, consumer: &Consumer) -> Result<Target, Problem> {
    let of = |field: &str| wanted.get(field).map(String::as_str).unwrap_or_default();
    let at = |problem: Problem, field: &str| problem.at(Some(field.to_owned()));
    match of("to") {
        "earliest" => Ok(Target::Edge(LogEdge::Earliest.into())),
        "latest" => Ok(Target::Edge(LogEdge::Latest.into())),
        "offset" => {
            let offset = messages::offset(of("offset"));
            offset.map(Target::Offset).map_err(|problem| at(problem, "offset"))
        }
        "time" => {
            let time = messages::time(of("time"));
            time.map(Target::Time).map_err(|problem| at(problem, "time"))
        }
        "by" => match of("by").trim().replace(',', "").parse::<i64>() {
            Ok(by) => Ok(Target::Offset(consumer.position.saturating_add(by).max(0))),
            Err(_) => Err(Problem::invalid("by", "must be a number, such as -10 or 100")),
        },
        _ => Err(Problem::invalid("to", "must be one of the list")),
    }
}

/// The message that the consumer would get next; `None` at the head.
async fn preview(
    visitor: &Visitor,
    topic: &str,
    target: Target,
) -> Result<Option<Message>, Problem> {
    let start = match target {
        Target::Edge(edge) => Start::Edge(edge),
        Target::Offset(offset) => Start::Offset(offset),
        Target::Time(time) => Start::Time(time),
    };
    let request =
        ReadMessagesRequest { topic: topic.to_owned(), start: Some(start), max_messages: 1 };
    let read = visitor.calls.topics().read_messages(request).await?.into_inner();
    Ok(read.messages.into_iter().next())
}

fn seek(visitor: &Visitor, consumer: &Consumer, shown: &Shown<'_>) -> Markup {
    let at = path::consumer(&consumer.topic, &consumer.consumer_id);
    let chosen = shown.value("to", "offset");
    let targets = [
        ("offset", "an offset"),
        ("time", "a time"),
        ("by", "its position ±"),
        ("earliest", "the oldest message"),
        ("latest", "the end of the log"),
    ];
    html! {
        section.card aria-labelledby="seek-title" {
            div.card-head { h2 id="seek-title" { "Seek" } }
            form.card-body id="seek-form" method="post" action=(format!("{at}/seek"))
                hx-get=(format!("{at}/preview")) hx-params="not csrf"
                hx-target="#seek-preview" hx-trigger="change, input changed delay:300ms" {
                (form::proof(visitor))
                p.muted { "A running stream continues from there at once." }
                div.field {
                    label for="to" { "Move the position to" }
                    select id="to" name="to" {
                        @for (name, text) in targets { option value=(name) selected[name == chosen] { (text) } }
                    }
                }
                div data-when="to offset" { (shown.field("offset", "Offset", "", "such as 1234")) }
                div data-when="to time" {
                    (shown.field("time", "Time", "", "in UTC, such as 2026-11-29T08:30:00Z, or an age such as -15m"))
                }
                div data-when="to by" {
                    (shown.field("by", "Messages", "", "such as -10, to get the last ten again"))
                }
                (shown.elsewhere(&["offset", "time", "by"]))
                div id="seek-preview" role="status" {}
                div.row { button.button.button-main type="submit" { "Seek" } }
            }
        }
    }
}

/// Shows the message that the consumer would get next.
pub(super) async fn show_preview(
    Extension(visitor): Extension<Visitor>,
    Path((topic, id)): Path<(String, String)>,
    Query(wanted): Query<HashMap<String, String>>,
) -> Markup {
    let previewed = async {
        let consumer = find(&visitor, &topic, &id).await?;
        preview(&visitor, &topic, target_of(&wanted, &consumer)?).await
    };
    match previewed.await {
        Ok(Some(message)) => html! {
            p { "The next message would be the one at offset " (message.offset) ":" }
            pre.payload { code { (one_line(&message.payload)) } }
        },
        Ok(None) => html! { p { "The consumer would wait for the next message." } },
        Err(problem) => html! { p.field-error { (problem.text()) } },
    }
}

/// Moves the position.
pub(super) async fn seek_to(
    Shared(console): Shared<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    Path((topic, id)): Path<(String, String)>,
    Form(sent): Sent,
) -> Result<Response, Problem> {
    form::check_proof(&visitor, &sent)?;
    let consumer = find(&visitor, &topic, &id).await?;
    let sought = async {
        let target = Some(target_of(&sent, &consumer)?);
        let (topic, consumer_id) = (topic.clone(), id.clone());
        let request = SeekRequest { topic, consumer_id, target };
        visitor.calls.consumers().seek(request).await?;
        Ok::<_, Problem>(())
    };
    match sought.await {
        Ok(()) => Ok(Redirect::to(&path::consumer(&topic, &id)).into_response()),
        Err(problem) => {
            let shown = Shown::again(&sent, &problem);
            let page = page(&console, &visitor, &consumer, &shown).await;
            Ok((problem.status, page).into_response())
        }
    }
}

/// Who took the lease over lately, if the visitor may see the audit.
async fn take_overs(visitor: &Visitor, topic: &str, id: &str) -> Markup {
    if !visitor.is_administrator() {
        return html! {};
    }
    let request =
        ListAuditRequest { topic: topic.to_owned(), page_size: 1_000, ..Default::default() };
    let Ok(listed) = visitor.calls.access().list_audit(request).await else { return html! {} };
    let subject = format!("consumer {id}");
    let is_one = |record: &&AuditRecord| record.act == "take_over" && record.subject == subject;
    let records = listed.into_inner().records;
    let taken: Vec<_> = records.iter().filter(is_one).take(TAKE_OVERS).collect();
    let detail =
        |record: &AuditRecord, name: &str| record.details.get(name).cloned().unwrap_or_default();
    html! {
        section.card aria-labelledby="take-overs-title" {
            div.card-head { h2 id="take-overs-title" { "Take-overs" } }
            @if taken.is_empty() {
                div.card-body { p.muted { "No stream has taken the lease over lately." } }
            } @else {
                table.grid {
                    thead {
                        tr {
                            th scope="col" { "Time" }
                            th scope="col" { "By" }
                            th.num.w-s scope="col" { "Epoch" }
                        }
                    }
                    tbody {
                        @for record in taken {
                            tr {
                                th scope="row" { (format::time(record.time)) }
                                td data-label="By" {
                                    @if record.principal.is_empty() {
                                        (record.address)
                                    } @else {
                                        (record.principal)
                                    }
                                }
                                td.num data-label="Epoch" { (detail(record, "epoch")) }
                            }
                        }
                    }
                }
            }
        }
    }
}
