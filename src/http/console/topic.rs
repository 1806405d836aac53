//! What the pages of a topic have in common, and the lists of its producers and consumers.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension,
    extract::{Path, State as Shared},
};
use maud::{Markup, html};

use super::{
    Console, format,
    layout::{self, Place},
    path,
    problem::Problem,
    visitor::Visitor,
};
use crate::{
    proto::{
        Consumer, GetTopicRequest, ListConsumersRequest, ListProducersRequest, Producer, Retention,
        Topic,
    },
    storage::ConsumerState,
};

/// How many producers or consumers a page lists.
const LISTED: i32 = 1_000;

/// A page of a topic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Messages,
    Tail,
    Consumers,
    Subscriptions,
    Producers,
    Publish,
    Settings,
}

/// A topic, if there is one that the visitor may know of.
pub(super) async fn find(visitor: &Visitor, name: &str) -> Result<Topic, Problem> {
    let request = GetTopicRequest { topic: name.to_owned() };
    let found = visitor.calls.topics().get_topic(request).await?.into_inner();
    found.topic.ok_or_else(|| Problem::not_found("the topic is gone"))
}

/// A page of a topic.
pub(super) fn page(visitor: &Visitor, topic: &Topic, tab: Tab, content: &Markup) -> Markup {
    let tabs = [
        (Tab::Messages, "", "Messages"),
        (Tab::Tail, "/tail", "Live tail"),
        (Tab::Consumers, "/consumers", "Consumers"),
        (Tab::Subscriptions, "/subscriptions", "Subscriptions"),
        (Tab::Producers, "/producers", "Producers"),
        (Tab::Publish, "/publish", "Publish"),
        (Tab::Settings, "/settings", "Settings"),
    ];
    let at = path::topic(&topic.name);
    let content = html! {
        (layout::heading(&[("Topics", "/topics".to_owned())], &topic.name, &html! {}))
        @if !topic.description.is_empty() { p.muted { (topic.description) } }
        @if !topic.labels.is_empty() {
            @let mut labels: Vec<_> = topic.labels.iter().collect();
            @let () = labels.sort();
            p.tags { @for (name, value) in labels { span.tag { (name) "=" (value) } } }
        }
        (facts(topic))
        nav.tabs aria-label="Topic" {
            ul {
                @for (of, target, text) in tabs {
                    li {
                        a href=(format!("{at}{target}"))
                            aria-current=[(of == tab).then_some("page")] { (text) }
                    }
                }
            }
        }
        (content)
    };
    layout::page(visitor, Place::Topics, &topic.name, &content)
}

fn facts(topic: &Topic) -> Markup {
    let kept = topic.head - topic.first_offset;
    let again = format!("{}/facts", path::topic(&topic.name));
    html! {
        dl.facts.topic-facts id="topic-live" hx-get=(again) hx-trigger="every 2s" hx-swap="outerHTML" {
            div { dt { "Head" } dd { (format::number(topic.head)) } }
            div { dt { "Log start offset" } dd { (format::number(topic.first_offset)) } }
            div { dt { "Messages kept" } dd { (format::number(kept)) } }
            div { dt { "Size" } dd { (format::bytes(topic.bytes)) } }
            div { dt { "Last published" } dd { (format::ago(topic.last_publish_time)) } }
            div { dt { "Retention" } dd { (retention(topic.retention.as_ref())) } }
        }
    }
}

/// The part that changes.
pub(super) async fn show_facts(
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
) -> Result<Markup, Problem> {
    Ok(facts(&find(&visitor, &name).await?))
}

/// What is kept, in words.
fn retention(retention: Option<&Retention>) -> String {
    let Some(Retention { max_age, max_bytes, max_messages, keep_unread }) = retention else {
        return "everything".to_owned();
    };
    let age = max_age.and_then(|age| std::time::Duration::try_from(age).ok());
    let limits = [
        age.map(format::duration),
        (*max_bytes > 0).then(|| format::bytes(*max_bytes)),
        (*max_messages > 0).then(|| format!("{} messages", format::number(*max_messages))),
    ];
    let limits: Vec<_> = limits.into_iter().flatten().collect();
    let unread = if *keep_unread { ", and what is not read yet" } else { "" };
    match limits.is_empty() {
        true => "everything".to_owned(),
        false => format!("{}{unread}", limits.join(", ")),
    }
}

