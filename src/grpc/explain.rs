//! Adds details to refusals that tonic makes before our own code runs, of malformed requests. They
//! get the code that gRPC defines for them, a reason, and the field. Requests over the decode limit
//! never get so far: [`super::body`] refuses them.

use tonic::{Code, Status, codegen::http::HeaderMap};

use crate::{broker::Error, grpc::status, model::InvalidInput};

// How tonic 0.14 and prost 0.14 begin their refusals. Tests send such requests, and would fail if
// these texts changed.
const UNDECODABLE: &str = "failed to decode Protobuf message: ";
const MALFORMED: [&str; 4] = [
    "Missing request message",
    "Unexpected EOF decoding stream",
    "protocol error: received message with",
    "Error decompressing",
];

/// Explains a call that failed before it began: its status is in the headers.
pub(super) fn explain_headers(headers: &mut HeaderMap) {
    // The common case costs one look-up.
    if !headers.contains_key("grpc-status") {
        return;
    }
    if let Some(status) = Status::from_header_map(headers).as_ref().and_then(explain) {
        for header in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
            headers.remove(header);
        }
        // Fails only if the status does not fit in a header; then the client gets the code alone.
        if status.add_header(headers).is_err() {
            headers.insert("grpc-status", (status.code() as i32).into());
        }
    }
}

/// The status with details, if it is a refusal that tonic made.
pub(super) fn explain(status: &Status) -> Option<Status> {
    let message = status.message();
    match status.code() {
        Code::Internal => match message.strip_prefix(UNDECODABLE) {
            Some(problem) => Some(undecodable(problem)),
            None => MALFORMED
                .iter()
                .any(|malformed| message.starts_with(malformed))
                .then(|| status::malformed(message)),
        },
        _ => None,
    }
}

/// A request that cannot be decoded as its message. prost names the fields that lead to the
/// problem, as in `CreateTopicRequest.topic: invalid string value: data is not UTF-8 encoded`.
fn undecodable(problem: &str) -> Status {
    let mut fields = Vec::new();
    let mut rest = problem;
    while let Some((path, problem)) = rest.split_once(": ")
        && let Some((message, field)) = path.split_once('.')
        && [message, field].iter().all(|name| is_name(name))
    {
        fields.push(field);
        rest = problem;
    }
    match fields.is_empty() {
        true => status::malformed(rest),
        false => status::of(&Error::from(InvalidInput::new(fields.join("."), shorten(rest)))),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn shorten(problem: &str) -> &str {
    match problem.starts_with("invalid string value") {
        true => "is not UTF-8",
        false => problem,
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    fn reason(status: &Status) -> String {
        status.get_details_error_info().unwrap().reason
    }

    #[test]
    fn the_field_that_cannot_be_decoded_is_named() {
        let problem = "PublishRequest.messages: NewMessage.key: invalid string value: data is \
                       not UTF-8 encoded";
        let explained = explain(&Status::internal(format!("{UNDECODABLE}{problem}"))).unwrap();
        assert_eq!(explained.code(), Code::InvalidArgument);
        assert_eq!(explained.message(), "messages.key: is not UTF-8");
        assert_eq!(reason(&explained), "INVALID_FIELD");
    }

    #[test]
    fn a_request_that_is_no_message_at_all_is_malformed() {
        for message in [
            "failed to decode Protobuf message: invalid wire type value: 7",
            "Missing request message.",
            "Unexpected EOF decoding stream.",
        ] {
            let explained = explain(&Status::internal(message)).unwrap();
            assert_eq!(explained.code(), Code::InvalidArgument);
            assert_eq!(reason(&explained), "MALFORMED_REQUEST");
        }
    }

    #[test]
    fn the_brokers_own_refusals_stay_as_they_are() {
        assert!(explain(&status::of(&Error::Draining)).is_none());
        assert!(explain(&Status::not_found("Missing request message.")).is_none());
    }
}
