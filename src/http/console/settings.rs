//! What can be changed of a topic: its description and retention, its oldest messages, and its existence.

use std::{collections::HashMap, time::Duration};

use axum::{
    Extension, Form,
    extract::{Path, Query},
    response::{IntoResponse as _, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    form::{self, Sent, Shown},
    format,
    layout::{self, Place},
    messages, path,
    problem::Problem,
    topic::{self, Tab},
    visitor::Visitor,
};
use crate::proto::{
    CreateTopicRequest, DeleteTopicRequest, Retention, Topic, TrimTopicRequest, UpdateTopicRequest,
    trim_topic_request::Before,
};

/// The fields of the form, as it calls them.
const FIELDS: [&str; 6] =
    ["topic", "description", "labels", "retention_age", "retention_bytes", "retention_messages"];

/// What the visitor did before the page was shown.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Act {
    Save,
    Trim,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Done {
    done: Option<Act>,
}

pub(super) async fn show(
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Query(Done { done }): Query<Done>,
) -> Result<Markup, Problem> {
    let found = topic::find(&visitor, &name).await?;
    Ok(page(&visitor, &found, &Shown::default(), done))
}

fn page(visitor: &Visitor, found: &Topic, shown: &Shown<'_>, done: Option<Act>) -> Markup {
    let (at, name) = (path::topic(&found.name), &found.name);
    let confirm = |id: &str| {
        html! {
            div.field {
                label for=(id) { "Type " code { (name) } " to confirm" }
                input id=(id) name=(id) autocomplete="off" spellcheck="false" data-confirms=(name)
                    aria-invalid=[shown.problem(id).map(|_| "true")]
                    aria-describedby=[shown.problem(id).map(|_| format!("{id}-error"))];
                (layout::field_error(id, shown.problem(id)))
            }
        }
    };
    // Anybody can make a link that says so: the notice holds even if nothing was done.
    let notice = done.map(|act| match act {
        Act::Save => html! { "The topic is stored as shown here." },
        Act::Trim => {
            html! { "The log starts at offset " (format::number(found.first_offset)) " now." }
        }
    });
    let content = html! {
        div.stack {
            @if let Some(notice) = notice { p.notice.is-ok role="status" { (notice) } }
            (shown.elsewhere(&[&FIELDS[..], &["before", "trim-confirm", "delete-confirm"]].concat()))
            section.card aria-labelledby="about-title" {
                div.card-head { h2 id="about-title" { "Description and retention" } }
                form.card-body.form method="post" action=(format!("{at}/settings")) {
                    (form::proof(visitor))
                    (about(shown, Some(found)))
                    div.row { button.button.button-main type="submit" { "Save" } }
                }
            }
            section.card.danger aria-labelledby="trim-title" {
                div.card-head { h2 id="trim-title" { "Trim" } }
                form.card-body.form method="post" action=(format!("{at}/trim")) {
                    (form::proof(visitor))
                    p { "Removes all messages before an offset or a time, read or not. This cannot be undone." }
                    (shown.field("before", "Remove what lies before", "", "an offset such as 1234, a time in UTC such as 2026-11-29T08:30:00Z, or an age such as -1h"))
                    (confirm("trim-confirm"))
                    div.row { button.button.button-bad type="submit" { "Trim" } }
                }
            }
            section.card.danger aria-labelledby="delete-title" {
                div.card-head { h2 id="delete-title" { "Delete the topic" } }
                form.card-body.form method="post" action=(format!("{at}/delete")) {
                    (form::proof(visitor))
                    p {
                        "Deletes " strong { (name) } " with its "
                        (format::number(found.head - found.first_offset))
                        " messages, its consumers and producers. This cannot be undone."
                    }
                    (confirm("delete-confirm"))
                    div.row { button.button.button-bad type="submit" { "Delete" } }
                }
            }
        }
    };
    topic::page(visitor, found, Tab::Settings, &content)
}

/// The fields of a topic's description and retention.
fn about(shown: &Shown<'_>, topic: Option<&Topic>) -> Markup {
    let retention = topic.and_then(|topic| topic.retention).unwrap_or_default();
    let description = topic.map(|topic| topic.description.clone()).unwrap_or_default();
    let mut labels: Vec<String> = topic
        .iter()
        .flat_map(|topic| topic.labels.iter())
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    labels.sort();
    let age = retention.max_age.and_then(|age| Duration::try_from(age).ok());
    let age = age.map(|age| humantime::format_duration(age).to_string()).unwrap_or_default();
    let number = |value: i64| if value > 0 { value.to_string() } else { String::new() };
    let keeps = shown.checked("keep_unread", "retention_age", retention.keep_unread);
    html! {
        (shown.field("description", "Description", &description, "in your own words"))
        (shown.area("labels", "Labels", &labels.join("\n"), "one a line, such as team=shop", 3))
        fieldset.stack {
            legend { "Retention" }
            p.hint {
                "Without a limit, messages are kept for ever. Whichever limit is exceeded first removes \
                 the oldest ones."
            }
            div.field-row {
                (shown.field("retention_age", "Age", &age, "such as 7d or 12h"))
                (shown.field("retention_bytes", "Bytes", &number(retention.max_bytes), "such as 10GiB"))
                (shown.field("retention_messages", "Messages", &number(retention.max_messages), "a number"))
            }
            label.check {
                input type="checkbox" name="keep_unread" value="yes" checked[keeps];
                span { "Keep what the slowest consumer has not read, whatever the limits say" }
            }
        }
    }
}

/// The retention that a form asks for.
fn retention(sent: &HashMap<String, String>) -> Result<Retention, Problem> {
    let of = |field: &str| sent.get(field).map(|value| value.trim()).unwrap_or_default();
    let age = match of("retention_age") {
        "" => None,
        age => match humantime::parse_duration(age).map(prost_types::Duration::try_from) {
            Ok(Ok(age)) => Some(age),
            _ => {
                return Err(Problem::invalid("retention_age", "must be a time, such as 7d or 12h"));
            }
        },
    };
    let bytes = match of("retention_bytes") {
        "" => 0,
        bytes => match parse_bytes(bytes) {
            Some(bytes) => bytes,
            None => {
                let text = "must be a size, such as 500MB or 10GiB";
                return Err(Problem::invalid("retention_bytes", text));
            }
        },
    };
    let messages = match of("retention_messages") {
        "" => 0,
        messages => match messages.replace([',', '_'], "").parse() {
            Ok(messages) => messages,
            Err(_) => return Err(Problem::invalid("retention_messages", "must be a number")),
        },
    };
    Ok(Retention {
        max_age: age,
        max_bytes: bytes,
        max_messages: messages,
        keep_unread: sent.contains_key("keep_unread"),
    })
}

/// A size as people write it: `10GiB`, `500 MB` or `1024`.
fn parse_bytes(text: &str) -> Option<i64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let factor: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "kib" => 1_024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        "tib" => 1_099_511_627_776.0,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor;
    (1.0..9e18).contains(&bytes).then_some(bytes as i64)
}

