//! Messages out of lines.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;

use crate::proto::{MAX_MESSAGE_BYTES, NewMessage};

/// What a line is made of.
pub(super) struct Shape {
    key_separator: Option<Vec<u8>>,
    headers: BTreeMap<String, String>,
    json: bool,
}

/// A line of JSON; fields that are told of a message but not given to one are passed over.
#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    payload: Option<Data>,
    #[serde(default)]
    key: Option<Data>,
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
}

/// Bytes, as text or in base64.
#[derive(Deserialize)]
#[serde(untagged, expecting = "payload and key are a string or {\"base64\": \"…\"}")]
enum Data {
    Text(String),
    Base64 { base64: String },
}

impl Shape {
    pub(super) fn new(
        key_separator: Option<String>,
        headers: Vec<(String, String)>,
        json: bool,
    ) -> Self {
        let key_separator = key_separator.map(String::into_bytes);
        Self { key_separator, headers: headers.into_iter().collect(), json }
    }

    /// How long a line may be: in JSON, bytes may take more room than they have.
    pub(super) fn max_line_bytes(&self) -> usize {
        if self.json { 8 * MAX_MESSAGE_BYTES } else { MAX_MESSAGE_BYTES }
    }

    /// A line's message, or what is wrong with it.
    pub(super) fn message(&self, line: Bytes) -> Result<NewMessage, String> {
        let mut message = match &self.key_separator {
            _ if self.json => from_json(&line)?,
            Some(separator) => split(&line, separator)?,
            None => NewMessage { payload: line, ..NewMessage::default() },
        };
        if !self.headers.is_empty() {
            let own = std::mem::replace(&mut message.headers, self.headers.clone());
            // What a line says itself goes before what is said of all.
            message.headers.extend(own);
        }
        Ok(message)
    }
}

fn split(line: &Bytes, separator: &[u8]) -> Result<NewMessage, String> {
    if separator.is_empty() {
        return Err("the key separator is empty".to_owned());
    }
    let Some(at) = line.windows(separator.len()).position(|window| window == separator) else {
        return Err(format!("holds no key separator {:?}", String::from_utf8_lossy(separator)));
    };
    let payload = line.slice(at + separator.len()..);
    Ok(NewMessage { payload, key: Some(line.slice(..at)), ..NewMessage::default() })
}

fn from_json(line: &[u8]) -> Result<NewMessage, String> {
    let Object { payload, key, headers } =
        serde_json::from_slice(line).map_err(|error| format!("read JSON: {error}"))?;
    Ok(NewMessage {
        payload: payload.map(bytes).transpose()?.unwrap_or_default(),
        key: key.map(bytes).transpose()?,
        headers: headers.unwrap_or_default(),
    })
}

fn bytes(data: Data) -> Result<Bytes, String> {
    match data {
        Data::Text(text) => Ok(text.into()),
        Data::Base64 { base64 } => {
            let bytes = STANDARD.decode(base64).map_err(|error| format!("read base64: {error}"))?;
            Ok(bytes.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(separator: Option<&str>, headers: &[(&str, &str)], json: bool) -> Shape {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Shape::new(separator.map(str::to_owned), headers, json)
    }

    #[test]
    fn a_line_is_a_payload_or_a_key_and_a_payload() {
        let plain = shape(None, &[("a", "b")], false).message("k:v".into()).unwrap();
        assert_eq!(plain, NewMessage::new("k:v").with_header("a", "b"));
        let keyed = shape(Some("::"), &[], false);
        assert_eq!(keyed.message("k::v::w".into()), Ok(NewMessage::new("v::w").with_key("k")));
        assert_eq!(keyed.message("::".into()), Ok(NewMessage::new("").with_key("")));
        assert!(keyed.message("k:v".into()).unwrap_err().contains("no key separator \"::\""));
    }

    #[test]
    fn a_line_of_json_is_what_consume_prints() {
        let json = shape(None, &[("a", "all"), ("b", "all")], true);
        let line = r#"{"offset":7,"key":"k","headers":{"a":"own"},"payload":{"base64":"/wA="}}"#;
        let expected = NewMessage::new(vec![0xff, 0])
            .with_key("k")
            .with_header("a", "own")
            .with_header("b", "all");
        assert_eq!(json.message(line.into()), Ok(expected));
        let bare = shape(None, &[], true);
        assert_eq!(bare.message("{}".into()), Ok(NewMessage::default()));
        assert_eq!(
            bare.message(r#"{"payload":null,"key":""}"#.into()),
            Ok(NewMessage::new("").with_key(""))
        );
        for bad in [
            "",
            "{",
            "7",
            r#"{"payload":7}"#,
            r#"{"payload":{"base64":"?"}}"#,
            r#"{"headers":{"a":1}}"#,
        ] {
            assert!(bare.message(bad.into()).is_err(), "{bad}");
        }
    }
}