pub(super) async fn show_consumers(
    Shared(console): Shared<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
) -> Result<Markup, Problem> {
    let topic = find(&visitor, &name).await?;
    let request =
        ListConsumersRequest { topic: name, page_size: LISTED, page_token: String::new() };
    let listed = visitor.calls.consumers().list_consumers(request).await?.into_inner();
    let is_cut = !listed.next_page_token.is_empty();
    let content = html! {
        section.card {
            @if listed.consumers.is_empty() {
                (layout::empty(
                    "The topic has no consumers",
                    "A consumer has a position in the topic, which it keeps.",
                    &format!("trunkline consume {} --consumer billing --register", topic.name),
                ))
            } @else {
                (consumers(&console, &topic.name, &listed.consumers))
                @if is_cut { div.card-foot.muted { "Only the first " (LISTED) " are listed." } }
            }
        }
    };
    Ok(page(&visitor, &topic, Tab::Consumers, &content))
}

fn consumers(console: &Console, topic: &str, consumers: &[Consumer]) -> Markup {
    let snapshot = console.overview.latest();
    let listed = snapshot.iter().flat_map(|snapshot| &snapshot.consumers);
    let states: HashMap<&str, &ConsumerState> =
        listed.filter(|it| it.topic.as_str() == topic).map(|it| (it.id.as_str(), it)).collect();
    html! {
        table.grid {
            thead {
                tr {
                    th scope="col" { "Consumer" }
                    th.num.w-m scope="col" { "Position" }
                    th.num.w-m scope="col" { "Lag" }
                    th.num.w-m scope="col" { "Behind" }
                    th.w-l scope="col" { "Holder" }
                    th.num.w-m scope="col" { "Last activity" }
                }
            }
            tbody {
                @for consumer in consumers {
                    tr {
                        th.cut scope="row" {
                            a href=(path::consumer(topic, &consumer.consumer_id)) {
                                (consumer.consumer_id)
                            }
                        }
                        td.num data-label="Position" { (format::number(consumer.position)) }
                        td.num data-label="Lag" { (format::number(consumer.lag)) }
                        td.num data-label="Behind" {
                            @match states.get(consumer.consumer_id.as_str()) {
                                Some(state) => (format::duration(state.behind)),
                                None => span.muted { "-" },
                            }
                        }
                        td.cut data-label="Holder" { (holder(consumer)) }
                        td.num data-label="Last activity" {
                            (format::ago(consumer.last_activity_time))
                        }
                    }
                }
            }
        }
    }
}

/// Who has the lease of a consumer.
pub(super) fn holder(consumer: &Consumer) -> Markup {
    html! {
        @if consumer.holder.is_empty() {
            span.muted { "nobody" }
        } @else {
            (consumer.holder)
        }
    }
}

pub(super) async fn show_producers(
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
) -> Result<Markup, Problem> {
    let topic = find(&visitor, &name).await?;
    let request =
        ListProducersRequest { topic: name, page_size: LISTED, page_token: String::new() };
    let listed = visitor.calls.producers().list_producers(request).await?.into_inner();
    let content = html! {
        section.card {
            @if listed.producers.is_empty() {
                (layout::empty(
                    "The topic has no producers",
                    "Only producers that are registered publish to it.",
                    &format!("trunkline produce {} --producer web-1 --register app.log", topic.name),
                ))
            } @else {
                (producers(&listed.producers))
                @if !listed.next_page_token.is_empty() {
                    div.card-foot.muted { "Only the first " (LISTED) " are listed." }
                }
            }
        }
    };
    Ok(page(&visitor, &topic, Tab::Producers, &content))
}

fn producers(producers: &[Producer]) -> Markup {
    let or_dash = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), format::number);
    html! {
        table.grid {
            thead {
                tr {
                    th scope="col" { "Producer" }
                    th.num.w-m scope="col" { "Last offset" }
                    th.num.w-m scope="col" { "Next sequence" }
                    th.num.w-s scope="col" { "Epoch" }
                    th.num.w-l scope="col" { "Last published" }
                }
            }
            tbody {
                @for producer in producers {
                    tr {
                        th.cut scope="row" { (producer.producer_id) }
                        td.num data-label="Last offset" { (or_dash(producer.last_offset)) }
                        td.num data-label="Next sequence" {
                            (format::number(producer.next_sequence))
                        }
                        td.num data-label="Epoch" { (producer.epoch) }
                        td.num data-label="Last published" {
                            (format::ago(producer.last_publish_time))
                        }
                    }
                }
            }
        }
    }
}
