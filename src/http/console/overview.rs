//! The first page: whether all is well, how much goes through, and who is behind.

use std::sync::Arc;

use axum::{Extension, extract::State as Shared};
use maud::{Markup, html};

use super::{
    Console, chart, format,
    layout::{self, Place},
    path,
    problem::Problem,
    visitor::Visitor,
};
use crate::{
    broker::{
        ConsumerOrder, Load, Snapshot, TopicOrder, Trouble, View, ViewRequest, find_troubles,
    },
    storage::{ConsumerState, TopicState},
};

/// How many topics and consumers the page lists.
const LISTED: usize = 10;

pub(super) async fn show(
    Shared(console): Shared<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
) -> Markup {
    let content = html! {
        (layout::heading(&[], "Overview", &html! {}))
        (part(&console, &visitor).await)
    };
    layout::page(&visitor, Place::Overview, "Overview", &content)
}

/// The part that changes.
pub(super) async fn show_part(
    Shared(console): Shared<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
) -> Markup {
    part(&console, &visitor).await
}

async fn part(console: &Console, visitor: &Visitor) -> Markup {
    let load = console.broker.load();
    let current = console.overview.current().await;
    let snapshot = match current {
        Ok(snapshot) => snapshot,
        Err(error) => {
            let problem = Problem::unavailable(&error.to_string());
            return section(&html! {
                (health(&[Trouble::database_down()]))
                (problem.part())
                (facts(console, &load))
            });
        }
    };
    let view = snapshot.view(&ViewRequest {
        topic_contains: "",
        knows: &|topic| visitor.knows(topic),
        sees_consumers: &|topic| visitor.sees_consumers(topic),
        topic_order: TopicOrder::PublishRate,
        consumer_order: ConsumerOrder::Behind,
    });
    section(&html! {
        (health(&find_troubles(&load, &view.consumers, visitor.is_restricted())))
        (facts(console, &load))
        (rates(console, &view))
        div.columns {
            (behind(&view.consumers))
            (busiest(console, visitor, &view.topics, &snapshot))
        }
    })
}

fn section(content: &Markup) -> Markup {
    html! {
        div.stack id="overview-live" hx-get="/overview" hx-trigger="every 2s" hx-swap="outerHTML" {
            (content)
        }
    }
}

