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
mod form;
mod format;
mod layout;
mod login;
mod messages;
mod overview;
mod path;
mod problem;
mod publish;
mod sessions;
mod settings;
mod tail;
mod topic;
mod topics;
mod visitor;

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, HeaderValue, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};

use super::port::ConnectionCounts;
use crate::{
    broker::{Broker, Overview},
    grpc,
};

use problem::Problem;
use sessions::Sessions;

/// What a page may load: nothing from elsewhere, and no script or style within itself.
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
    /// What forms send along while nobody logs in.
    csrf: Arc<str>,
}

impl Console {
    /// `None` if the system has no random numbers.
    pub(super) fn new(
        broker: Arc<Broker>,
        overview: Arc<Overview>,
        api: grpc::Api,
        connections: Arc<dyn Fn() -> ConnectionCounts + Send + Sync>,
        is_encrypted: bool,
    ) -> Option<Self> {
        let (sessions, csrf) = (Sessions::new(), sessions::random()?.into());
        let started = Instant::now();
        Some(Self { broker, overview, api, connections, is_encrypted, started, sessions, csrf })
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
            .route("/topics/{topic}/messages/{offset}", get(messages::show_one))
            .route("/topics/{topic}/messages/{offset}/raw", get(messages::download))
            .route("/topics/{topic}/tail", get(tail::show))
            .route("/topics/{topic}/tail/events", get(tail::events))
            .route("/topics/{topic}/consumers", get(topic::show_consumers))
            .route("/topics/{topic}/consumers/{id}", get(consumer::show))
            .route("/topics/{topic}/consumers/{id}/now", get(consumer::show_part))
            .route(
                "/topics/{topic}/consumers/{id}/seek",
                get(consumer::show_preview).post(consumer::seek_to),
            )
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
            .route("/assets/{name}", get(assets::serve))
            .merge(pages)
            .layer(DefaultBodyLimit::max(LARGEST_FORM))
            .layer(middleware::from_fn(visitor::refuse_other_origins))
            .layer(middleware::from_fn(protect))
            .with_state(console)
    }
}

/// Tells browsers what the pages do not do, so that they do not do it either.
async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
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
