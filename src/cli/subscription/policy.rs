//! The flags and the printing of how a subscription delivers messages.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::proto::DeliveryPolicy;

/// How a subscription delivers messages.
#[derive(Args, Debug)]
pub(in super::super) struct PolicyArgs {
    /// How long a worker has for a message before it is delivered again: 1s to 10m (default: 30s).
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    ack_deadline: Option<Duration>,
    /// How long to wait before a message is delivered for the second time: up to 24h (default: 1s). The
    /// time doubles with each further delivery.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    min_backoff: Option<Duration>,
    /// The longest such wait: up to 24h, and not shorter than --min-backoff (default: 1m).
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    max_backoff: Option<Duration>,
    /// After how many deliveries a message is parked if no worker has acknowledged it: up to 1000; 0
    /// means never (default: 0).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=1_000))]
    max_deliveries: Option<i32>,
    /// Deliver only messages whose headers match, such as 'headers.kind = "order"'; '' delivers all
    /// (default: all).
    #[arg(long, value_name = "FILTER", allow_hyphen_values = true)]
    filter: Option<String>,
    /// The topic to which messages are moved that would be parked; '' parks them (default: parked).
    #[arg(long, value_name = "TOPIC")]
    dead_letter_topic: Option<String>,
    /// Never deliver a message again whose settlement was confirmed, or while a worker may still settle
    /// it (default: false).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    exactly_once: Option<bool>,
    /// How many messages all workers together can have at a time: up to 100000; 0 means the most
    /// (default: 0).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=100_000))]
    max_outstanding_messages: Option<i32>,
    /// How many bytes of messages all workers together can have at a time; 0 means no limit
    /// (default: 0).
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(i64).range(0..))]
    max_outstanding_bytes: Option<i64>,
}

/// What the flags set.
pub(super) struct PolicyUpdate {
    pub(super) policy: DeliveryPolicy,
    /// The names of the proto's fields that were set.
    pub(super) paths: Vec<String>,
}

impl PolicyArgs {
    pub(super) fn into_update(self) -> PolicyUpdate {
        let given = [
            ("ack_deadline", self.ack_deadline.is_some()),
            ("min_backoff", self.min_backoff.is_some()),
            ("max_backoff", self.max_backoff.is_some()),
            ("max_deliveries", self.max_deliveries.is_some()),
            ("filter", self.filter.is_some()),
            ("dead_letter_topic", self.dead_letter_topic.is_some()),
            ("exactly_once", self.exactly_once.is_some()),
            ("max_outstanding_messages", self.max_outstanding_messages.is_some()),
            ("max_outstanding_bytes", self.max_outstanding_bytes.is_some()),
        ];
        let given = given.into_iter().filter(|(_, is_given)| *is_given);
        let paths = given.map(|(name, _)| name.to_owned()).collect();
        let duration = |time: Option<Duration>| time.and_then(|time| time.try_into().ok());
        let policy = DeliveryPolicy {
            ack_deadline: duration(self.ack_deadline),
            min_backoff: duration(self.min_backoff),
            max_backoff: duration(self.max_backoff),
            max_deliveries: self.max_deliveries.unwrap_or(0),
            filter: self.filter.unwrap_or_default(),
            dead_letter_topic: self.dead_letter_topic.unwrap_or_default(),
            exactly_once: self.exactly_once.unwrap_or(false),
            max_outstanding_messages: self.max_outstanding_messages.unwrap_or(0),
            max_outstanding_bytes: self.max_outstanding_bytes.unwrap_or(0),
        };
        PolicyUpdate { policy, paths }
    }
}

/// A policy for people.
pub(super) fn describe(policy: &DeliveryPolicy) -> [(&'static str, String); 9] {
    let text = |time: Option<prost_types::Duration>| match duration(time) {
        Some(time) => humantime::format_duration(time).to_string(),
        None => "-".to_owned(),
    };
    let most = |number: i64| if number > 0 { number.to_string() } else { String::new() };
    let parked_after = match policy.max_deliveries {
        1 => "1 delivery".to_owned(),
        most @ 2.. => format!("{most} deliveries"),
        _ => "never".to_owned(),
    };
    [
        ("ack deadline", text(policy.ack_deadline)),
        ("min backoff", text(policy.min_backoff)),
        ("max backoff", text(policy.max_backoff)),
        ("parks after", parked_after),
        ("filter", policy.filter.clone()),
        ("dead-letter topic", policy.dead_letter_topic.clone()),
        ("exactly once", policy.exactly_once.to_string()),
        ("max messages", most(policy.max_outstanding_messages.into())),
        ("max bytes", most(policy.max_outstanding_bytes)),
    ]
}

/// A policy for programs; `max_deliveries` is null if there is no limit, and the others are 0.
pub(super) fn object(policy: &DeliveryPolicy) -> Value {
    let seconds =
        |time: Option<prost_types::Duration>| duration(time).map(|time| time.as_secs_f64());
    json!({
        "ack_deadline_seconds": seconds(policy.ack_deadline),
        "min_backoff_seconds": seconds(policy.min_backoff),
        "max_backoff_seconds": seconds(policy.max_backoff),
        "filter": policy.filter,
        "max_deliveries": (policy.max_deliveries > 0).then_some(policy.max_deliveries),
        "dead_letter_topic": policy.dead_letter_topic,
        "exactly_once": policy.exactly_once,
        "max_outstanding_messages": policy.max_outstanding_messages,
        "max_outstanding_bytes": policy.max_outstanding_bytes,
    })
}

fn duration(time: Option<prost_types::Duration>) -> Option<Duration> {
    time.and_then(|time| time.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_updated() {
        let args = PolicyArgs {
            ack_deadline: None,
            min_backoff: Some(Duration::from_millis(1_500)),
            max_backoff: None,
            max_deliveries: Some(0),
            filter: None,
            dead_letter_topic: None,
            exactly_once: Some(true),
            max_outstanding_messages: None,
            max_outstanding_bytes: None,
        };
        let PolicyUpdate { policy, paths } = args.into_update();
        assert_eq!(paths, ["min_backoff", "max_deliveries", "exactly_once"]);
        assert_eq!(object(&policy)["min_backoff_seconds"], 1.5);
        let described = describe(&DeliveryPolicy { max_deliveries: 1, ..policy });
        let texts = described.map(|(_, text)| text);
        assert_eq!(texts, ["-", "1s 500ms", "-", "1 delivery", "", "", "true", "", ""]);
    }
}
