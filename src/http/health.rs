//! Whether the broker lives, and whether it can serve.

use std::sync::Arc;

use axum::{extract, http::StatusCode};

use super::state::State;

/// The process runs and answers.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// Whether the broker can serve: its database answers, and it does not drain.
pub(super) async fn ready(
    extract::State(state): extract::State<Arc<State>>,
) -> (StatusCode, String) {
    let broker = &state.broker;
    let (database_up, is_draining) =
        (*broker.database_up().borrow(), broker.draining().is_cancelled());
    let checks = [
        (database_up, "database answers", "database does not answer"),
        (!is_draining, "accepts calls", "drains, and accepts no new calls"),
    ];
    let is_ready = checks.iter().all(|(is_well, ..)| *is_well);
    let line = |(is_well, well, problem): &(bool, &str, &str)| match is_well {
        true => format!("[+] {well}\n"),
        false => format!("[-] {problem}\n"),
    };
    let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, checks.iter().map(line).collect())
}