/// The API's name of a field, as the form calls it.
fn of_form(problem: Problem) -> Problem {
    let field = problem.field.as_deref().map(|field| match field {
        "retention.max_age" => "retention_age",
        "retention.max_bytes" => "retention_bytes",
        "retention.max_messages" => "retention_messages",
        field if field.starts_with("labels") => "labels",
        "before" | "offset" | "time" => "before",
        other => other,
    });
    let field = field.map(str::to_owned);
    problem.at(field)
}

/// Changes the description, the labels and the retention.
pub(super) async fn save(
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Form(sent): Sent,
) -> Result<Response, Problem> {
    form::check_proof(&visitor, &sent)?;
    let saved = async {
        let of = |field: &str| sent.get(field).cloned().unwrap_or_default();
        let request = UpdateTopicRequest {
            topic: name.clone(),
            description: of("description").trim().to_owned(),
            labels: form::pairs("labels", &of("labels"))?,
            retention: Some(retention(&sent)?),
            update_mask: Some(prost_types::FieldMask {
                paths: ["description", "labels", "retention"].map(str::to_owned).into(),
            }),
        };
        visitor.calls.topics().update_topic(request).await?;
        Ok(())
    };
    answer(&visitor, &name, &sent, saved.await.map(|()| Act::Save)).await
}

