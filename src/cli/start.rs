//! Places in a log, as the command line says them.

use std::time::SystemTime;

use crate::client::Start;

/// `earliest`, `latest`, an offset, or `@` and a time.
pub(super) fn parse(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => return Ok(Start::Earliest),
        "latest" => return Ok(Start::Latest),
        _ => {}
    }
    if let Some(time) = text.strip_prefix('@') {
        return parse_time(time).map(Start::Time).ok_or_else(|| {
            format!("{time:?} is no time: give RFC 3339 (@2026-11-24T10:00:00Z) or an age (@15m)")
        });
    }
    match text.parse() {
        Ok(offset) if offset >= 0 => Ok(Start::Offset(offset)),
        _ => Err("give earliest, latest, an offset of 0 or more, or @TIME".to_owned()),
    }
}

fn parse_time(text: &str) -> Option<SystemTime> {
    let age = || SystemTime::now().checked_sub(humantime::parse_duration(text).ok()?);
    humantime::parse_rfc3339_weak(text).ok().or_else(age)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_start_is_an_edge_an_offset_or_a_time() {
        assert_eq!(parse("earliest"), Ok(Start::Earliest));
        assert_eq!(parse("latest"), Ok(Start::Latest));
        assert_eq!(parse("42"), Ok(Start::Offset(42)));
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_764_000_000);
        assert_eq!(parse("@2025-11-24T16:00:00Z"), Ok(Start::Time(noon)));
        assert!(matches!(parse("@15m"), Ok(Start::Time(_))));
        for bad in ["", "first", "-1", "1.5", "@", "@yesterday", "@2026-13-01T00:00:00Z"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