fn health(troubles: &[Trouble]) -> Markup {
    let class = match troubles {
        [] => "health is-ok",
        troubles if troubles.iter().any(|trouble| trouble.is_severe) => "health is-bad",
        _ => "health is-warn",
    };
    let headline = match troubles {
        [] => "All is well".to_owned(),
        [one] => one.what.clone(),
        several => format!("{} things need attention", several.len()),
    };
    html! {
        section class=(class) id="health" aria-label="Health" data-announce=(headline) {
            h2 { (headline) }
            @if troubles.is_empty() {
                p { "The database answers, and no consumer waits for a reader." }
            } @else {
                ul {
                    @for trouble in troubles {
                        li {
                            @if troubles.len() > 1 { strong { (trouble.what) } }
                            span { (trouble.advice) }
                            @if let Some((topic, id)) = &trouble.example {
                                span {
                                    "For example "
                                    a href=(path::consumer(topic.as_str(), id.as_str())) {
                                        (topic) "/" (id)
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn facts(console: &Console, load: &Load) -> Markup {
    let counts = (console.connections)();
    let dot = |is_well: bool, well: &'static str, ill: &'static str| {
        html! {
            @if is_well { span.dot.dot-ok { (well) } } @else { span.dot.dot-bad { (ill) } }
        }
    };
    html! {
        dl.facts {
            div { dt { "Database" } dd { (dot(load.database_up, "Answers", "Does not answer")) } }
            div { dt { "Broker" } dd { "Trunkline " (env!("CARGO_PKG_VERSION")) } }
            div { dt { "Running for" } dd { (format::duration(console.started.elapsed())) } }
            div {
                dt { "Streams of consumers" }
                dd { (load.streams.used) span.muted { " of " (load.streams.limit) } }
            }
            div { dt { "Connections" } dd { (counts.open) span.muted { " of " (counts.limit) } } }
        }
    }
}

/// Sums of several histories, which end at the same moment.
fn sum(histories: Vec<Vec<f64>>) -> Vec<f64> {
    let mut total: Vec<f64> = Vec::new();
    for history in histories {
        if history.len() > total.len() {
            let missing = history.len() - total.len();
            total.splice(0..0, std::iter::repeat_n(0.0, missing));
        }
        let begin = total.len() - history.len();
        total[begin..].iter_mut().zip(history).for_each(|(total, value)| *total += value);
    }
    total
}

fn rates(console: &Console, view: &View<'_>) -> Markup {
    let overview = &console.overview;
    let View { topics, consumers, publish_rate, consume_rate, .. } = view;
    let published_lately = sum(overview.published_lately(topics.iter().map(|it| it.id)));
    let consumed_lately = sum(overview.consumed_lately(consumers.iter().map(|it| it.key)));
    html! {
        div.rates {
            @for (title, rate, lately) in
                [("Published", publish_rate, published_lately), ("Consumed", consume_rate, consumed_lately)]
            {
                section.card.rate {
                    div {
                        h2 { (title) }
                        p { (format::rate(*rate)) " " small { "messages/s" } }
                    }
                    (chart::sparkline(&lately, Some(&format!("{title} messages/s over the last minute"))))
                }
            }
        }
    }
}

fn behind(consumers: &[&ConsumerState]) -> Markup {
    let behind: Vec<_> = consumers.iter().filter(|it| it.lag > 0).collect();
    html! {
        section.card {
            div.card-head { h2 { "Consumers that are behind" } }
            @if consumers.is_empty() {
                (layout::empty(
                    "There are no consumers yet",
                    "A consumer has a position in a topic, which it keeps.",
                    "trunkline consume orders --consumer billing --register",
                ))
            } @else if behind.is_empty() {
                div.card-body { p.muted { "All consumers have caught up." } }
            } @else {
                table.grid {
                    thead {
                        tr {
                            th scope="col" { "Consumer" }
                            th.num.w-m scope="col" { "Messages" }
                            th.num.w-m scope="col" { "Time" }
                        }
                    }
                    tbody {
                        @for it in behind.iter().take(LISTED) {
                            tr {
                                th scope="row" {
                                    a href=(path::consumer(it.topic.as_str(), it.id.as_str())) {
                                        (it.topic) "/" (it.id)
                                    }
                                    @if !it.is_held { " " span.tag { "no reader" } }
                                }
                                td.num data-label="Messages" { (format::number(it.lag)) }
                                td.num data-label="Time" { (format::duration(it.behind)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn busiest(
    console: &Console,
    visitor: &Visitor,
    topics: &[&TopicState],
    snapshot: &Snapshot,
) -> Markup {
    let busiest = &topics[..topics.len().min(LISTED)];
    let lately = console.overview.published_lately(busiest.iter().map(|it| it.id));
    html! {
        section.card {
            div.card-head {
                h2 { "Busiest topics" }
                @if !topics.is_empty() { a.row-end href="/topics?sort=-rate" { "All topics" } }
            }
            @if topics.is_empty() {
                (layout::empty(
                    "There are no topics yet",
                    match visitor.is_restricted() {
                        false => "Messages are published to topics.",
                        true => "There are none on which you have a right.",
                    },
                    "trunkline topic create orders",
                ))
            } @else {
                table.grid {
                    thead {
                        tr {
                            th scope="col" { "Topic" }
                            th.num.w-m scope="col" { "Messages/s" }
                            th.w-l scope="col" { "Last minute" }
                        }
                    }
                    tbody {
                        @for (topic, lately) in busiest.iter().zip(&lately) {
                            tr {
                                th.cut scope="row" {
                                    a href=(path::topic(topic.name.as_str())) { (topic.name) }
                                }
                                td.num data-label="Messages/s" { (format::rate(snapshot.published(topic.id))) }
                                td data-label="Last minute" {
                                    (chart::sparkline(lately, None))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_are_added_from_their_ends() {
        let histories = vec![vec![1.0, 2.0], vec![10.0, 20.0, 30.0], vec![]];
        assert_eq!(sum(histories), [10.0, 21.0, 32.0]);
        assert!(sum(Vec::new()).is_empty());
    }
}
