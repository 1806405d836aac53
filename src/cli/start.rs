//! Parses positions in a log.

use std::time::{Duration, SystemTime};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::client::Start;

/// Parses `earliest`, `latest`, an offset, or `@` and a time.
pub(super) fn parse(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => return Ok(Start::Earliest),
        "latest" => return Ok(Start::Latest),
        _ => {}
    }
    if let Some(time) = text.strip_prefix('@') {
        return parse_time(time).map(Start::Time);
    }
    match text.parse() {
        Ok(offset) if offset >= 0 => Ok(Start::Offset(offset)),
        _ => Err("give earliest, latest, an offset of 0 or more, or @TIME".to_owned()),
    }
}

/// Parses a time in any form of RFC 3339, or an age.
fn parse_time(text: &str) -> Result<SystemTime, String> {
    if let Some(time) = parse_rfc3339(text) {
        return Ok(time);
    }
    let not_a_time = || {
        format!(
            "{text:?} is not a time: give RFC 3339 (@2026-11-24T10:00:00Z, \
             @2026-11-24T10:00:00.5+01:00) or an age (@15m)"
        )
    };
    let age = humantime::parse_duration(text).map_err(|_| not_a_time())?;
    let now = SystemTime::now();
    now.checked_sub(age).ok_or_else(|| format!("{text:?} is too far back"))
}

/// Parses RFC 3339, where a missing zone means UTC. A leap second counts as the last nanosecond
/// before the next second, as databases have no leap seconds.
pub(super) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    // The parser accepts any character between the date and the time.
    if !matches!(text.as_bytes().get(10)?, b'T' | b't' | b' ') {
        return None;
    }
    let with_zone = |zone| OffsetDateTime::parse(&format!("{text}{zone}"), &Rfc3339).ok();
    let time = SystemTime::from(with_zone("").or_else(|| with_zone("Z"))?);
    // The parser drops digits finer than nanoseconds. Rounding up keeps out a message that is older
    // than the given time.
    let rest = Duration::from_nanos(u64::from(has_more_than_nanoseconds(text)));
    time.checked_add(rest)
}

fn has_more_than_nanoseconds(text: &str) -> bool {
    let Some((_, fraction)) = text.split_once('.') else { return false };
    let digits = fraction.bytes().take_while(u8::is_ascii_digit);
    digits.skip(9).any(|digit| digit != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const UTC: &str = "@2025-11-24T16:00:00Z";

    fn time(text: &str) -> SystemTime {
        match parse(text) {
            Ok(Start::Time(time)) => time,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn after_1970(seconds: u64, nanos: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    #[test]
    fn a_start_is_an_edge_an_offset_or_a_time() {
        assert_eq!(parse("earliest"), Ok(Start::Earliest));
        assert_eq!(parse("latest"), Ok(Start::Latest));
        assert_eq!(parse("42"), Ok(Start::Offset(42)));
        assert_eq!(time(UTC), after_1970(1_764_000_000, 0));
        assert!(time("@15m") < SystemTime::now());
        for bad in ["", "first", "-1", "1.5"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_form_of_rfc_3339_is_a_time() {
        for same in [
            "@2025-11-24t16:00:00z",
            "@2025-11-24 16:00:00Z",
            "@2025-11-24T16:00:00+00:00",
            "@2025-11-24T16:00:00-00:00",
            "@2025-11-24T18:00:00+02:00",
            "@2025-11-24T10:30:00-05:30",
            "@2025-11-25T15:59:00+23:59",
            "@2025-11-24T16:00:00.0Z",
            "@2025-11-24T16:00:00.000000000000Z",
            "@2025-11-24 18:00:00.000+02:00",
            // Without a zone it is UTC.
            "@2025-11-24T16:00:00",
            "@2025-11-24 16:00:00",
        ] {
            assert_eq!(time(same), time(UTC), "{same}");
        }
        assert_eq!(time("@2025-11-24T16:00:00.5Z"), after_1970(1_764_000_000, 500_000_000));
        assert_eq!(time("@2025-11-24T18:00:00.25+02:00"), after_1970(1_764_000_000, 250_000_000));
        assert_eq!(time("@2024-02-29T00:00:00Z"), after_1970(1_709_164_800, 0));
        assert_eq!(
            time("@1969-12-31T23:59:59.5Z"),
            SystemTime::UNIX_EPOCH - Duration::from_millis(500)
        );
        let seconds = Duration::from_secs(62_135_596_800);
        assert_eq!(time("@0001-01-01T00:00:00Z"), SystemTime::UNIX_EPOCH - seconds);
        assert_eq!(time("@9999-12-31T23:59:59Z"), after_1970(253_402_300_799, 0));
    }

    #[test]
    fn digits_finer_than_nanoseconds_are_rounded_up() {
        assert_eq!(time("@2025-11-24T16:00:00.0000000001Z"), after_1970(1_764_000_000, 1));
        assert_eq!(time("@2025-11-24T16:00:00.9999999991Z"), after_1970(1_764_000_001, 0));
        assert_eq!(time("@2025-11-24T16:00:00.123456789Z"), after_1970(1_764_000_000, 123_456_789));
    }

    #[test]
    fn a_leap_second_lies_before_the_next_second() {
        let next = after_1970(1_483_228_800, 0);
        let last = next - Duration::from_nanos(1);
        for leap in
            ["@2016-12-31T23:59:60Z", "@2017-01-01T00:59:60+01:00", "@2016-12-31T23:59:60.7Z"]
        {
            assert_eq!(time(leap), last, "{leap}");
        }
        assert!(parse("@2016-12-31T12:00:60Z").is_err());
    }

    #[test]
    fn an_invalid_time_is_refused() {
        for bad in [
            "@",
            "@yesterday",
            "@2026-11-24",
            "@2026-13-01T00:00:00Z",
            "@2026-02-30T00:00:00Z",
            "@2026-11-24T24:00:00Z",
            "@2026-11-24T10:00Z",
            "@2026-11-24T10:00:00.Z",
            "@2026-11-24T10:00:00+0200",
            "@2026-11-24T10:00:00+02",
            "@2026-11-24T10:00:00+24:00",
            "@2026-11-24x10:00:00Z",
            "@2026-11-24T10:00:00ZZ",
            "@26-11-24T10:00:00Z",
            "@10000-01-01T00:00:00Z",
            "@2026-11-2éT10:00:00Z",
        ] {
            let problem = parse(bad).unwrap_err();
            assert!(problem.contains("RFC 3339"), "{bad}: {problem}");
        }
        let far = parse("@999999999999years").unwrap_err();
        assert!(far.contains("RFC 3339") || far.contains("too far"), "{far}");
    }
}
