//! The list of topics.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Query, State as Shared},
    http::HeaderMap,
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    Console, chart, format,
    layout::{self, Place},
    path,
    problem::Problem,
    visitor::Visitor,
};
use crate::{
    broker::{Snapshot, TopicOrder},
    model::TopicName,
    storage::TopicState,
};

/// How many topics a page lists.
const PAGE: usize = 50;

/// The longest text to look for.
const LONGEST: usize = 256;

/// Which topics to list, and how.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Wanted {
    /// What their names contain.
    #[serde(default)]
    q: String,
    /// What they are sorted by: the name of a column, behind a minus if the largest come first.
    #[serde(default)]
    sort: String,
    /// The page, from 1 on.
    #[serde(default)]
    page: usize,
}

/// The columns: what each sorts by, its name in a query, and its title.
const COLUMNS: [(TopicOrder, &str, &str); 5] = [
    (TopicOrder::Name, "name", "Topic"),
    (TopicOrder::PublishRate, "rate", "Messages/s"),
    (TopicOrder::Head, "head", "Head"),
    (TopicOrder::Bytes, "size", "Size"),
    (TopicOrder::LastPublished, "published", "Last published"),
];

/// What a list is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Order {
    column: TopicOrder,
    descends: bool,
}

impl Order {
    /// The order that a query names; by name if there is no such order.
    fn parse(text: &str) -> Self {
        let (descends, name) = match text.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, text),
        };
        let known = COLUMNS.into_iter().find(|(_, known, _)| *known == name);
        match known {
            Some((column, ..)) => Self { column, descends },
            None => Self { column: TopicOrder::Name, descends: false },
        }
    }

    fn text(self) -> String {
        let name = COLUMNS.iter().find(|(column, ..)| *column == self.column);
        format!("{}{}", if self.descends { "-" } else { "" }, name.map_or("name", |it| it.1))
    }

    /// Whether it is not the usual order: the names from A on, and the largest numbers first.
    fn is_reversed(self) -> bool {
        self.descends == (self.column == TopicOrder::Name)
    }
}

impl Wanted {
    fn order(&self) -> Order {
        Order::parse(&self.sort)
    }

    /// The address of the same list, in another order or at another page.
    fn url(&self, order: Order, page: usize) -> String {
        format!("/topics?q={}&sort={}&page={page}", path::encode(&self.q), order.text())
    }
}

