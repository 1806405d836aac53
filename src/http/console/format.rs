//! Numbers, sizes and times, as people read them.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};

/// What a number counts, in the singular for one: `noun` has a plural in s.
pub(super) fn plural(value: i64, noun: &str) -> String {
    if value == 1 { noun.to_owned() } else { format!("{noun}s") }
}

/// A number with separators: `1,234,567`.
pub(super) fn number(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    if value < 0 {
        text.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How often something happens each second.
pub(super) fn rate(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        small if small < 10.0 => format!("{small:.1}"),
        large => number(large.round() as i64),
    }
}

/// A number of bytes: `1.5 MiB`.
pub(super) fn bytes(value: i64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut size = value as f64;
    if size.abs() < 1_024.0 {
        return format!("{value} B");
    }
    let mut unit = "";
    for larger in UNITS {
        size /= 1_024.0;
        unit = larger;
        if size.abs() < 1_024.0 {
            break;
        }
    }
    format!("{size:.1} {unit}")
}

/// A length of time in its two largest units: `2 h 5 min`.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds_left) = (seconds / 60 % 60, seconds % 60);
    match seconds {
        0 if time.is_zero() => "0 s".to_owned(),
        0 => format!("{} ms", time.as_millis().max(1)),
        1..60 => format!("{seconds} s"),
        60..3_600 => two(minutes, "min", seconds_left, "s"),
        3_600..86_400 => two(hours, "h", minutes, "min"),
        _ => two(days, "d", hours, "h"),
    }
}

fn two(large: u64, unit: &str, small: u64, smaller: &str) -> String {
    match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {smaller}"),
    }
}

/// A moment, which the browser shows in its reader's zone.
pub(super) fn time(time: Option<prost_types::Timestamp>) -> Markup {
    match time.and_then(|time| SystemTime::try_from(time).ok()) {
        Some(time) => {
            let text = humantime::format_rfc3339_millis(time).to_string();
            html! { time datetime=(text) { (text) } }
        }
        None => html! { span.muted { "never" } },
    }
}

/// As [`time()`], shown as how long ago it was.
pub(super) fn ago(time: Option<prost_types::Timestamp>) -> Markup {
    match time.and_then(|time| SystemTime::try_from(time).ok()) {
        Some(time) => {
            let text = humantime::format_rfc3339_millis(time).to_string();
            html! { time datetime=(text) data-relative { (text) } }
        }
        None => html! { span.muted { "never" } },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_something_is_singular() {
        let texts = [0, 1, 2].map(|value| plural(value, "topic"));
        assert_eq!(texts, ["topics", "topic", "topics"]);
    }

    #[test]
    fn numbers_have_separators() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (-1_234_567, "-1,234,567"),
            (i64::MIN, "-9,223,372,036,854,775,808"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn sizes_rates_and_times_have_units() {
        for (value, text) in
            [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (5 << 30, "5.0 GiB")]
        {
            assert_eq!(bytes(value), text);
        }
        for (value, text) in [(0.0, "0"), (0.25, "0.2"), (9.96, "10.0"), (1_234.4, "1,234")] {
            assert_eq!(rate(value), text);
        }
        for (milliseconds, text) in [
            (0, "0 s"),
            (40, "40 ms"),
            (59_999, "59 s"),
            (61_000, "1 min 1 s"),
            (7_200_000, "2 h"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(milliseconds)), text);
        }
    }
}
