//! The messages of a topic as they are published.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Path, Query, State as Shared},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::stream;
use maud::{Markup, html};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Console,
    events::{EVENTS, ended, event},
    layout,
    messages::{finder, head, row},
    path,
    problem::Problem,
    topic::{self, Tab},
    visitor::Visitor,
};
use crate::proto::{ReadMessagesRequest, read_messages_request::Start};

/// How often to look for new messages: less often while there are none.
const POLL: Duration = Duration::from_millis(250);
const SLOWEST_POLL: Duration = Duration::from_secs(1);

/// How often to ask a database that is away.
const RETRY: Duration = Duration::from_secs(2);

/// How long a stream may be silent, so that whatever lies between does not cut it off.
const SILENCE: Duration = Duration::from_secs(15);

/// How many messages one look takes.
const AT_ONCE: i32 = 100;

/// A page that is so many messages behind goes on near the head: nobody reads so fast.
const FAR_BEHIND: i64 = 1_000;

/// How many messages before the head it then goes on.
const BEFORE: i64 = 100;

pub(super) async fn show(
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
) -> Result<Markup, Problem> {
    let found = topic::find(&visitor, &name).await?;
    let events = format!("{}/tail/events?from={}", path::topic(&name), found.head);
    let command = format!("trunkline produce {name} --producer web-1 --register app.log");
    let content = html! {
        section.card aria-labelledby="tail-title" data-tail-url=(events) {
            div.card-head {
                h2.visually-hidden id="tail-title" { "Live tail" }
                span.tail-state role="status" {
                    span.dot data-tail-state data-state="connecting" { "connecting" }
                }
                button.button.tail-toggle type="button" data-tail-toggle { "Pause" }
                button.button type="button" data-tail-clear { "Clear" }
                span.muted {
                    span.tail-count data-tail-count { "0" }
                    " messages since this page was opened; the newest 200 are kept"
                }
            }
            (finder("#tail-rows"))
            p.notice.is-info role="status" data-tail-notice hidden {}
            noscript { p.notice.is-warn { span { "The live tail needs JavaScript." } } }
            div data-tail-empty {
                (layout::empty(
                    "Waiting for messages",
                    "They appear here as soon as they are stored. To publish some:",
                    &command,
                ))
            }
            table.grid.messages id="tail-rows" data-tail-rows hidden {
                caption.visually-hidden { "Messages, newest first" }
                (head())
            }
        }
    };
    Ok(topic::page(&visitor, &found, Tab::Tail, &content))
}

/// Where to begin.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Begin {
    from: i64,
}

/// What a page is told.
struct Tail {
    console: Arc<Console>,
    visitor: Visitor,
    topic: String,
    /// The offset of the next message.
    next: i64,
    /// What is to be sent before anything else is read.
    waiting: VecDeque<Bytes>,
    /// How long to wait before the next look.
    pause: Duration,
    /// Whether the page was told that the database does not answer.
    is_away: bool,
    has_begun: bool,
    has_ended: bool,
    /// Counts it among the tails that are open.
    _open: OwnedSemaphorePermit,
}

/// Streams messages as events. Nothing is read for a page that does not take what it was sent.
pub(super) async fn events(
    Shared(console): Shared<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    Path(topic): Path<String>,
    Query(Begin { from: next }): Query<Begin>,
) -> Response {
    let Ok(open) = console.tails.clone().try_acquire_owned() else {
        return ended(
            "Too many live tails are open on this broker. Close one, and reload the page.",
        );
    };
    let tail = Tail {
        console,
        visitor,
        topic,
        next,
        waiting: VecDeque::new(),
        pause: POLL,
        is_away: false,
        has_begun: false,
        has_ended: false,
        _open: open,
    };
    let events = stream::unfold(tail, |mut tail| async move {
        let event = tail.next().await?;
        Some((Ok::<_, Infallible>(event), tail))
    });
    (EVENTS, Body::from_stream(events)).into_response()
}

impl Tail {
    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.waiting.push_back(event("ready", None, &self.next.to_string()));
        }
        let draining = self.console.broker.draining().clone();
        let silence = tokio::time::sleep(SILENCE);
        let mut silence = std::pin::pin!(silence);
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if self.has_ended {
                return None;
            }
            if draining.is_cancelled() {
                self.end("The broker stops.");
                continue;
            }
            self.read().await;
            if !self.waiting.is_empty() {
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(self.pause) => {}
                () = &mut silence => return Some(Bytes::from_static(b": silent\n\n")),
                () = draining.cancelled() => {}
            }
        }
    }

    /// Reads what has been published meanwhile.
    async fn read(&mut self) {
        let request = ReadMessagesRequest {
            topic: self.topic.clone(),
            start: Some(Start::Offset(self.next)),
            max_messages: AT_ONCE,
        };
        match self.visitor.calls.topics().read_messages(request).await {
            Ok(read) => {
                let read = read.into_inner();
                if std::mem::take(&mut self.is_away) {
                    self.waiting.push_back(event("notice", None, ""));
                }
                self.pause = match read.messages.is_empty() {
                    true => (self.pause * 2).min(SLOWEST_POLL),
                    false => POLL,
                };
                for message in &read.messages {
                    let row = row(&self.topic, message).into_string();
                    self.waiting.push_back(event("message", Some(message.offset), &row));
                }
                self.next = read.next_offset;
                if read.head - self.next > FAR_BEHIND {
                    let skipped = read.head - BEFORE - self.next;
                    self.next += skipped;
                    let text = format!("{skipped} messages came too fast, and were left out.");
                    self.waiting.push_back(event("notice", None, &text));
                }
            }
            Err(status) if status.code() == tonic::Code::Unavailable => {
                if self.console.broker.draining().is_cancelled() {
                    return;
                }
                self.pause = RETRY;
                if !std::mem::replace(&mut self.is_away, true) {
                    let text = "The database does not answer; trying again.";
                    self.waiting.push_back(event("notice", None, text));
                }
            }
            // What lay between was removed, or the log was truncated.
            Err(status) if status.code() == tonic::Code::OutOfRange => self.begin_again().await,
            Err(status) => self.end(Problem::from(status).text()),
        }
    }

    /// Goes on near the head of the log as it is now.
    async fn begin_again(&mut self) {
        match topic::find(&self.visitor, &self.topic).await {
            Ok(found) => {
                self.next = (found.head - BEFORE).max(found.first_offset);
                let text = "The messages in between have been removed.";
                self.waiting.push_back(event("notice", None, text));
            }
            Err(problem) => self.end(problem.text()),
        }
    }

    fn end(&mut self, why: &str) {
        self.has_ended = true;
        self.waiting.push_back(event("end", None, why));
    }
}