pub(super) async fn show(
    Shared(console): Shared<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Markup {
    if headers.contains_key("hx-request") {
        return part(&console, &visitor, &wanted).await;
    }
    let actions = html! { a.button.button-main href="/topics/new" { "New topic" } };
    let content = html! {
        (layout::heading(&[], "Topics", &actions))
        div.stack {
            form.card.card-body role="search" action="/topics" hx-get="/topics"
                hx-target="#topics-live" hx-swap="outerHTML" hx-sync="#topics-live:replace"
                hx-trigger="input changed delay:200ms from:#topic-filter, submit"
                hx-replace-url="true" {
                div.field-row {
                    div.field {
                        label for="topic-filter" { "Name contains" }
                        input.size-l id="topic-filter" name="q" type="search" value=(wanted.q)
                            autocomplete="off" spellcheck="false" data-search maxlength=(LONGEST);
                    }
                    input type="hidden" name="sort" value=(wanted.order().text());
                    button.button type="submit" { "Search" }
                }
            }
            (part(&console, &visitor, &wanted).await)
        }
    };
    layout::page(&visitor, Place::Topics, "Topics", &content)
}

/// The part that changes.
async fn part(console: &Console, visitor: &Visitor, wanted: &Wanted) -> Markup {
    let section = |content: &Markup| {
        let again = wanted.url(wanted.order(), wanted.page.max(1));
        html! {
            section.card id="topics-live" hx-get=(again) hx-trigger="every 2s" hx-swap="outerHTML" {
                (content)
            }
        }
    };
    let snapshot = match console.overview.current().await {
        Ok(snapshot) => snapshot,
        Err(error) => return section(&Problem::unavailable(&error.to_string()).part()),
    };
    let order = wanted.order();
    let knows = |name: &TopicName| visitor.knows(name);
    let topics = snapshot.sort_topics(&wanted.q, &knows, order.column, order.is_reversed());
    let pages = topics.len().div_ceil(PAGE).max(1);
    let page = wanted.page.clamp(1, pages);
    // How many there are is not for those who may not know of all.
    let left_out = match visitor.is_restricted() {
        true => 0,
        false => snapshot.size.topics.saturating_sub(snapshot.topics.len() as u64),
    };
    let shown: Vec<&TopicState> =
        topics.iter().copied().skip((page - 1) * PAGE).take(PAGE).collect();
    let lately = console.overview.published_lately(shown.iter().map(|it| it.id));
    section(&html! {
        @if topics.is_empty() && !wanted.q.is_empty() {
            div.empty {
                h2 { "No topic has a name that contains “" (wanted.q) "”" }
                @if left_out > 0 {
                    p {
                        "Only the first " (format::number(snapshot.topics.len() as i64))
                        " topics by name were looked through. If it is another one, "
                        a href=(path::topic(&wanted.q)) { "open it by its whole name" } "."
                    }
                }
                p { a href="/topics" { "Show all topics" } }
            }
        } @else if topics.is_empty() {
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
                thead.stays {
                    tr {
                        @for (of, _, heading) in COLUMNS { (column(wanted, of, heading)) }
                        th.w-l scope="col" { "Last minute" }
                    }
                }
                tbody {
                    @for (topic, lately) in shown.iter().zip(&lately) {
                        (row(&snapshot, topic, lately))
                    }
                }
            }
            div.card-foot.pager {
                span { (format::number(topics.len() as i64)) " " (format::plural(topics.len() as i64, "topic")) }
                @if left_out > 0 {
                    span.muted {
                        (format::number(left_out as i64))
                        " more are not listed (--metrics-max-series)"
                    }
                }
                @if pages > 1 {
                    span.row-end { "Page " (page) " of " (pages) }
                    @if page > 1 {
                        a.button.button-small rel="prev" href=(wanted.url(order, page - 1)) {
                            "Previous"
                        }
                    }
                    @if page < pages {
                        a.button.button-small rel="next" href=(wanted.url(order, page + 1)) {
                            "Next"
                        }
                    }
                }
            }
        }
    })
}

fn column(wanted: &Wanted, column: TopicOrder, heading: &str) -> Markup {
    let order = wanted.order();
    let is_sorted = order.column == column;
    // First the largest numbers, and the names from A on.
    let descends = if is_sorted { !order.descends } else { column != TopicOrder::Name };
    let sorted = if order.descends { "descending" } else { "ascending" };
    let class = if column == TopicOrder::Name { "" } else { "num w-m" };
    html! {
        th class=(class) scope="col" aria-sort=[is_sorted.then_some(sorted)] {
            a href=(wanted.url(Order { column, descends }, 1)) { (heading) }
        }
    }
}

fn row(snapshot: &Snapshot, topic: &TopicState, lately: &[f64]) -> Markup {
    let published = topic.last_published_at().map(Into::into);
    html! {
        tr {
            th.cut scope="row" { a href=(path::topic(topic.name.as_str())) { (topic.name) } }
            td.num data-label="Messages/s" { (format::rate(snapshot.published(topic.id))) }
            td.num data-label="Head" { (format::number(topic.head.0)) }
            td.num data-label="Size" { (format::bytes(topic.bytes)) }
            td.num data-label="Last published" { (format::ago(published)) }
            td data-label="Last minute" {
                (chart::sparkline(lately, None))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_named_by_its_column_behind_a_minus_if_it_descends() {
        for text in ["name", "-name", "rate", "-rate", "head", "size", "-published"] {
            assert_eq!(Order::parse(text).text(), text);
        }
        for text in ["", "-", "nonsense", "--name"] {
            assert_eq!(Order::parse(text).text(), "name");
        }
    }
}
