//! When a message is to be delivered, if not at once.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

use super::labels::Labels;

/// The time before which workers do not get a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliverAt(SystemTime);

impl DeliverAt {
    /// The header that holds it, in RFC 3339.
    pub const HEADER: &str = "trunkline-deliver-at";

    /// How far ahead it may be.
    pub const MAX_DELAY: Duration = Duration::from_secs(30 * 24 * 3_600);

    /// This time, in whole milliseconds, as the header holds it. It is rounded up, so that no message is
    /// delivered before its time. Times before 1970, which have passed as well, become the first moment of
    /// that year.
    pub fn new(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nanos = since.subsec_nanos().next_multiple_of(1_000_000);
        let since = Duration::from_secs(since.as_secs()) + Duration::from_nanos(nanos.into());
        Self(SystemTime::UNIX_EPOCH + since)
    }

    /// The time that the text of a header names, in any form of RFC 3339; `None` if it names none.
    pub fn parse(text: &str) -> Option<Self> {
        // The parser also accepts years of more than four digits, and is not made for those.
        if !text.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        let time: Timestamp = text.parse().ok()?;
        SystemTime::try_from(time).ok().map(Self)
    }

    /// The time in a message's headers, if there is one.
    pub fn of(headers: &Labels) -> Option<Self> {
        Self::parse(headers.entries().get(Self::HEADER)?)
    }

    /// The text of the header.
    pub fn header(self) -> String {
        humantime::format_rfc3339_millis(self.0).to_string()
    }

    /// How long until then; `None` if it has passed.
    pub fn wait(self, now: SystemTime) -> Option<Duration> {
        self.0.duration_since(now).ok().filter(|wait| !wait.is_zero())
    }

    /// Whether it is further ahead than it may be.
    pub fn is_too_far(self, now: SystemTime) -> bool {
        self.wait(now).is_some_and(|wait| wait > Self::MAX_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_1970(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn a_header_has_milliseconds_and_is_never_earlier() {
        let header = |time| DeliverAt::new(time).header();
        assert_eq!(header(after_1970(1_764_000_000_000)), "2025-11-24T16:00:00.000Z");
        let finer = after_1970(1_764_000_000_001) + Duration::from_nanos(1);
        assert_eq!(header(finer), "2025-11-24T16:00:00.002Z");
        let last = after_1970(1_764_000_001_000) - Duration::from_nanos(1);
        assert_eq!(header(last), "2025-11-24T16:00:01.000Z");
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(7);
        assert_eq!(header(before), "1970-01-01T00:00:00.000Z");
        let time = DeliverAt::new(finer);
        assert_eq!(DeliverAt::parse(&time.header()), Some(time));
    }

    #[test]
    fn every_form_of_rfc_3339_is_a_time() {
        let time = Some(DeliverAt(after_1970(1_764_000_000_250)));
        for text in [
            "2025-11-24T16:00:00.250Z",
            "2025-11-24t16:00:00.25z",
            "2025-11-24T18:00:00.250000+02:00",
            // As PostgreSQL writes it.
            "2025-11-24 16:00:00.25+00",
        ] {
            assert_eq!(DeliverAt::parse(text), time, "{text}");
        }
        for bad in [
            "",
            "tomorrow",
            "10s",
            "1764000000",
            "2025-13-01T00:00:00Z",
            "2025-11-24T25:00:00Z",
            "2025-11-24T16:00:00Zulu",
            "+9223372036854775807-01-01T00:00:00Z",
            "-9223372036854775807-01-01T00:00:00Z",
            "2025-11-2éT16:00:00Z",
        ] {
            assert_eq!(DeliverAt::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_time_may_be_30_days_ahead() {
        let now = after_1970(1_764_000_000_000);
        let at = |time| DeliverAt::new(time);
        assert_eq!(at(now).wait(now), None);
        assert_eq!(at(now - Duration::from_secs(1)).wait(now), None);
        let soon = Duration::from_millis(1);
        assert_eq!(at(now + soon).wait(now), Some(soon));
        assert!(!at(now + DeliverAt::MAX_DELAY).is_too_far(now));
        assert!(at(now + DeliverAt::MAX_DELAY + soon).is_too_far(now));
        assert!(!at(SystemTime::UNIX_EPOCH).is_too_far(now));
    }
}
