//! The flags and the printing of a topic's retention limits.

use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use serde_json::{Value, json};

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
        limits.push(humantime::format_duration(age).to_string());
    }
    if let Ok(bytes @ 1..) = u64::try_from(retention.max_bytes) {
        limits.push(ByteSize(bytes).to_string());
    }
    if retention.max_messages > 0 {
        limits.push(format!("{} messages", retention.max_messages));
    }
    if limits.is_empty() {
        limits.push(FOREVER.to_owned());
    }
    let unread = if retention.keep_unread { "; unread messages are kept" } else { "" };
    limits.join(", ") + unread
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
        assert_eq!(describe(&retention), "1day, 1.0 MiB, 7 messages; unread messages are kept");
    }
}
