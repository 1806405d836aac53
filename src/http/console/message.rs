//! One message: below its row, on a page of its own, or as a file.

use axum::{
    Extension,
    extract::{Path, Query},
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    format,
    layout::{self, Place},
    path,
    payload::{self, Form, Payload},
    problem::Problem,
    visitor::Visitor,
};
use crate::proto::{Message, ReadMessagesRequest, read_messages_request::Start};

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Shape {
    #[serde(rename = "as")]
    form: Option<Form>,
}

/// Shows one message: below its row, or on a page of its own.
pub(super) async fn show_one(
    Extension(visitor): Extension<Visitor>,
    Path((name, offset)): Path<(String, i64)>,
    Query(Shape { form }): Query<Shape>,
    headers: HeaderMap,
) -> Result<Markup, Problem> {
    let message = find(&visitor, &name, offset).await?;
    let detail = detail(&name, &message, form);
    if headers.contains_key("hx-request") {
        return Ok(detail);
    }
    let crumbs = [("Topics", "/topics".to_owned()), (name.as_str(), path::topic(&name))];
    let title = format!("Message {offset}");
    let content = html! {
        (layout::heading(&crumbs, &title, &html! {}))
        section.card { div.card-body { (detail) } }
    };
    Ok(layout::page(&visitor, Place::Topics, &title, &content))
}

/// Hands a payload out as it is.
pub(super) async fn download(
    Extension(visitor): Extension<Visitor>,
    Path((name, offset)): Path<(String, i64)>,
) -> Result<Response, Problem> {
    let message = find(&visitor, &name, offset).await?;
    let letters = name.chars().map(|letter| match letter {
        letter if letter.is_ascii_alphanumeric() || "._-".contains(letter) => letter,
        _ => '_',
    });
    let file: String = letters.collect();
    let disposition = format!("attachment; filename=\"{file}-{offset}.bin\"");
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, message.payload).into_response())
}

async fn find(visitor: &Visitor, topic: &str, offset: i64) -> Result<Message, Problem> {
    let request = ReadMessagesRequest {
        topic: topic.to_owned(),
        start: Some(Start::Offset(offset)),
        max_messages: 1,
    };
    let none = || Problem::not_found("there is no message at this offset");
    let read = visitor.calls.topics().read_messages(request).await;
    let read = read.map_err(|status| match status.code() {
        tonic::Code::OutOfRange | tonic::Code::InvalidArgument => none(),
        _ => status.into(),
    })?;
    let found = read.into_inner().messages.into_iter().find(|message| message.offset == offset);
    found.ok_or_else(none)
}

fn detail(topic: &str, message: &Message, form: Option<Form>) -> Markup {
    let payload = Payload::new(&message.payload, form);
    let at = path::message(topic, message.offset);
    let forms =
        [(Form::Text, "text", "Text"), (Form::Json, "json", "JSON"), (Form::Hex, "hex", "Hex")];
    let mut headers: Vec<_> = message.headers.iter().collect();
    headers.sort();
    html! {
        div.message-detail {
            dl.pairs {
                dt { "Offset" } dd.mono { (message.offset) }
                dt { "Published" } dd { (format::time(message.publish_time)) }
                dt { "Producer" } dd { (message.producer_id) }
                dt { "Key" }
                dd.mono {
                    @match &message.key {
                        Some(key) => (String::from_utf8_lossy(key)),
                        None => span.muted { "none" },
                    }
                }
                @for (name, value) in headers { dt { "Header " (name) } dd.mono { (value) } }
                dt { "Size" } dd { (format::bytes(message.payload.len() as i64)) }
            }
            div.row {
                nav.switch aria-label="How to show the payload" {
                    @for (of, name, text) in forms {
                        @let target = format!("{at}?as={name}");
                        a href=(target) hx-get=(target) hx-target="closest .message-detail"
                            hx-swap="outerHTML" aria-current=[(of == payload.form).then_some("true")] { (text) }
                    }
                }
                a.button.button-small href=(format!("{at}/raw")) download { "Download" }
            }
            (payload::show(payload))
        }
    }
}
