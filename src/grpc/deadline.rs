//! The client's deadline: the `grpc-timeout` header of the gRPC protocol.
//!
//! [`super::answer`] ends every call whose response has not begun by then. Two calls also watch the
//! deadline themselves: a stream, whose response begins at once, and a pull, which near its
//! deadline can still answer without taking messages.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{codegen::http::HeaderValue, metadata::MetadataMap};

/// The header with the time that is left until the deadline.
pub(super) const HEADER: &str = "grpc-timeout";

/// How long before the deadline a pull answers: a client whose deadline has passed does not get the
/// answer, so the outcome is unknown to it.
const UNARY_MARGIN: Duration = Duration::from_millis(250);

/// When a stream's client stops waiting, if it set a deadline.
pub(super) fn of(metadata: &MetadataMap) -> Option<Instant> {
    Instant::now().checked_add(timeout(metadata)?)
}

/// When a unary call must be answered for its client to get the answer, if it set a deadline.
pub(super) fn of_unary(metadata: &MetadataMap) -> Option<Instant> {
    let timeout = timeout(metadata)?;
    Instant::now().checked_add(timeout.saturating_sub(UNARY_MARGIN.min(timeout / 4)))
}

fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    parse(metadata.get(HEADER)?.to_str().ok()?)
}

/// The timeout in a header; `None` if it is malformed.
pub(super) fn parse_header(header: &HeaderValue) -> Option<Duration> {
    parse(header.to_str().ok()?)
}

/// Parses up to 8 digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(parse("2M"), Some(Duration::from_secs(120)));
        assert_eq!(parse("3S"), Some(Duration::from_secs(3)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("7u"), Some(Duration::from_micros(7)));
        assert_eq!(parse("0n"), Some(Duration::ZERO));
        for bad in ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", "1\u{e4}"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
