//! Messages as they are printed.

use std::io::{self, Write};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    escape::{self, Data},
    format::FormatArgs,
    timestamp,
};
use crate::client::Message;

/// Prints messages in the given format; by default, each payload as a line.
pub(super) fn messages(
    out: &mut impl Write,
    topic: &str,
    messages: &[Message],
    format: &FormatArgs,
    data: Data,
) -> io::Result<()> {
    messages.iter().try_for_each(|one| message(out, topic, one, format, data))
}

/// Prints a message; `data` says how its parts are written.
pub(super) fn message(
    out: &mut impl Write,
    topic: &str,
    message: &Message,
    format: &FormatArgs,
    data: Data,
) -> io::Result<()> {
    match &format.format {
        Some(format) => format.print(out, topic, message, data),
        None if format.json => escape::write_json_line(out, &object(message)),
        None => {
            data.write_payload(out, &message.payload)?;
            out.write_all(b"\n")
        }
    }
}

/// A message as the JSON object that `produce --json` reads.
fn object(message: &Message) -> Value {
    json!({
        "offset": message.offset,
        "key": message.key.as_deref().map(text_or_base64),
        "headers": message.headers,
        "time": timestamp::micros(message.publish_time),
        "producer": &*message.producer_id,
        "payload": text_or_base64(&message.payload),
    })
}

/// Bytes as a string if they are UTF-8, else as `{"base64": …}`.
fn text_or_base64(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::proto;

    #[test]
    fn bytes_that_are_not_text_are_printed_in_base64() {
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