/// Removes the oldest messages.
pub(super) async fn trim(
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Form(sent): Sent,
) -> Result<Response, Problem> {
    form::check_proof(&visitor, &sent)?;
    let trimmed = async {
        let before = sent.get("before").map(|value| value.trim()).unwrap_or_default();
        let wrong = |_| {
            Problem::invalid("before", "must be an offset, a time in UTC, or an age such as -1h")
        };
        let before = match messages::offset(before) {
            Ok(offset) => Before::Offset(offset),
            Err(_) => Before::Time(messages::time(before).map_err(wrong)?),
        };
        form::check_confirmation(&sent, "trim-confirm", &name)?;
        let request = TrimTopicRequest { topic: name.clone(), before: Some(before) };
        visitor.calls.topics().trim_topic(request).await?;
        Ok(())
    };
    answer(&visitor, &name, &sent, trimmed.await.map(|()| Act::Trim)).await
}

/// Shows the page again: with what is wrong, or as it is now.
async fn answer(
    visitor: &Visitor,
    name: &str,
    sent: &HashMap<String, String>,
    done: Result<Act, Problem>,
) -> Result<Response, Problem> {
    match done.map_err(of_form) {
        Ok(act) => {
            let act = match act {
                Act::Save => "save",
                Act::Trim => "trim",
            };
            let target = format!("{}/settings?done={act}", path::topic(name));
            Ok(Redirect::to(&target).into_response())
        }
        Err(problem) => {
            let found = topic::find(visitor, name).await?;
            let page = page(visitor, &found, &Shown::again(sent, &problem), None);
            Ok((problem.status, page).into_response())
        }
    }
}

/// Deletes the topic.
pub(super) async fn delete(
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Form(sent): Sent,
) -> Result<Response, Problem> {
    form::check_proof(&visitor, &sent)?;
    if let Err(problem) = form::check_confirmation(&sent, "delete-confirm", &name) {
        return answer(&visitor, &name, &sent, Err(problem)).await;
    }
    let request = DeleteTopicRequest { topic: name };
    visitor.calls.topics().delete_topic(request).await?;
    Ok(Redirect::to("/topics").into_response())
}

/// The form that creates a topic.
pub(super) async fn show_new(Extension(visitor): Extension<Visitor>) -> Markup {
    new_page(&visitor, &Shown::default())
}

fn new_page(visitor: &Visitor, shown: &Shown<'_>) -> Markup {
    let crumbs = [("Topics", "/topics".to_owned())];
    let content = html! {
        (layout::heading(&crumbs, "New topic", &html! {}))
        (shown.elsewhere(&FIELDS))
        section.card aria-label="New topic" {
            form.card-body.form method="post" action="/topics/new" {
                (form::proof(visitor))
                (shown.field("topic", "Name", "", "letters, digits and - _ . such as orders"))
                (about(shown, None))
                div.row {
                    button.button.button-main type="submit" { "Create" }
                    a.button href="/topics" { "Cancel" }
                }
            }
        }
    };
    layout::page(visitor, Place::Topics, "New topic", &content)
}

/// Creates a topic.
pub(super) async fn create(
    Extension(visitor): Extension<Visitor>,
    Form(sent): Sent,
) -> Result<Response, Problem> {
    form::check_proof(&visitor, &sent)?;
    let of = |field: &str| sent.get(field).map(|value| value.trim().to_owned()).unwrap_or_default();
    let created = async {
        let request = CreateTopicRequest {
            topic: of("topic"),
            description: of("description"),
            labels: form::pairs("labels", &of("labels"))?,
            retention: Some(retention(&sent)?),
            ..Default::default()
        };
        visitor.calls.topics().create_topic(request).await?;
        Ok::<_, Problem>(())
    };
    match created.await.map_err(of_form) {
        Ok(()) => Ok(Redirect::to(&path::topic(&of("topic"))).into_response()),
        Err(problem) => {
            let page = new_page(&visitor, &Shown::again(&sent, &problem));
            Ok((problem.status, page).into_response())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("1024", Some(1_024)),
            ("10GiB", Some(10 << 30)),
            ("1.5 kb", Some(1_500)),
            ("0", None),
            ("ten", None),
            ("5 parsecs", None),
            ("-1", None),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
    }

    #[test]
    fn a_wrong_limit_is_said_at_its_field() {
        for (field, value) in
            [("retention_age", "soon"), ("retention_bytes", "x"), ("retention_messages", "many")]
        {
            let sent = HashMap::from([(field.to_owned(), value.to_owned())]);
            assert_eq!(retention(&sent).unwrap_err().field.as_deref(), Some(field));
        }
        assert_eq!(retention(&HashMap::new()).unwrap(), Retention::default());
    }
}
