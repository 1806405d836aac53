//! The list of a topic's subscriptions.

use std::collections::HashMap;

use axum::{
    Extension,
    extract::{Path, Query},
    http::StatusCode,
};
use maud::{Markup, html};

use super::{
    format, layout, path,
    problem::Problem,
    subscription::{self, known, oldest},
    topic::{self, Tab},
    visitor::Visitor,
};
use crate::proto::{ListSubscriptionsRequest, Subscription};

/// How many subscriptions a page lists. How each one stands takes a call.
const PAGE: i32 = 25;

pub(super) async fn show(
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Query(wanted): Query<HashMap<String, String>>,
) -> Result<Markup, Problem> {
    let topic = topic::find(&visitor, &name).await?;
    let page_token = wanted.get("page").cloned().unwrap_or_default();
    let is_first = page_token.is_empty();
    let request = ListSubscriptionsRequest { topic: name.clone(), page_size: PAGE, page_token };
    let listed = visitor.calls.subscriptions().list_subscriptions(request).await?.into_inner();
    let mut subscriptions = Vec::new();
    for listed in listed.subscriptions {
        match subscription::find(&visitor, &name, &listed.subscription_id).await {
            Ok(found) => subscriptions.push(found),
            // It was deleted meanwhile.
            Err(problem) if problem.status == StatusCode::NOT_FOUND => {}
            Err(problem) => return Err(problem),
        }
    }
    let next = listed.next_page_token;
    let at = format!("{}/subscriptions", path::topic(&name));
    let content = html! {
        section.card {
            @if subscriptions.is_empty() && is_first {
                (layout::empty(
                    "The topic has no subscriptions",
                    "A subscription shares the topic's messages among workers.",
                    &format!("trunkline subscription create {name} resize"),
                ))
            } @else {
                (table(&subscriptions))
                @if !is_first || !next.is_empty() {
                    div.card-foot.pager {
                        @if !is_first { a.button.button-small href=(at) { "First page" } }
                        @if !next.is_empty() {
                            a.button.button-small rel="next"
                                href=(format!("{at}?page={}", path::encode(&next))) { "Next" }
                        }
                    }
                }
            }
        }
    };
    Ok(topic::page(&visitor, &topic, Tab::Subscriptions, &content))
}

fn table(subscriptions: &[Subscription]) -> Markup {
    html! {
        table.grid {
            thead {
                tr {
                    th scope="col" { "Subscription" }
                    th.num.w-m scope="col" { "Floor" }
                    th.num.w-m scope="col" { "Head" }
                    th.num.w-m scope="col" { "Unacknowledged" }
                    th.num.w-m scope="col" { "With workers" }
                    th.num.w-m scope="col" { "Oldest" }
                    th.num.w-m scope="col" { "Retried" }
                    th.num.w-m scope="col" { "Parked" }
                }
            }
            tbody { @for subscription in subscriptions { (row(subscription)) } }
        }
    }
}

fn row(subscription: &Subscription) -> Markup {
    let Subscription { topic, subscription_id: id, .. } = subscription;
    html! {
        tr {
            th.cut scope="row" { a href=(path::subscription(topic, id)) { (id) } }
            td.num data-label="Floor" { (format::number(subscription.floor)) }
            td.num data-label="Head" { (format::number(subscription.head)) }
            td.num data-label="Unacknowledged" {
                (known(subscription.unacknowledged_messages))
            }
            td.num data-label="With workers" { (known(subscription.outstanding_messages)) }
            td.num data-label="Oldest" { (oldest(subscription)) }
            td.num data-label="Retried" { (format::number(subscription.retried_messages)) }
            td.num data-label="Parked" { (format::number(subscription.parked_messages)) }
        }
    }
}
