//! Events, as a page takes them that listens.

use axum::{
    http::{HeaderName, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;

/// The headers of a stream of events.
pub(super) const EVENTS: [(HeaderName, &str); 2] =
    [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];

/// A stream that ends at once. A status other than success would make a browser ask for ever.
pub(super) fn ended(why: &str) -> Response {
    (EVENTS, event("end", None, why)).into_response()
}

/// An event. Its data has one line.
pub(super) fn event(name: &str, id: Option<i64>, data: &str) -> Bytes {
    let data = data.replace(['\n', '\r'], " ");
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_one_line_of_data() {
        assert_eq!(event("message", Some(7), "a\nb"), "event: message\nid: 7\ndata: a b\n\n");
        assert_eq!(event("ready", None, "1"), "event: ready\ndata: 1\n\n");
    }
}
