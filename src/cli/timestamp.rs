//! Times as they are printed.

use std::time::SystemTime;

use prost_types::Timestamp;
use serde_json::Value;

/// A time for people; a dash if there is none.
pub(super) fn time(time: Option<Timestamp>) -> String {
    rfc3339(time).unwrap_or_else(|| "-".to_owned())
}

/// A time for programs; null if there is none.
pub(super) fn json_time(time: Option<Timestamp>) -> Value {
    rfc3339(time).map_or(Value::Null, Value::from)
}

fn rfc3339(time: Option<Timestamp>) -> Option<String> {
    let time = printable(SystemTime::try_from(time?).ok()?)?;
    Some(humantime::format_rfc3339_millis(time).to_string())
}

/// The time at which a message was stored, in microseconds; a dash if it is not from 1970 to 9999.
pub(super) fn micros(time: SystemTime) -> String {
    match printable(time) {
        Some(time) => humantime::format_rfc3339_micros(time).to_string(),
        None => "-".to_owned(),
    }
}

/// A time from 1970 to 9999, the only ones that can be printed: a wrong clock may give others.
fn printable(time: SystemTime) -> Option<SystemTime> {
    const YEAR_10000: u64 = 253_402_300_800;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since.as_secs() < YEAR_10000).then_some(time)
}
