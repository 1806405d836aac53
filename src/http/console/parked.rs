//! The list of a subscription's parked messages.

use maud::{Markup, html};

use super::{
    form::{self, Shown},
    format, path,
    problem::Problem,
    visitor::Visitor,
};
use crate::proto::{ListParkedRequest, ParkedMessage, Subscription};

/// How many parked messages a page lists.
const PAGE: i32 = 50;

/// The name of a message's box in the form begins with this, and its offset follows.
pub(super) const CHOSEN: &str = "offset-";

/// The list of a subscription's parked messages, from a page token on.
pub(super) async fn list(
    visitor: &Visitor,
    subscription: &Subscription,
    page_token: &str,
    shown: &Shown<'_>,
) -> Markup {
    let Subscription { topic, subscription_id: id, .. } = subscription;
    let request = ListParkedRequest {
        topic: topic.clone(),
        subscription_id: id.clone(),
        page_size: PAGE,
        page_token: page_token.to_owned(),
    };
    let listed = match visitor.calls.subscriptions().list_parked(request).await {
        Ok(listed) => listed.into_inner(),
        Err(status) => return Problem::from(status).part(),
    };
    let at = path::subscription(topic, id);
    html! {
        section.card aria-labelledby="parked-title" {
            div.card-head { h2 id="parked-title" { "Parked messages" } }
            (shown.elsewhere(&[]))
            @if listed.messages.is_empty() {
                div.card-body { p.muted { "There are none." } }
            } @else {
                form method="post" action=(format!("{at}/parked")) {
                    (form::proof(visitor))
                    (table(topic, &listed.messages))
                    div.card-foot.pager {
                        button.button type="submit" name="act" value="replay" { "Replay chosen" }
                        button.button type="submit" name="act" value="discard" { "Discard chosen" }
                        button.button type="submit" name="act" value="replay-all" { "Replay all" }
                        button.button type="submit" name="act" value="discard-all" { "Discard all" }
                        @if !page_token.is_empty() {
                            a.button.button-small href=(at) { "First page" }
                        }
                        @if !listed.next_page_token.is_empty() {
                            @let next = path::encode(&listed.next_page_token);
                            a.button.button-small rel="next" href=(format!("{at}?parked={next}")) {
                                "Next"
                            }
                        }
                    }
                }
            }
        }
    }
}

fn table(topic: &str, messages: &[ParkedMessage]) -> Markup {
    html! {
        table.grid {
            thead {
                tr {
                    th.w-m scope="col" { "Offset" }
                    th.num.w-s scope="col" { "Attempts" }
                    th.num.w-l scope="col" { "Parked" }
                    th scope="col" { "Reason" }
                }
            }
            tbody {
                @for message in messages {
                    tr {
                        th scope="row" {
                            input type="checkbox" name=(format!("{CHOSEN}{}", message.offset))
                                value="yes" aria-label=(format!("Message {}", message.offset));
                            " "
                            a href=(path::message(topic, message.offset)) {
                                (format::number(message.offset))
                            }
                        }
                        td.num data-label="Attempts" { (message.attempts) }
                        td.num data-label="Parked" { (format::ago(message.park_time)) }
                        td.wide data-label="Reason" { (message.reason) }
                    }
                }
            }
        }
    }
}
