//! Metrics, for Prometheus.

use std::sync::Arc;

use super::{port::Client, state::State};
use crate::{
    access::{Rule, Unproven},
    grpc::Denials,
    metrics::Metrics,
    model::Operation,
};
use axum::{
    extract::{Extension, State as Shared},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};

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
    match state.scrape.text().await {
        Some(text) => ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        None => {
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n").into_response()
        }
    }
}

/// Refuses a client that may not read all topics.
async fn permit(state: &State, client: &Client, headers: &HeaderMap) -> Result<(), Response> {
    let access = &state.access;
    let authorization = headers.get_all(header::AUTHORIZATION).iter();
    let authorization = authorization.map(|header| header.as_bytes());
    let rule = Rule::Authenticated;
    let denials =
        |caller| Denials::new(state.broker.audit(), caller, Some(client.address.ip()), METHOD);
    let proven = access.authenticate(rule, authorization, client.identity.as_ref()).await;
    let caller = proven.map_err(|Unproven { error, token }| {
        denials(None).with_token(token).count(&error);
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        (StatusCode::UNAUTHORIZED, challenge, format!("{error}\n")).into_response()
    })?;
    let Some(caller) = caller else { return Ok(()) };
    access.permit_everywhere(&caller, &[Operation::Read, Operation::Admin]).map_err(|error| {
        denials(Some(&caller)).count(&error);
        (StatusCode::FORBIDDEN, format!("{error}\n")).into_response()
    })
}
