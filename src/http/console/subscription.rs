//! A subscription: how it stands, how it delivers, and what is parked.

use std::{collections::HashMap, time::Duration};

use axum::{
    Extension,
    extract::{Path, Query},
};
use maud::{Markup, html};

use super::{
    form::Shown,
    format,
    layout::{self, Place},
    parked, path,
    problem::Problem,
    visitor::Visitor,
};
use crate::proto::{DeliveryPolicy, GetSubscriptionRequest, Subscription, stalled::Limit};

pub(super) async fn show(
    Extension(visitor): Extension<Visitor>,
    Path((topic, id)): Path<(String, String)>,
    Query(wanted): Query<HashMap<String, String>>,
) -> Result<Markup, Problem> {
    let subscription = find(&visitor, &topic, &id).await?;
    let page_token = wanted.get("parked").map(String::as_str).unwrap_or_default();
    Ok(page(&visitor, &subscription, page_token, &Shown::default()).await)
}

/// The page, with the parked messages of a page token.
pub(super) async fn page(
    visitor: &Visitor,
    subscription: &Subscription,
    page_token: &str,
    shown: &Shown<'_>,
) -> Markup {
    let Subscription { topic, subscription_id: id, .. } = subscription;
    let crumbs = crumbs(topic);
    // A subscription is a consumer, and is moved as one.
    let actions = html! { a.button href=(path::consumer(topic, id)) { "Seek" } };
    let content = html! {
        (layout::heading(&crumbs, id, &actions))
        div.columns-wide {
            div.stack {
                (facts(subscription))
                (parked::list(visitor, subscription, page_token, shown).await)
            }
            div.stack { (policy(&subscription.policy.clone().unwrap_or_default())) }
        }
    };
    layout::page(visitor, Place::Topics, id, &content)
}

/// The way to the page.
pub(super) fn crumbs(topic: &str) -> [(&str, String); 3] {
    [
        ("Topics", "/topics".to_owned()),
        (topic, path::topic(topic)),
        ("Subscriptions", format!("{}/subscriptions", path::topic(topic))),
    ]
}

/// The part that changes.
pub(super) async fn show_part(
    Extension(visitor): Extension<Visitor>,
    Path((topic, id)): Path<(String, String)>,
) -> Result<Markup, Problem> {
    Ok(facts(&find(&visitor, &topic, &id).await?))
}

pub(super) async fn find(
    visitor: &Visitor,
    topic: &str,
    id: &str,
) -> Result<Subscription, Problem> {
    let request =
        GetSubscriptionRequest { topic: topic.to_owned(), subscription_id: id.to_owned() };
    let found = visitor.calls.subscriptions().get_subscription(request).await?.into_inner();
    found.subscription.ok_or_else(|| Problem::not_found("the subscription is gone"))
}

fn facts(subscription: &Subscription) -> Markup {
    let Subscription { topic, subscription_id: id, .. } = subscription;
    let again = format!("{}/now", path::subscription(topic, id));
    let lost = subscription.lost_messages.unwrap_or(0);
    html! {
        dl.facts id="subscription-live" hx-get=(again) hx-trigger="every 2s" hx-swap="outerHTML" {
            div { dt { "Floor" } dd { (format::number(subscription.floor)) } }
            div { dt { "Head" } dd { (format::number(subscription.head)) } }
            div { dt { "Unacknowledged" } dd { (known(subscription.unacknowledged_messages)) } }
            div { dt { "Oldest of these" } dd { (oldest(subscription)) } }
            div { dt { "Workers" } dd { (known(subscription.workers.map(Into::into))) } }
            div {
                dt { "With workers" }
                dd {
                    (known(subscription.outstanding_messages))
                    @if let Some(bytes @ 1..) = subscription.outstanding_bytes {
                        " " span.muted { (format::bytes(bytes)) }
                    }
                }
            }
            div { dt { "Retried" } dd { (format::number(subscription.retried_messages)) } }
            div { dt { "Parked" } dd { (format::number(subscription.parked_messages)) } }
            div {
                dt { "Removed before they were acknowledged" }
                dd {
                    @if lost > 0 {
                        span.dot.dot-warn { (format::number(lost)) }
                    } @else {
                        (format::number(lost))
                    }
                }
            }
            @if let Some(why) = stalled(subscription) {
                div { dt { "Stalled" } dd { span.dot.dot-warn { (why) } } }
            }
            @if !subscription.owner.is_empty() {
                div { dt { "Owner" } dd { (subscription.owner) } }
            }
        }
    }
}

/// Why messages that wait are not delivered to anybody.
fn stalled(subscription: &Subscription) -> Option<&'static str> {
    match subscription.stalled_by() {
        Limit::Unspecified => None,
        Limit::Retried => Some("too many messages are to be delivered again"),
        _ => Some("workers have as many messages as they can have together"),
    }
}

fn policy(policy: &DeliveryPolicy) -> Markup {
    let time = |time: Option<prost_types::Duration>| {
        let time = time.and_then(|time| Duration::try_from(time).ok());
        time.map_or_else(|| "-".to_owned(), format::duration)
    };
    let most = |number: i64, text: String| if number > 0 { text } else { "no limit".to_owned() };
    let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let yes_or_no = |value: bool| if value { "yes" } else { "no" }.to_owned();
    let DeliveryPolicy { max_deliveries, max_outstanding_messages, max_outstanding_bytes, .. } =
        *policy;
    let parked_after = match max_deliveries {
        ..=0 => "never".to_owned(),
        most => format!("{most} {}", if most == 1 { "delivery" } else { "deliveries" }),
    };
    let together = i64::from(max_outstanding_messages);
    let facts = [
        ("Acknowledgement deadline", time(policy.ack_deadline)),
        ("First wait", time(policy.min_backoff)),
        ("Longest wait", time(policy.max_backoff)),
        ("Parked after", parked_after),
        ("Filter", or_none(&policy.filter)),
        ("Dead-letter topic", or_none(&policy.dead_letter_topic)),
        ("Exactly once", yes_or_no(policy.exactly_once)),
        ("Messages of all workers", most(together, format::number(together))),
        ("Bytes of all workers", most(max_outstanding_bytes, format::bytes(max_outstanding_bytes))),
    ];
    html! {
        section.card aria-labelledby="policy-title" {
            div.card-head { h2 id="policy-title" { "How it delivers" } }
            div.card-body {
                dl.facts {
                    @for (name, value) in facts { div { dt { (name) } dd { (value) } } }
                }
            }
        }
    }
}

/// A number that may be known only to another broker.
pub(super) fn known(number: Option<i64>) -> Markup {
    html! {
        @match number {
            Some(number) => (format::number(number)),
            None => span.muted { "not known here" },
        }
    }
}

/// When the oldest message that is not acknowledged was stored.
pub(super) fn oldest(subscription: &Subscription) -> Markup {
    html! {
        @match subscription.oldest_unacknowledged_time {
            Some(time) => (format::ago(Some(time))),
            None => span.muted { "-" },
        }
    }
}
