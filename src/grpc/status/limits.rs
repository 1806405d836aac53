//! Refusals of calls that are too large, too slow or too many.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::describe::DOMAIN;
use crate::grpc::{
    limits::{MAX_METADATA_BYTES, MAX_METADATA_ENTRIES, MAX_REQUEST_BYTES},
    open_calls::TooManyCalls,
};

/// A request that is larger than the server decodes.
pub(crate) fn too_large(bytes: usize, limit: usize) -> Status {
    let hint = if limit == MAX_REQUEST_BYTES { "; send fewer messages at once" } else { "" };
    let text = format!("request: is {bytes} bytes, and the limit is {limit}{hint}");
    over_limit("REQUEST_TOO_LARGE", limit, text)
}

/// A call beyond those that its owner, or all together, may have open.
pub(crate) fn too_many_calls(refusal: TooManyCalls) -> Status {
    let (whose, limit) = match refusal {
        TooManyCalls::OfOwner(limit) => ("this client", limit),
        TooManyCalls::OfAll(limit) => ("all clients of this broker together", limit),
    };
    let text = format!("{limit} calls of {whose} are open, which is the limit; nothing was done");
    let retry = Some(Duration::from_secs(1));
    limited(Code::ResourceExhausted, "TOO_MANY_CALLS", limit, retry, text)
}

/// A request that waited for room while others of its connection could not arrive.
pub(crate) fn too_many_publishes(limit: usize) -> Status {
    let text = format!(
        "request: others of this client, which may have {limit} bytes in flight, have to arrive \
         first; nothing was stored"
    );
    let retry = Some(Duration::from_millis(500));
    limited(Code::Unavailable, "TOO_MANY_PUBLISHES", limit, retry, text)
}

/// A request of which no byte arrived for too long.
pub(crate) fn stalled(limit: Duration) -> Status {
    let seconds = limit.as_secs();
    let text = format!("request: no part of it arrived for {seconds} s");
    limited(Code::DeadlineExceeded, "REQUEST_STALLED", seconds, None, text)
}

/// An answer that is refused because its owner has not read others.
pub(crate) fn answers_unread(limit: usize) -> Status {
    let text = format!(
        "answer: {limit} bytes of answers to this client wait to be read, which is the limit; what \
         the call did is done"
    );
    // Once the client has read some.
    let retry = Some(Duration::from_secs(1));
    limited(Code::ResourceExhausted, "ANSWERS_UNREAD", limit, retry, text)
}

/// Ends an answer that its client did not read in time.
pub(crate) fn answer_dropped() -> Status {
    let details = ErrorDetails::with_error_info("ANSWER_DROPPED", DOMAIN, HashMap::new());
    let text = "answer: the client did not read it in time; what the call did is done";
    Status::with_error_details(Code::DeadlineExceeded, text, details)
}

/// A call with more metadata than allowed.
pub(crate) fn metadata_too_large(bytes: usize) -> Status {
    let limit = MAX_METADATA_BYTES;
    let text = format!("metadata: is {bytes} bytes, and the limit is {limit}");
    over_limit("METADATA_TOO_LARGE", limit, text)
}

/// A call with more entries of metadata than allowed.
pub(crate) fn too_many_metadata_entries(entries: usize) -> Status {
    let limit = MAX_METADATA_ENTRIES;
    let text = format!("metadata: has {entries} entries, and the limit is {limit}");
    over_limit("METADATA_TOO_LARGE", limit, text)
}

/// A request that cannot be decoded, where no field can be named.
pub(crate) fn malformed(problem: &str) -> Status {
    let details = ErrorDetails::with_error_info("MALFORMED_REQUEST", DOMAIN, HashMap::new());
    let text = format!("request: cannot be decoded: {problem}");
    Status::with_error_details(Code::InvalidArgument, text, details)
}

/// A deadline that passed while a call that may change something was under way.
pub(crate) fn deadline_with_unknown_outcome() -> Status {
    let details = ErrorDetails::with_error_info("OUTCOME_UNKNOWN", DOMAIN, HashMap::new());
    let text = "the client's deadline has passed before the call was done: its outcome is unknown; \
                check before retrying";
    Status::with_error_details(Code::DeadlineExceeded, text, details)
}

fn over_limit(reason: &str, limit: usize, text: String) -> Status {
    limited(Code::ResourceExhausted, reason, limit, None, text)
}

/// A refusal that names its limit and, if that helps, when to try again.
fn limited(
    code: Code,
    reason: &str,
    limit: impl ToString,
    retry: Option<Duration>,
    text: String,
) -> Status {
    let metadata = HashMap::from([("limit".to_owned(), limit.to_string())]);
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    if let Some(delay) = retry {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code, text, details)
}
