//! The flags and the printing of a topic's retention limits.

use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use serde_json::{Value, json};

use super::plural::count;
use crate::proto::Retention;

/// How long a topic keeps its messages.
#[derive(Args, Debug)]
pub(super) struct RetentionArgs {
    /// The maximum age of messages, such as 7d or 12h; "forever" removes the limit.
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    retention_age: Option<Limit<Duration>>,
    /// The maximum size of the topic, such as 10GiB; "forever" removes the limit.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    retention_bytes: Option<Limit<i64>>,
    /// The maximum number of messages; "forever" removes the limit.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    retention_messages: Option<Limit<i64>>,
    /// Keep messages that the slowest consumer has not read, even beyond the limits.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    keep_unread: Option<bool>,
}

/// A limit as a flag sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit<T> {
    /// No limit.
    Forever,
    UpTo(T),
}

impl<T> Limit<T> {
    fn into_option(self) -> Option<T> {
        match self {
            Self::Forever => None,
            Self::UpTo(limit) => Some(limit),
        }
    }
}

const FOREVER: &str = "forever";

fn parse_age(text: &str) -> Result<Limit<Duration>, String> {
    parse(text, |text| humantime::parse_duration(text).map_err(|error| error.to_string()))
}

fn parse_size(text: &str) -> Result<Limit<i64>, String> {
    parse(text, |text| {
        let ByteSize(bytes) = text.parse()?;
        positive(i64::try_from(bytes).map_err(|error| error.to_string())?)
    })
}

fn parse_count(text: &str) -> Result<Limit<i64>, String> {
    parse(text, |text| positive(text.parse().map_err(|_| "give a whole number".to_owned())?))
}

