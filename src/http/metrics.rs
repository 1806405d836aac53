//! Metrics, for Prometheus.

use std::{future::ready, io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Extension, State as Shared},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::stream;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{port::Client, state::State};
use crate::{
    access::{Rule, Unproven},
    grpc::Denials,
    metrics::Metrics,
    model::Operation,
};

/// How many clients may have metrics that they have not read to the end.
pub(super) const MAX_UNREAD: usize = 16;

/// How long a client may take to read them, and how much it is handed at a time.
const MAX_READ: Duration = Duration::from_secs(30);
const PART: usize = 64 * 1024;

/// The audit's name of a scrape.
const METHOD: &str = "GET /metrics";

/// Answers a scrape.
pub(super) async fn serve(
    Shared(state): Shared<Arc<State>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
) -> Response {
    if !state.is_local
        && let Err(refusal) = permit(&state, &client, &headers).await
    {
        return refusal;
    }
    let Ok(counted) = state.unread_metrics.clone().try_acquire_owned() else {
        let problem = "too many clients have not read their metrics yet\n";
        return (StatusCode::SERVICE_UNAVAILABLE, problem).into_response();
    };
    match state.scrape.text().await {
        Some(text) => {
            let kind = [(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)];
            let unread = Unread { text, until: Instant::now() + MAX_READ, _counted: counted };
            let parts = stream::unfold(Some(unread), |unread| ready(next_part(unread)));
            (kind, Body::from_stream(parts)).into_response()
        }
        None => {
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n").into_response()
        }
    }
}

/// A text that its client has not read to the end.
struct Unread {
    text: Bytes,
    until: Instant,
    _counted: OwnedSemaphorePermit,
}

/// The next part of a text, and what is left of it. A client that takes too long gets no more.
fn next_part(unread: Option<Unread>) -> Option<(io::Result<Bytes>, Option<Unread>)> {
    let mut unread = unread?;
    if Instant::now() > unread.until {
        return Some((Err(io::ErrorKind::TimedOut.into()), None));
    }
    let part = unread.text.split_to(PART.min(unread.text.len()));
    (!part.is_empty()).then_some((Ok(part), Some(unread)))
}

/// Refuses a client that may not read all topics.
async fn permit(state: &State, client: &Client, headers: &HeaderMap) -> Result<(), Response> {
    let access = &state.access;
    if !access.is_required() {
        return Ok(());
    }
    let authorization = || {
        let headers = headers.get_all(header::AUTHORIZATION).iter();
        headers.map(|header| header.as_bytes())
    };
    let denials =
        |caller| Denials::new(state.broker.audit(), caller, Some(client.address.ip()), METHOD);
    let identity = client.identity.as_ref();
    // Whoever was known before the database went away still is: the metrics say that it is away.
    let known = access.authenticate(Rule::Open, authorization(), identity).await;
    let caller = match known {
        Ok(Some(caller)) => caller,
        _ => match access.authenticate(Rule::Authenticated, authorization(), identity).await {
            Ok(Some(caller)) => caller,
            Ok(None) => return Ok(()),
            Err(Unproven { error, token }) => {
                denials(None).with_token(token).count(&error);
                let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
                let refusal = (StatusCode::UNAUTHORIZED, challenge, format!("{error}\n"));
                return Err(refusal.into_response());
            }
        },
    };
    access.permit_everywhere(&caller, &[Operation::Read, Operation::Admin]).map_err(|error| {
        denials(Some(&caller)).count(&error);
        (StatusCode::FORBIDDEN, format!("{error}\n")).into_response()
    })
}
