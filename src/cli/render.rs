//! Messages as they are printed.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::proto::Message;

/// Prints messages, each on a line.
pub(super) fn messages(
    out: &mut impl Write,
    messages: &[Message],
    as_json: bool,
) -> io::Result<()> {
    messages.iter().try_for_each(|message| match as_json {
        true => json(out, message),
        false => line(out, message),
    })
}

/// Prints a message's payload as a line, byte for byte.
fn line(out: &mut impl Write, message: &Message) -> io::Result<()> {
    out.write_all(&message.payload)?;
    out.write_all(b"\n")
}

/// Prints a message as a JSON object on a line.
fn json(out: &mut impl Write, message: &Message) -> io::Result<()> {
    let time = message.publish_time.map(SystemTime::try_from).and_then(Result::ok);
    let object = json!({
        "offset": message.offset,
        "key": message.key.as_deref().map(text_or_base64),
        "headers": message.headers,
        "time": time.map(|time| humantime::format_rfc3339_micros(time).to_string()),
        "producer": message.producer_id,
        "payload": text_or_base64(&message.payload),
    });
    writeln!(out, "{object}")
}

/// Bytes as a string if they are one, else as `{"base64": …}`.
fn text_or_base64(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_told_in_base64() {
        let message = Message {
            offset: 7,
            payload: vec![0xff, 0x00].into(),
            key: Some("k\"".into()),
            headers: [("a".to_owned(), "b".to_owned())].into(),
            publish_time: Some(SystemTime::UNIX_EPOCH.into()),
            producer_id: "p".to_owned(),
        };
        let mut out = Vec::new();
        json(&mut out, &message).unwrap();
        let told: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            told,
            json!({
                "offset": 7, "key": "k\"", "headers": {"a": "b"}, "producer": "p",
                "time": "1970-01-01T00:00:00.000000Z", "payload": {"base64": "/wA="},
            })
        );
    }
}
