//! Publishes a message by hand.

use std::collections::HashMap;

use axum::{
    Extension, Form,
    extract::{Path, Query},
    response::{IntoResponse as _, Redirect, Response},
};
use bytes::Bytes;
use maud::{Markup, html};
use serde::Deserialize;
use tonic::Code;

use super::{
    form::{self, Sent, Shown},
    path,
    problem::Problem,
    topic::{self, Tab},
    visitor::Visitor,
};
use crate::proto::{NewMessage, PublishRequest, RegisterProducerRequest, Topic};

/// The producer that the form suggests.
const PRODUCER: &str = "console";

/// The fields of the form.
const FIELDS: [&str; 4] = ["producer_id", "key", "headers", "payload"];

/// Where the last message was stored, and by which producer.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Done {
    published: Option<i64>,
    producer_id: Option<String>,
}

pub(super) async fn show(
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Query(done): Query<Done>,
) -> Result<Markup, Problem> {
    let found = topic::find(&visitor, &name).await?;
    Ok(page(&visitor, &found, &Shown::default(), &done))
}

fn page(visitor: &Visitor, found: &Topic, shown: &Shown<'_>, done: &Done) -> Markup {
    let producer = done.producer_id.as_deref().unwrap_or(PRODUCER);
    // Anybody can make a link that says so: only a message that is there is led to.
    let published = done.published.filter(|offset| (0..found.head).contains(offset));
    let content = html! {
        div.stack {
            @if let Some(offset) = published {
                p.notice.is-ok role="status" {
                    span {
                        "Published at offset "
                        a href=(path::message(&found.name, offset)) { (offset) } "."
                    }
                }
            }
            (shown.elsewhere(&FIELDS))
            section.card aria-label="Message" {
                form.card-body.form method="post"
                    action=(format!("{}/publish", path::topic(&found.name))) {
                    (form::proof(visitor))
                    (shown.field("producer_id", "Producer", producer, "only registered producers publish"))
                    label.check {
                        input type="checkbox" name="register" value="yes"
                            checked[shown.checked("register", "producer_id", true)];
                        span { "Register this producer if it is missing" }
                    }
                    (shown.field("key", "Key", "", "optional"))
                    (shown.area("headers", "Headers", "", "one a line, such as from=console", 3))
                    (shown.area("payload", "Payload", "", "sent as UTF-8 text", 10))
                    div.row { button.button.button-main type="submit" { "Publish" } }
                }
            }
        }
    };
    topic::page(visitor, found, Tab::Publish, &content)
}

/// Publishes what a form sent.
pub(super) async fn publish(
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Form(sent): Sent,
) -> Result<Response, Problem> {
    form::check_proof(&visitor, &sent)?;
    let found = topic::find(&visitor, &name).await?;
    match store(&visitor, &name, &sent).await {
        Ok(offset) => {
            // Led elsewhere, so that a page that is loaded again does not publish again.
            let producer = sent.get("producer_id").map(|id| id.trim()).unwrap_or_default();
            let (at, producer) = (path::topic(&name), path::encode(producer));
            let target = format!("{at}/publish?published={offset}&producer_id={producer}");
            Ok(Redirect::to(&target).into_response())
        }
        Err(problem) => {
            let page = page(&visitor, &found, &Shown::again(&sent, &problem), &Done::default());
            Ok((problem.status, page).into_response())
        }
    }
}

async fn store(
    visitor: &Visitor,
    topic: &str,
    sent: &HashMap<String, String>,
) -> Result<i64, Problem> {
    let of = |field: &str| sent.get(field).cloned().unwrap_or_default();
    let producer_id = of("producer_id").trim().to_owned();
    if producer_id.is_empty() {
        return Err(Problem::invalid("producer_id", "must not be empty"));
    }
    if sent.contains_key("register") {
        let (topic, producer_id) = (topic.to_owned(), producer_id.clone());
        let request =
            RegisterProducerRequest { topic, producer_id, if_missing: true, ..Default::default() };
        visitor.calls.producers().register_producer(request).await.map_err(of_form)?;
    }
    let key = of("key");
    let message = NewMessage {
        // A browser sends line breaks as two characters.
        payload: Bytes::from(of("payload").replace("\r\n", "\n")),
        key: (!key.is_empty()).then(|| Bytes::from(key)),
        headers: form::pairs("headers", &of("headers"))?,
        ..NewMessage::default()
    };
    let topic = topic.to_owned();
    let request =
        PublishRequest { topic, producer_id, messages: vec![message], ..Default::default() };
    let stored = visitor.calls.producers().publish(request).await.map_err(of_form)?;
    Ok(stored.into_inner().first_offset)
}

/// What is wrong, at the field of the form that it concerns.
fn of_form(status: tonic::Status) -> Problem {
    let is_of_producer = status.code() == Code::PermissionDenied;
    let problem = Problem::from(status);
    let field = match problem.field.as_deref() {
        Some(field) if field.contains("headers") => Some("headers".to_owned()),
        Some(field) if field.contains("messages") => Some("payload".to_owned()),
        Some(field) => Some(field.to_owned()),
        None if is_of_producer => Some("producer_id".to_owned()),
        None => None,
    };
    problem.at(field)
}
