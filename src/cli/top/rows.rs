//! The lists of `trunkline top`, as text.

use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use prost_types::Timestamp;

use crate::proto::{ConsumerActivity, GetOverviewResponse, TopicActivity};

pub(super) const TOPIC_COLUMNS: [&str; 5] = ["TOPIC", "MESSAGES/S", "HEAD", "SIZE", "PUBLISHED"];

pub(super) const CONSUMER_COLUMNS: [&str; 7] =
    ["TOPIC", "CONSUMER", "LAG", "BEHIND", "MESSAGES/S", "IDLE", "HOLDER"];

pub(super) fn topic(it: &TopicActivity, now: SystemTime) -> [String; 5] {
    [
        it.topic.clone(),
        rate(it.publish_rate),
        it.head.to_string(),
        ByteSize(it.bytes.unsigned_abs()).to_string(),
        age(it.last_publish_time, now).map_or_else(|| "-".to_owned(), duration),
    ]
}

pub(super) fn consumer(it: &ConsumerActivity) -> [String; 7] {
    [
        it.topic.clone(),
        it.consumer_id.clone(),
        it.lag.to_string(),
        duration(std_duration(it.time_behind)),
        rate(it.consume_rate),
        duration(std_duration(it.idle_time)),
        match it.holder.as_str() {
            "" if it.held => "held".to_owned(),
            "" => "-".to_owned(),
            holder => holder.to_owned(),
        },
    ]
}

/// A duration of the protos; zero if it is absent or negative.
pub(super) fn std_duration(duration: Option<prost_types::Duration>) -> Duration {
    duration.and_then(|it| it.try_into().ok()).unwrap_or_default()
}

/// The time since a moment: none if the clock of the database is ahead of this one.
fn age(time: Option<Timestamp>, now: SystemTime) -> Option<Duration> {
    let time = SystemTime::try_from(time?).ok()?;
    Some(now.duration_since(time).unwrap_or_default())
}

/// How often something happens per second.
pub(super) fn rate(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        small if small < 10.0 => format!("{small:.1}"),
        large => format!("{large:.0}"),
    }
}

/// A length of time in its two largest units.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let two = |large, unit, small: u64, smaller| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit} {small}{smaller}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds / 60 % 60, "m"),
        _ => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

/// How much there is in all, and how much of it moves.
pub(super) fn summary(overview: &GetOverviewResponse) -> String {
    let noun = |count: i64, noun: &str| match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    };
    let GetOverviewResponse { topic_count, consumer_count, consumers_behind, .. } = overview;
    format!(
        "{}{}, {} messages/s published; {}, {consumers_behind} behind, {} messages/s consumed",
        if overview.incomplete { "at least " } else { "" },
        noun(*topic_count, "topic"),
        rate(overview.publish_rate),
        noun(*consumer_count, "consumer"),
        rate(overview.consume_rate),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_units_and_rates_few_digits() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m 1s"),
            (3_661, "1h 1m"),
            (90_061, "1d 1h"),
            (86_400, "1d"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        for (value, text) in [(0.0, "0"), (0.26, "0.3"), (1_234.4, "1234")] {
            assert_eq!(rate(value), text);
        }
    }

    #[test]
    fn a_holder_without_a_name_is_seen() {
        let holder = |held, holder: &str| {
            let it = ConsumerActivity { held, holder: holder.to_owned(), ..Default::default() };
            consumer(&it)[6].clone()
        };
        assert_eq!(
            [holder(true, "app-1"), holder(true, ""), holder(false, "")],
            ["app-1", "held", "-"]
        );
    }
}
