//! Refuses requests that a web page sends to this host in the name of another one.
//!
//! A browser runs pages of strangers. Such a page may give its own name the address of this host (DNS
//! rebinding), and could then read whatever is served here without a password. Its requests still name
//! the page's host.

use std::sync::Arc;

use axum::{
    extract::{Request, State as Shared},
    http::{StatusCode, header::HOST, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::state::State;

/// Refuses a request that calls this host by another name.
pub(super) async fn check(
    Shared(state): Shared<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(names) = &state.host_names else { return next.run(request).await };
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = header.and_then(|host| host.parse::<Authority>().ok());
    match host {
        Some(host) if names.contain(host.host()) => next.run(request).await,
        _ => {
            let problem = "the header Host must name this host: localhost, a loopback address, or a \
                           name given with --http-host\n";
            (StatusCode::MISDIRECTED_REQUEST, problem).into_response()
        }
    }
}