fn parse<T>(text: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Limit<T>, String> {
    match text {
        FOREVER => Ok(Limit::Forever),
        text => parse(text).map(Limit::UpTo),
    }
}

fn positive(number: i64) -> Result<i64, String> {
    if number > 0 { Ok(number) } else { Err("must be more than 0".to_owned()) }
}

/// The limits that the flags set.
pub(super) struct RetentionUpdate {
    pub(super) retention: Retention,
    /// The paths of the proto's fields that were set.
    pub(super) paths: Vec<String>,
}

impl RetentionArgs {
    pub(super) fn into_update(self) -> RetentionUpdate {
        let mut paths = Vec::new();
        let mut name = |field: &str, given: bool| {
            if given {
                paths.push(format!("retention.{field}"));
            }
        };
        name("max_age", self.retention_age.is_some());
        name("max_bytes", self.retention_bytes.is_some());
        name("max_messages", self.retention_messages.is_some());
        name("keep_unread", self.keep_unread.is_some());
        let age = self.retention_age.and_then(Limit::into_option);
        let retention = Retention {
            max_age: age.and_then(|age| age.try_into().ok()),
            max_bytes: self.retention_bytes.and_then(Limit::into_option).unwrap_or(0),
            max_messages: self.retention_messages.and_then(Limit::into_option).unwrap_or(0),
            keep_unread: self.keep_unread.unwrap_or(false),
        };
        RetentionUpdate { retention, paths }
    }
}

/// A topic's limits for people.
pub(super) fn describe(retention: &Retention) -> String {
    let mut limits = Vec::new();
    if let Some(age) = retention.max_age.and_then(|age| Duration::try_from(age).ok()) {
        limits.push(age_as_given(age));
    }
    if let Ok(bytes @ 1..) = u64::try_from(retention.max_bytes) {
        limits.push(size_as_given(bytes));
    }
    if retention.max_messages > 0 {
        limits.push(count(retention.max_messages.unsigned_abs(), "message"));
    }
    if limits.is_empty() {
        limits.push(FOREVER.to_owned());
    }
    let unread = if retention.keep_unread { "; unread messages are kept" } else { "" };
    limits.join(", ") + unread
}

/// An age in its largest unit that leaves no rest: weeks, days, hours, minutes or seconds.
fn age_as_given(age: Duration) -> String {
    const UNITS: [(u64, &str); 5] =
        [(7 * 86_400, "w"), (86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let unit = UNITS.into_iter().find(|(unit, _)| age.as_secs().is_multiple_of(*unit));
    match unit {
        Some((unit, name)) if age.subsec_nanos() == 0 && !age.is_zero() => {
            format!("{}{name}", age.as_secs() / unit)
        }
        _ => humantime::format_duration(age).to_string(),
    }
}

/// A size in its largest unit that leaves no rest, of 1,000 or of 1,024; otherwise in bytes, and
/// about how much that is.
fn size_as_given(bytes: u64) -> String {
    const UNITS: [(u32, &str, &str); 4] =
        [(4, "TiB", "TB"), (3, "GiB", "GB"), (2, "MiB", "MB"), (1, "KiB", "KB")];
    for (power, binary, decimal) in UNITS {
        for (base, name) in [(1_024_u64, binary), (1_000, decimal)] {
            let unit = base.pow(power);
            if bytes.is_multiple_of(unit) {
                return format!("{}{name}", bytes / unit);
            }
        }
    }
    match bytes {
        0..1_024 => format!("{bytes}B"),
        _ => format!("{bytes}B (about {})", ByteSize(bytes)),
    }
}

/// A topic's limits for programs; null where there is none.
pub(super) fn object(retention: &Retention) -> Value {
    let age = retention.max_age.and_then(|age| Duration::try_from(age).ok());
    let limit = |limit: i64| (limit > 0).then_some(limit);
    json!({
        "max_age_seconds": age.map(|age| age.as_secs_f64()),
        "max_bytes": limit(retention.max_bytes),
        "max_messages": limit(retention.max_messages),
        "keep_unread": retention.keep_unread,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_ages_sizes_numbers_or_forever() {
        assert_eq!(parse_age("7d"), Ok(Limit::UpTo(Duration::from_secs(7 * 86_400))));
        assert_eq!(parse_size("10GiB"), Ok(Limit::UpTo(10 << 30)));
        assert_eq!(parse_count("5"), Ok(Limit::UpTo(5)));
        assert_eq!(parse_count("forever"), Ok(Limit::Forever));
        assert!(parse_age("soon").is_err() && parse_size("many").is_err());
        for bad in ["0", "-1", "1.5", ""] {
            assert!(parse_count(bad).is_err(), "{bad}");
        }
        assert!(parse_size("0").is_err());
    }

    #[test]
    fn limits_are_described_for_people() {
        assert_eq!(describe(&Retention::default()), "forever");
        let retention = Retention {
            max_age: Some(prost_types::Duration { seconds: 86_400, nanos: 0 }),
            max_bytes: 1 << 20,
            max_messages: 7,
            keep_unread: true,
        };
        assert_eq!(describe(&retention), "1d, 1MiB, 7 messages; unread messages are kept");
    }

    #[test]
    fn limits_come_back_as_they_were_given() {
        for given in ["1w", "10d", "36h", "90m", "45s", "1500ms"] {
            let Ok(Limit::UpTo(age)) = parse_age(given) else { panic!("{given}") };
            let expected = if given == "1500ms" { "1s 500ms" } else { given };
            assert_eq!(age_as_given(age), expected);
        }
        for given in ["10GB", "10GiB", "1MB", "512KiB", "1500MB", "2TB", "100B"] {
            let Ok(Limit::UpTo(bytes)) = parse_size(given) else { panic!("{given}") };
            assert_eq!(size_as_given(bytes.unsigned_abs()), given);
        }
        assert_eq!(size_as_given(1_234_567), "1234567B (about 1.2 MiB)");
        let retention = Retention { max_messages: 1, ..Default::default() };
        assert_eq!(describe(&retention), "1 message");
    }
}
