//! Messages and times as they are printed.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost_types::Timestamp;
use serde_json::{Value, json};

use super::{escape, format::FormatArgs};
use crate::client::Message;

/// Prints messages in the form that was asked for: without one, each payload as a line.
pub(super) fn messages(
    out: &mut impl Write,
    topic: &str,
    messages: &[Message],
    format: &FormatArgs,
) -> io::Result<()> {
    messages.iter().try_for_each(|one| message(out, topic, one, format))
}

/// Prints a message, byte for byte as it came: what reads it may be a program.
pub(super) fn message(
    out: &mut impl Write,
    topic: &str,
    message: &Message,
    format: &FormatArgs,
) -> io::Result<()> {
    match &format.format {
        Some(format) => format.print(out, topic, message),
        None if format.json => escape::write_json_line(out, &object(message)),
        None => {
            out.write_all(&message.payload)?;
            out.write_all(b"\n")
        }
    }
}

/// A message as a JSON object; what `produce --json` reads.
fn object(message: &Message) -> Value {
    json!({
        "offset": message.offset,
        "key": message.key.as_deref().map(text_or_base64),
        "headers": message.headers,
        "time": micros(message.publish_time),
        "producer": &*message.producer_id,
        "payload": text_or_base64(&message.payload),
    })
}

/// Bytes as a string if they are one, else as `{"base64": …}`.
fn text_or_base64(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// A time for people; a dash where there is none.
pub(super) fn time(time: Option<Timestamp>) -> String {
    rfc3339(time).unwrap_or_else(|| "-".to_owned())
}

/// A time for programs; null where there is none.
pub(super) fn json_time(time: Option<Timestamp>) -> Value {
    rfc3339(time).map_or(Value::Null, Value::from)
}

fn rfc3339(time: Option<Timestamp>) -> Option<String> {
    let time = known(SystemTime::try_from(time?).ok()?)?;
    Some(humantime::format_rfc3339_millis(time).to_string())
}

/// When a message was stored, in microseconds; a dash if that is not from 1970 to 9999.
pub(super) fn micros(time: SystemTime) -> String {
    match known(time) {
        Some(time) => humantime::format_rfc3339_micros(time).to_string(),
        None => "-".to_owned(),
    }
}

/// A time that can be printed; a clock that is wrong, or a broker, may tell others.
fn known(time: SystemTime) -> Option<SystemTime> {
    const YEAR_10000: u64 = 253_402_300_800;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since.as_secs() < YEAR_10000).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;

    #[test]
    fn bytes_that_are_no_text_are_told_in_base64() {
        let message = Message::from(proto::Message {
            offset: 7,
            payload: vec![0xff, 0x00].into(),
            key: Some("k\"".into()),
            headers: [("a".to_owned(), "b".to_owned())].into(),
            publish_time: Some(SystemTime::UNIX_EPOCH.into()),
            producer_id: "p".to_owned(),
        });
        assert_eq!(
            object(&message),
            json!({
                "offset": 7, "key": "k\"", "headers": {"a": "b"}, "producer": "p",
                "time": "1970-01-01T00:00:00.000000Z", "payload": {"base64": "/wA="},
            })
        );
    }
}
