//! Lines of JSON in the command's own format.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::problem::Problem;
use crate::proto::NewMessage;

/// A hint for lines that other tools have written.
const FOREIGN: &str = "; for the output of other tools, --payload-field names the field that is the \
                       payload, and --json-payload takes the whole line";

/// The format that `consume --json` prints. The broker assigns offset, time and producer, so they
/// are accepted and ignored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageObject {
    payload: Data,
    #[serde(default)]
    key: Option<Data>,
    #[serde(default)]
    headers: Option<Headers>,
    #[serde(default, rename = "offset")]
    _offset: Option<i64>,
    #[serde(default, rename = "time")]
    _time: Option<String>,
    #[serde(default, rename = "producer")]
    _producer: Option<String>,
}

/// A [`MessageObject`] that is not read from an array: derived code also accepts fields by
/// position.
struct MessageObjectAlone(MessageObject);

/// Bytes, as text or as base64.
struct Data(Bytes);

/// Bytes that are not text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64<'a> {
    #[serde(borrow)]
    base64: Cow<'a, str>,
}

/// Headers with unique names.
struct Headers(BTreeMap<String, String>);

/// Reads a line of the command's own format.
pub(super) fn message(line: &[u8]) -> Result<NewMessage, Problem> {
    let MessageObjectAlone(object) = serde_json::from_slice(line).map_err(|error| {
        let foreign = error.is_data() && starts_with_field_problem(&error.to_string());
        Problem::of_json(&error, if foreign { FOREIGN } else { "" })
    })?;
    let MessageObject { payload, key, headers, .. } = object;
    Ok(NewMessage {
        payload: payload.0,
        key: key.map(|key| key.0),
        headers: headers.map(|headers| headers.0).unwrap_or_default(),
        ..NewMessage::default()
    })
}

fn starts_with_field_problem(text: &str) -> bool {
    text.starts_with("unknown field") || text.starts_with("missing field")
}

impl<'de> Deserialize<'de> for MessageObjectAlone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = MessageObjectAlone;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MessageObjectAlone, A::Error> {
                MessageObject::deserialize(MapAccessDeserializer::new(map)).map(MessageObjectAlone)
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DataVisitor;

        impl<'de> Visitor<'de> for DataVisitor {
            type Value = Data;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or {\"base64\": \"…\"}")
            }

            fn visit_str<E>(self, text: &str) -> Result<Data, E> {
                Ok(Data(Bytes::copy_from_slice(text.as_bytes())))
            }

            fn visit_string<E>(self, text: String) -> Result<Data, E> {
                Ok(Data(text.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Data, A::Error> {
                let Base64 { base64 } = Base64::deserialize(MapAccessDeserializer::new(map))?;
                let decoded = STANDARD
                    .decode(base64.as_bytes())
                    .map_err(|error| A::Error::custom(format_args!("decode base64: {error}")))?;
                Ok(Data(decoded.into()))
            }
        }

        deserializer.deserialize_any(DataVisitor)
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadersVisitor;

        impl<'de> Visitor<'de> for HeadersVisitor {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if headers.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("duplicate header `{name}`")));
                    }
                    headers.insert(name, value);
                }
                Ok(Headers(headers))
            }
        }

        deserializer.deserialize_map(HeadersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(problem: Problem) -> String {
        format!("{}: {problem}", problem.column.map_or("-".to_owned(), |at| at.to_string()))
    }

    fn refused(line: &str) -> String {
        describe(message(line.as_bytes()).expect_err(line))
    }

    #[test]
    fn the_output_of_consume_is_read() {
        let line = r#"{"offset":7,"key":"k","headers":{"a":"b"},"time":"1970-01-01T00:00:00Z","producer":"p","payload":{"base64":"/wA="}}"#;
        let expected = NewMessage::new(vec![0xff, 0]).with_key("k").with_header("a", "b");
        assert_eq!(message(line.as_bytes()), Ok(expected));
        let line = br#"{"key":null,"headers":{},"payload":""}"#;
        assert_eq!(message(line), Ok(NewMessage::default()));
        let escaped = "{\"payload\":\"\\u0000\\n\",\"key\":{\"base64\":\"\"}}\r";
        assert_eq!(message(escaped.as_bytes()), Ok(NewMessage::new("\0\n").with_key("")));
    }

    #[test]
    fn json_that_would_lose_data_is_refused_with_its_column() {
        for (line, problem) in [
            (r#"{"log":"a","stream":"stdout"}"#, "unknown field `log`"),
            (r#"{"Payload":"x"}"#, "unknown field `Payload`"),
            (r#"{}"#, "missing field `payload`"),
            (r#"{"key":"k"}"#, "missing field `payload`"),
        ] {
            let text = refused(line);
            assert!(text.contains(problem) && text.contains("--payload-field"), "{text}");
            assert!(!text.starts_with('-'), "{text}");
        }
        for (line, problem) in [
            ("", "EOF"),
            ("{", "EOF"),
            ("7", "expected an object"),
            (r#"["a"]"#, "invalid type: sequence, expected an object"),
            (r#"["a","k",{"h":"1"},1,null,null]"#, "expected an object"),
            (r#"{"payload":["AA=="]}"#, "expected a string or"),
            (r#"{"payload":"","headers":[["a","1"]]}"#, "expected an object of strings"),
            (r#"{"payload":null}"#, "invalid type: null, expected a string or"),
            (r#"{"payload":7}"#, "expected a string or {\"base64\": \"…\"}"),
            (r#"{"payload":"a","payload":"b"}"#, "duplicate field `payload`"),
            (r#"{"payload":"","headers":{"a":"1","a":"2"}}"#, "duplicate header `a`"),
            (r#"{"payload":"","headers":{"a":1}}"#, "expected a string"),
            (r#"{"payload":{"base64":"?"}}"#, "decode base64"),
            (r#"{"payload":{"base64":"","base64":""}}"#, "duplicate field `base64`"),
            (r#"{"payload":{"base64":"","text":""}}"#, "unknown field `text`"),
            (r#"{"payload":{}}"#, "missing field `base64`"),
            (r#"{"payload":"a"} x"#, "trailing characters"),
            (r#"{"payload":"\ud800"}"#, "hex escape"),
        ] {
            let text = refused(line);
            assert!(text.contains(problem), "{line}: {text}");
            assert!(!text.contains(" at line 1") && !text.starts_with('-'), "{text}");
        }
        assert!(refused(r#"{"payload":"a"} x"#).starts_with("17: "));
        assert!(message(b"{\"payload\":\"\xff\"}").is_err());
    }
}
