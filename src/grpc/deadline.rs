//! The caller's deadline: `grpc-timeout`, as the gRPC protocol writes it.
//!
//! [`super::answer`] holds every call to it until its response begins. What can be told more exactly
//! looks at it by itself: a stream, which begins at once, and a pull, which can still take nothing.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{codegen::http::HeaderValue, metadata::MetadataMap};

/// The header that tells the deadline, as the time that is left.
pub(super) const HEADER: &str = "grpc-timeout";

/// What a pull's own answer must be ahead of the deadline: its outcome is unknown to a caller that
/// is answered at the deadline.
const UNARY_MARGIN: Duration = Duration::from_millis(250);

/// When a stream's caller stops waiting, if it says so.
pub(super) fn of(metadata: &MetadataMap) -> Option<Instant> {
    Instant::now().checked_add(timeout(metadata)?)
}

/// When a unary call must be answered so that its caller hears it.
pub(super) fn of_unary(metadata: &MetadataMap) -> Option<Instant> {
    let timeout = timeout(metadata)?;
    Instant::now().checked_add(timeout.saturating_sub(UNARY_MARGIN.min(timeout / 4)))
}

fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    parse(metadata.get(HEADER)?.to_str().ok()?)
}

/// The time that a header tells; `None` if it is ill-formed.
pub(super) fn parse_header(header: &HeaderValue) -> Option<Duration> {
    parse(header.to_str().ok()?)
}

/// Up to 8 digits and a unit.
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
