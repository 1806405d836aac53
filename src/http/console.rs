//! The console: pages for people, which show what is in the broker and change it.
//!
//! Pages are written by the broker and work without scripts, apart from the live tail. What they show of
//! topics and messages, and all that they change, goes through the broker's API as the visitor, so the
//! console permits nothing that the API does not. Numbers of many topics at once come from the
//! overview, less what the visitor may not know of.
//!
//! No page loads anything from elsewhere. Payloads are shown as text only.

mod api;
mod assets;
mod chart;
mod consumer;
mod events;
mod form;
mod format;
mod layout;
mod login;
mod message;
mod messages;
mod overview;
mod parked;
mod path;
mod payload;
mod problem;
mod publish;
mod sessions;
mod settings;
mod subscription;
mod subscriptions;
mod tail;
mod topic;
mod topics;
mod unpark;
mod visitor;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::port::ConnectionCounts;
use crate::{
    broker::{Broker, Overview},
    grpc,
};

use problem::Problem;
use sessions::Sessions;

/// Pages load only from this broker; scripts and styles within pages are refused.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The largest form: a payload of the largest size, as a browser encodes it.
const LARGEST_FORM: usize = 4 * 1024 * 1024;

/// What the console stands on.
pub(super) struct Console {
    pub(super) broker: Arc<Broker>,
    pub(super) overview: Arc<Overview>,
    /// The broker's API.
    pub(super) api: grpc::Api,
    /// Counts the connections of the gRPC port.
    pub(super) connections: Arc<dyn Fn() -> ConnectionCounts + Send + Sync>,
    /// Whether browsers reach it by TLS.
    pub(super) is_encrypted: bool,
    pub(super) started: Instant,
    sessions: Sessions,
    /// The name of the cookie with the number of a session.
    cookie: String,
    /// What the secrets of forms are made of while nobody logs in.
    secret: String,
    /// The live tails that may be open.
    tails: Arc<Semaphore>,
}

/// How many live tails may be open. Each has a connection of the port, which serves probes too.
const MAX_TAILS: usize = 32;

/// How long a form may take to arrive and to be answered.
const FORM_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest form of somebody who is not known.
const LARGEST_LOGIN: usize = 16 * 1024;

/// The name of the cookie with the number of a session. Cookies are for all ports of a host, so it has
/// that of this one. A browser takes a name with this prefix only from the host itself, by TLS.
fn cookie_name(is_encrypted: bool, port: u16) -> String {
    let prefix = if is_encrypted { "__Host-" } else { "" };
    format!("{prefix}trunkline-session-{port}")
}

impl Console {
    /// `None` if the system has no random numbers.
    pub(super) fn new(
        broker: Arc<Broker>,
        overview: Arc<Overview>,
        api: grpc::Api,
        connections: Arc<dyn Fn() -> ConnectionCounts + Send + Sync>,
        is_encrypted: bool,
        port: u16,
    ) -> Option<Self> {
        Some(Self {
            broker,
            overview,
            api,
            connections,
            is_encrypted,
            started: Instant::now(),
            sessions: Sessions::new(),
            cookie: cookie_name(is_encrypted, port),
            secret: sessions::random()?,
            tails: Arc::new(Semaphore::new(MAX_TAILS)),
        })
    }

    /// What the forms of a visitor send along that has no session: another secret for each name.
    fn csrf_of(&self, name: &str) -> Arc<str> {
        let hash = Sha256::digest(format!("{}/{name}", self.secret));
        hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
    }

    /// The pages.
    pub(super) fn routes(self) -> Router {
        let console = Arc::new(self);
        let pages = Router::new()
            .route("/", get(overview::show))
            .route("/overview", get(overview::show_part))
            .route("/topics", get(topics::show))
            .route("/topics/new", get(settings::show_new).post(settings::create))
            .route("/topics/{topic}", get(messages::show))
            .route("/topics/{topic}/facts", get(topic::show_facts))
            .route("/topics/{topic}/messages/{offset}", get(message::show_one))
            .route("/topics/{topic}/messages/{offset}/raw", get(message::download))
            .route("/topics/{topic}/tail", get(tail::show))
            .route("/topics/{topic}/tail/events", get(tail::events))
            .route("/topics/{topic}/consumers", get(topic::show_consumers))
            .route("/topics/{topic}/consumers/{id}", get(consumer::show))
            .route("/topics/{topic}/consumers/{id}/now", get(consumer::show_part))
            .route("/topics/{topic}/consumers/{id}/seek", post(consumer::seek_to))
            .route("/topics/{topic}/consumers/{id}/preview", get(consumer::show_preview))
            .route("/topics/{topic}/subscriptions", get(subscriptions::show))
            .route("/topics/{topic}/subscriptions/{id}", get(subscription::show))
            .route("/topics/{topic}/subscriptions/{id}/now", get(subscription::show_part))
            .route("/topics/{topic}/subscriptions/{id}/parked", post(unpark::unpark))
            .route("/topics/{topic}/producers", get(topic::show_producers))
            .route("/topics/{topic}/publish", get(publish::show).post(publish::publish))
            .route("/topics/{topic}/settings", get(settings::show).post(settings::save))
            .route("/topics/{topic}/trim", post(settings::trim))
            .route("/topics/{topic}/delete", post(settings::delete))
            .fallback(async || Problem::not_found("there is no such page"))
            .layer(middleware::from_fn_with_state(console.clone(), visitor::admit));
        Router::new()
            .route("/login", get(login::show).post(login::log_in))
            .route("/logout", post(login::log_out))
            .layer(DefaultBodyLimit::max(LARGEST_LOGIN))
            .route("/assets/{name}", get(assets::serve))
            .merge(pages.layer(DefaultBodyLimit::max(LARGEST_FORM)))
            .layer(middleware::from_fn(hurry_forms))
            .layer(middleware::from_fn(visitor::refuse_other_origins))
            .layer(middleware::from_fn(protect))
            .with_state(console)
    }
}

/// Whether an answer leads htmx elsewhere.
fn is_for_htmx(response: &Response) -> bool {
    response.headers().contains_key("hx-redirect")
}

/// Gives up a form that does not arrive.
async fn hurry_forms(request: Request, next: Next) -> Response {
    if *request.method() != Method::POST {
        return next.run(request).await;
    }
    match tokio::time::timeout(FORM_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::of_status(StatusCode::REQUEST_TIMEOUT).into_response(),
    }
}

/// Tells browsers what the pages do not do, so that they do not do it either.
async fn protect(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    // What the framework refuses by itself, in words that are not for people.
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_plain = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let mut response = match response.status() {
        status if status.is_client_error() && is_plain && !is_for_htmx(&response) => {
            Problem::of_status(status).into_response()
        }
        _ => response,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::VARY, "HX-Request"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What a page shows is not kept where others could read it.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
