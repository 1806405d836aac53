//! How long messages are kept, as the command line says it.

use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use serde_json::{Value, json};

use crate::proto::Retention;

/// How long a topic keeps its messages.
#[derive(Args, Debug)]
pub(super) struct RetentionArgs {
    /// How old a message may get, such as 7d or 12h; "forever" lifts the limit.
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    retention_age: Option<Limit<Duration>>,
    /// How much is kept, such as 10GiB; "forever" lifts the limit.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    retention_bytes: Option<Limit<i64>>,
    /// How many messages are kept; "forever" lifts the limit.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    retention_messages: Option<Limit<i64>>,
    /// Keep what the slowest consumer has not read, whatever the limits say.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    keep_unread: Option<bool>,
}

/// A limit, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit<T>(Option<T>);

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
        FOREVER => Ok(Limit(None)),
        text => parse(text).map(|limit| Limit(Some(limit))),
    }
}

fn positive(number: i64) -> Result<i64, String> {
    if number > 0 { Ok(number) } else { Err("must be more than 0".to_owned()) }
}

impl RetentionArgs {
    /// The limits that were named, and which of the proto's fields they are.
    pub(super) fn into_proto(self) -> (Retention, Vec<String>) {
        let mut named = Vec::new();
        let mut name = |field: &str, given: bool| {
            if given {
                named.push(format!("retention.{field}"));
            }
        };
        name("max_age", self.retention_age.is_some());
        name("max_bytes", self.retention_bytes.is_some());
        name("max_messages", self.retention_messages.is_some());
        name("keep_unread", self.keep_unread.is_some());
        let age = self.retention_age.and_then(|Limit(age)| age);
        let retention = Retention {
            max_age: age.and_then(|age| age.try_into().ok()),
            max_bytes: self.retention_bytes.and_then(|Limit(bytes)| bytes).unwrap_or(0),
            max_messages: self.retention_messages.and_then(|Limit(count)| count).unwrap_or(0),
            keep_unread: self.keep_unread.unwrap_or(false),
        };
        (retention, named)
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
    let unread = if retention.keep_unread { "; what is not read is kept" } else { "" };
    limits.join(", ") + unread
}

/// A topic's limits for programs: null where there is none.
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
        assert_eq!(parse_age("7d"), Ok(Limit(Some(Duration::from_secs(7 * 86_400)))));
        assert_eq!(parse_size("10GiB"), Ok(Limit(Some(10 << 30))));
        assert_eq!(parse_count("5"), Ok(Limit(Some(5))));
        assert_eq!(parse_count("forever"), Ok(Limit(None)));
        assert!(parse_age("soon").is_err() && parse_size("many").is_err());
        for bad in ["0", "-1", "1.5", ""] {
            assert!(parse_count(bad).is_err(), "{bad}");
        }
        assert!(parse_size("0").is_err());
    }

    #[test]
    fn limits_are_told_to_people() {
        assert_eq!(describe(&Retention::default()), "forever");
        let retention = Retention {
            max_age: Some(prost_types::Duration { seconds: 86_400, nanos: 0 }),
            max_bytes: 1 << 20,
            max_messages: 7,
            keep_unread: true,
        };
        assert_eq!(describe(&retention), "1day, 1.0 MiB, 7 messages; what is not read is kept");
    }
}
