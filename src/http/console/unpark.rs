//! Delivers parked messages again or forgets them, once that is confirmed on a page of its own.

use std::collections::HashMap;

use axum::{
    Extension, Form,
    extract::Path,
    response::{IntoResponse as _, Redirect, Response},
};
use maud::{Markup, html};

use super::{
    form::{self, Sent, Shown},
    format,
    layout::{self, Place},
    parked::CHOSEN,
    path,
    problem::Problem,
    subscription,
    visitor::Visitor,
};
use crate::proto::{DiscardParkedRequest, ReplayParkedRequest, Subscription};

/// What becomes of parked messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Replay,
    Discard,
}

/// The messages that a form is about; none for all.
struct Chosen {
    act: Act,
    offsets: Vec<i64>,
}

impl Chosen {
    fn of(sent: &HashMap<String, String>) -> Result<Self, Problem> {
        let (act, is_all) = match sent.get("act").map(String::as_str) {
            Some("replay") => (Act::Replay, false),
            Some("replay-all") => (Act::Replay, true),
            Some("discard") => (Act::Discard, false),
            Some("discard-all") => (Act::Discard, true),
            _ => return Err(Problem::invalid("act", "must be one of the buttons")),
        };
        if is_all {
            return Ok(Self { act, offsets: Vec::new() });
        }
        let chosen = sent.keys().filter_map(|name| name.strip_prefix(CHOSEN)?.parse().ok());
        let mut offsets: Vec<i64> = chosen.collect();
        offsets.sort_unstable();
        match offsets.is_empty() {
            true => Err(Problem::invalid("parked", "choose messages first")),
            false => Ok(Self { act, offsets }),
        }
    }

    /// What the form says that asks for it.
    fn act_field(&self) -> &'static str {
        match (self.act, self.offsets.is_empty()) {
            (Act::Replay, true) => "replay-all",
            (Act::Replay, false) => "replay",
            (Act::Discard, true) => "discard-all",
            (Act::Discard, false) => "discard",
        }
    }
}

/// Asks whether it is meant, and then does it.
pub(super) async fn unpark(
    Extension(visitor): Extension<Visitor>,
    Path((topic, id)): Path<(String, String)>,
    Form(sent): Sent,
) -> Result<Response, Problem> {
    form::check_proof(&visitor, &sent)?;
    let subscription = subscription::find(&visitor, &topic, &id).await?;
    let done = async {
        let chosen = Chosen::of(&sent)?;
        if !sent.contains_key("confirmed") {
            return Ok(Some(confirmation(&visitor, &subscription, &chosen)));
        }
        act(&visitor, &subscription, &chosen).await?;
        Ok::<_, Problem>(None)
    };
    match done.await {
        Ok(Some(confirmation)) => Ok(confirmation.into_response()),
        Ok(None) => Ok(Redirect::to(&path::subscription(&topic, &id)).into_response()),
        Err(problem) => {
            let shown = Shown::again(&sent, &problem);
            let page = subscription::page(&visitor, &subscription, "", &shown).await;
            Ok((problem.status, page).into_response())
        }
    }
}

async fn act(
    visitor: &Visitor,
    subscription: &Subscription,
    Chosen { act, offsets }: &Chosen,
) -> Result<(), Problem> {
    let Subscription { topic, subscription_id, .. } = subscription;
    let (topic, subscription_id) = (topic.clone(), subscription_id.clone());
    let mut calls = visitor.calls.subscriptions();
    let ranges = Vec::new();
    loop {
        let (topic, subscription_id) = (topic.clone(), subscription_id.clone());
        let (offsets, ranges) = (offsets.clone(), ranges.clone());
        let (count, has_more) = match act {
            Act::Replay => {
                let request = ReplayParkedRequest { topic, subscription_id, offsets, ranges };
                let answer = calls.replay_parked(request).await?.into_inner();
                (answer.replayed, answer.has_more)
            }
            Act::Discard => {
                let request = DiscardParkedRequest { topic, subscription_id, offsets, ranges };
                let answer = calls.discard_parked(request).await?.into_inner();
                (answer.discarded, answer.has_more)
            }
        };
        if !has_more || count == 0 {
            return Ok(());
        }
    }
}

/// The page that asks whether it is meant.
fn confirmation(visitor: &Visitor, subscription: &Subscription, chosen: &Chosen) -> Markup {
    let Subscription { topic, subscription_id: id, parked_messages, .. } = subscription;
    let at = path::subscription(topic, id);
    let (title, what, button) = match chosen.act {
        Act::Replay => {
            ("Replay messages?", "will be delivered again, as if for the first time", "Replay")
        }
        Act::Discard => {
            ("Discard messages?", "will be forgotten; the topic's log does not change", "Discard")
        }
    };
    let which = match chosen.offsets.len() as i64 {
        0 => format!("All {} parked messages", format::number(*parked_messages)),
        1 => "1 parked message".to_owned(),
        count => format!("{} parked messages", format::number(count)),
    };
    let content = html! {
        (layout::heading(&subscription::crumbs(topic), title, &html! {}))
        section.card.narrow aria-label=(title) {
            form.card-body method="post" action=(format!("{at}/parked")) {
                (form::proof(visitor))
                input type="hidden" name="act" value=(chosen.act_field());
                input type="hidden" name="confirmed" value="yes";
                @for offset in &chosen.offsets {
                    input type="hidden" name=(format!("{CHOSEN}{offset}")) value="yes";
                }
                p { (which) " of subscription " strong { (id) } " " (what) "." }
                div.row {
                    button.button.button-main type="submit" { (button) }
                    a.button href=(at) { "Cancel" }
                }
            }
        }
    };
    layout::page(visitor, Place::Topics, title, &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(names: &[(&str, &str)]) -> HashMap<String, String> {
        names.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_form_names_messages_or_means_all_of_them() {
        let form = [("act", "discard"), ("offset-17", "yes"), ("offset-4", "yes"), ("csrf", "x")];
        let chosen = Chosen::of(&sent(&form)).unwrap_or_else(|problem| panic!("{problem:?}"));
        assert_eq!((chosen.act_field(), &chosen.offsets[..]), ("discard", &[4, 17][..]));
        let chosen = Chosen::of(&sent(&[("act", "replay-all"), ("offset-17", "yes")]));
        let chosen = chosen.unwrap_or_else(|problem| panic!("{problem:?}"));
        assert_eq!((chosen.act_field(), &chosen.offsets[..]), ("replay-all", &[][..]));
        // No choice must not mean all.
        for form in [&[("act", "discard")][..], &[("act", "discard"), ("offset-x", "yes")], &[]] {
            assert!(Chosen::of(&sent(form)).is_err(), "{form:?}");
        }
    }
}
