//! The first page: whether all is well, how much goes through, and who is behind.

use std::{sync::Arc, time::Duration};

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
    broker::{Load, Snapshot},
    storage::{ConsumerState, TopicState},
};

/// How many topics and consumers the page lists.
const LISTED: usize = 10;

/// A consumer that has messages left and does not move for so long is stuck.
const STUCK: Duration = Duration::from_secs(600);

/// What is wrong, and what to do about it.
struct Trouble {
    is_severe: bool,
    what: String,
    advice: &'static str,
    /// Where more is to be seen.
    more: Option<(String, String)>,
}

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
                (health(&[database_down()]))
                (problem.part())
                (facts(console, &load))
            });
        }
    };
    let topics: Vec<_> =
        snapshot.topics.iter().filter(|topic| visitor.knows(&topic.name)).collect();
    let consumers: Vec<_> =
        snapshot.consumers.iter().filter(|it| visitor.sees_consumers(&it.topic)).collect();
    section(&html! {
        (health(&troubles(&load, &consumers)))
        (facts(console, &load))
        (rates(console, &snapshot, &topics, &consumers))
        div.columns {
            (behind(&consumers))
            (busiest(console, visitor, &topics, &snapshot))
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

fn database_down() -> Trouble {
    Trouble {
        is_severe: true,
        what: "The database does not answer".to_owned(),
        advice: "Nothing can be published or consumed until it does. The broker's log says why it does \
                 not, and the broker reconnects by itself.",
        more: None,
    }
}

/// What is wrong now.
fn troubles(load: &Load, consumers: &[&ConsumerState]) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    if !load.database_up {
        troubles.push(database_down());
    }
    if load.is_draining {
        troubles.push(Trouble {
            is_severe: false,
            what: "The broker stops".to_owned(),
            advice: "Clients go on with another broker, or once this one is started again.",
            more: None,
        });
    }
    if !load.hears_others {
        troubles.push(Trouble {
            is_severe: false,
            what: "The broker does not hear other brokers".to_owned(),
            advice: "It finds what they store by polling, up to a second later. If the database is \
                     reached through a pooler, give the broker a --direct-database-url.",
            more: None,
        });
    }
    if load.truncations > 0 {
        troubles.push(Trouble {
            is_severe: true,
            what: format!("The database has lost messages of {} topics", load.truncations),
            advice: "This broker found it since it was started, and its log names the topics and \
                     offsets. Fence the old primary, and look there for the messages.",
            more: None,
        });
    }
    if load.streams.used * 5 > load.streams.limit * 4 {
        troubles.push(Trouble {
            is_severe: false,
            what: format!("{} of {} streams are open", load.streams.used, load.streams.limit),
            advice: "Beyond the limit, streams are refused. Raise max_locks_per_transaction of \
                     PostgreSQL, or --max-streams.",
            more: None,
        });
    }
    let of = |is_such: fn(&ConsumerState) -> bool| {
        consumers.iter().copied().filter(|it| is_such(it)).collect::<Vec<_>>()
    };
    for (found, is_severe, what, advice) in [
        (
            of(|it| it.missing > 0),
            true,
            "beyond the end of the log",
            "Messages that they have had are gone. They get no more until they are sought.",
        ),
        (
            of(|it| it.lag > 0 && it.is_held && it.unchanged_for >= STUCK),
            true,
            "stuck: they have a reader and messages left, and have not moved for 10 minutes",
            "The reader may fail at the same message again and again. Look into its log.",
        ),
        (
            of(|it| it.lag > 0 && !it.is_held && it.unchanged_for >= STUCK),
            false,
            "without a reader for 10 minutes, and have messages left",
            "Start their readers, or unregister those that nobody needs any more.",
        ),
    ] {
        if let [first, ..] = found[..] {
            let (count, noun) =
                (found.len(), if found.len() == 1 { "consumer is" } else { "consumers are" });
            let more = (
                format!("{}/{}", first.topic, first.id),
                path::consumer(first.topic.as_str(), first.id.as_str()),
            );
            let what = format!("{count} {noun} {what}");
            troubles.push(Trouble { is_severe, what, advice, more: Some(more) });
        }
    }
    troubles
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
                            @if let Some((text, target)) = &trouble.more {
                                span { "For example " a href=(target) { (text) } }
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

fn rates(
    console: &Console,
    snapshot: &Snapshot,
    topics: &[&TopicState],
    consumers: &[&ConsumerState],
) -> Markup {
    let overview = &console.overview;
    let published: f64 = topics.iter().map(|it| snapshot.published(it.id)).sum();
    let consumed: f64 = consumers.iter().map(|it| snapshot.consumed(it.key)).sum();
    let published_lately = sum(overview.published_lately(topics.iter().map(|it| it.id)));
    let consumed_lately = sum(overview.consumed_lately(consumers.iter().map(|it| it.key)));
    html! {
        div.rates {
            @for (title, rate, lately) in
                [("Published", published, published_lately), ("Consumed", consumed, consumed_lately)]
            {
                section.card.rate {
                    div {
                        h2 { (title) }
                        p { (format::rate(rate)) " " small { "messages/s" } }
                    }
                    (chart::sparkline(&lately, Some(&format!("{title} messages/s over the last minute"))))
                }
            }
        }
    }
}

fn behind(consumers: &[&ConsumerState]) -> Markup {
    let mut behind: Vec<_> = consumers.iter().filter(|it| it.lag > 0).collect();
    behind.sort_by_key(|it| std::cmp::Reverse((it.behind, it.lag)));
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
    let mut busiest: Vec<_> = topics.iter().map(|it| (snapshot.published(it.id), *it)).collect();
    busiest.sort_by(|(a, x), (b, y)| b.total_cmp(a).then(y.head.cmp(&x.head)));
    busiest.truncate(LISTED);
    let lately = console.overview.published_lately(busiest.iter().map(|(_, it)| it.id));
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
                        @for ((rate, topic), lately) in busiest.iter().zip(&lately) {
                            tr {
                                th.cut scope="row" {
                                    a href=(path::topic(topic.name.as_str())) { (topic.name) }
                                }
                                td.num data-label="Messages/s" { (format::rate(*rate)) }
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
