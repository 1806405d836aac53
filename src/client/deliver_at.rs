//! When a message is to be delivered, checked as the broker checks it.

use std::time::SystemTime;

use prost_types::Timestamp;

use crate::{
    client::error::Error,
    proto::{DELIVER_AT_HEADER, MAX_DELIVERY_DELAY, NewMessage},
};

/// The bytes of the value that the field becomes: `2026-12-24T18:00:00.000Z`.
const VALUE_BYTES: usize = 24;

impl NewMessage {
    /// Sets when workers of shared subscriptions get the message: not before this time, which may be up to
    /// 30 days ahead. Readers in order ignore it.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// use trunkline::proto::NewMessage;
    ///
    /// let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3_600);
    /// let message = NewMessage::new("remind me").with_deliver_at(tomorrow);
    /// assert!(message.check().is_ok());
    /// ```
    #[must_use]
    pub fn with_deliver_at(mut self, time: SystemTime) -> Self {
        self.deliver_at = Some(time.into());
        self
    }
}

/// How many headers the time of a message takes besides those that it has, and their bytes.
pub(super) fn checked(message: &NewMessage) -> Result<(usize, usize), Error> {
    let given = message.headers.get(DELIVER_AT_HEADER);
    match (message.deliver_at, given) {
        (None, None) => Ok((0, 0)),
        (None, Some(text)) => match parse(text).is_some_and(is_near) {
            true => Ok((0, 0)),
            false => {
                Err(invalid(DELIVER_AT_HEADER, "must be a time in RFC 3339, at most 30 days ahead"))
            }
        },
        (Some(time), None) => {
            match is_valid(&time) && SystemTime::try_from(time).is_ok_and(is_near) {
                true => Ok((1, DELIVER_AT_HEADER.len() + VALUE_BYTES)),
                false => Err(invalid("deliver_at", "must be a valid time, at most 30 days ahead")),
            }
        }
        (Some(_), Some(_)) => {
            let problem = format!("is given beside the header {DELIVER_AT_HEADER}");
            Err(invalid("deliver_at", &problem))
        }
    }
}

fn parse(text: &str) -> Option<SystemTime> {
    // As the broker does, which accepts years of four digits.
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    text.parse::<Timestamp>().ok()?.try_into().ok()
}

/// Whether a time is one of protobuf, which begin with the year 1.
fn is_valid(Timestamp { seconds, nanos }: &Timestamp) -> bool {
    const YEAR_1: i64 = -62_135_596_800;
    *seconds >= YEAR_1 && (0..1_000_000_000).contains(nanos)
}

fn is_near(time: SystemTime) -> bool {
    // A time in the past is at once.
    time.duration_since(SystemTime::now()).map_or(true, |wait| wait <= MAX_DELIVERY_DELAY)
}

fn invalid(field: &'static str, problem: &str) -> Error {
    Error::Invalid { field, problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refusal(message: NewMessage) -> String {
        message.check().unwrap_err().to_string()
    }

    #[test]
    fn a_time_that_the_broker_would_refuse_is_refused_before_it_is_sent() {
        let now = SystemTime::now();
        let at = |time| NewMessage::new("").with_deliver_at(time);
        let minute = Duration::from_secs(60);
        assert!(at(now + MAX_DELIVERY_DELAY - minute).check().is_ok());
        assert!(at(SystemTime::UNIX_EPOCH - minute).check().is_ok());
        let wrong = "deliver_at must be a valid time, at most 30 days ahead";
        assert_eq!(refusal(at(now + MAX_DELIVERY_DELAY + minute)), wrong);
        for (seconds, nanos) in [(0, -1), (0, 1_000_000_000), (i64::MIN, 0), (i64::MAX, 0)] {
            let time = Some(Timestamp { seconds, nanos });
            assert_eq!(refusal(NewMessage { deliver_at: time, ..NewMessage::default() }), wrong);
        }
        let header = |value: &str| NewMessage::new("").with_header(DELIVER_AT_HEADER, value);
        assert!(header("2025-11-24T16:00:00+01:00").check().is_ok());
        for bad in ["", "tomorrow", "9999-12-31T00:00:00Z", "+99999-01-01T00:00:00Z"] {
            let problem = "must be a time in RFC 3339, at most 30 days ahead";
            assert_eq!(refusal(header(bad)), format!("trunkline-deliver-at {problem}"), "{bad}");
        }
        let both = header("2025-11-24T16:00:00Z").with_deliver_at(now);
        assert_eq!(refusal(both), "deliver_at is given beside the header trunkline-deliver-at");
    }

    #[test]
    fn the_header_that_the_time_becomes_counts() {
        let now = SystemTime::now();
        let full = (0..64).fold(NewMessage::new(""), |m, n| m.with_header(n.to_string(), ""));
        assert!(full.check().is_ok());
        let problem = "headers of 65 entries is over the limit of 64";
        assert_eq!(refusal(full.with_deliver_at(now)), problem);
        let value = "v".repeat(16 * 1024 - 1 - DELIVER_AT_HEADER.len() - VALUE_BYTES);
        assert!(NewMessage::new("").with_header("n", &value).with_deliver_at(now).check().is_ok());
        let large = NewMessage::new("").with_header("nn", value).with_deliver_at(now);
        assert_eq!(refusal(large), "headers of 16385 bytes is over the limit of 16384");
    }
}
