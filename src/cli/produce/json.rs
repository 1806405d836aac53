//! Lines of JSON: the command's own format, and those of other tools.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer,
    },
};
use serde_json::value::RawValue;

use super::problem::Problem;
use crate::proto::NewMessage;

const FOREIGN: &str = "; for what other tools write, --payload-field names the field that is the \
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
    })
}

fn starts_with_field_problem(text: &str) -> bool {
    text.starts_with("unknown field") || text.starts_with("missing field")
}

/// Reads an object of any format, of which one field is the payload and another may be the key. A
/// string becomes its text, any other value stays JSON.
pub(super) fn field_message(
    line: &[u8],
    payload_field: &str,
    key_field: Option<&str>,
) -> Result<NewMessage, Problem> {
    let Fields { payload, key } = fields(line, Some(payload_field), key_field)?;
    let payload = payload
        .ok_or_else(|| Problem::new(&format!("its field {payload_field:?} is missing or null")))?;
    Ok(NewMessage { payload, key, ..NewMessage::default() })
}

/// Checks that a whole line is JSON, and makes it the payload; one field of an object may be the
/// key.
pub(super) fn whole_message(line: Bytes, key_field: Option<&str>) -> Result<NewMessage, Problem> {
    if let Err(error) = std::str::from_utf8(&line) {
        let mut problem = Problem::new("read JSON: it is not UTF-8");
        problem.column = Some(error.valid_up_to() + 1);
        return Err(problem);
    }
    let key = match key_field {
        Some(_) => fields(&line, None, key_field)?.key,
        None => {
            let read = serde_json::from_slice::<IgnoredAny>(&line);
            read.map_err(|error| Problem::of_json(&error, ""))?;
            None
        }
    };
    Ok(NewMessage { payload: line, key, ..NewMessage::default() })
}

/// The requested fields of an object.
#[derive(Default)]
struct Fields {
    payload: Option<Bytes>,
    key: Option<Bytes>,
}

/// Reads an object. The key's field is required, but may be null, which means no key.
fn fields(
    line: &[u8],
    payload_field: Option<&str>,
    key_field: Option<&str>,
) -> Result<Fields, Problem> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let seed = FieldsSeed { payload_field, key_field };
    let read = seed.deserialize(&mut json).and_then(|fields| json.end().map(|()| fields));
    read.map_err(|error| Problem::of_json(&error, ""))
}

struct FieldsSeed<'a> {
    payload_field: Option<&'a str>,
    key_field: Option<&'a str>,
}

impl<'de> DeserializeSeed<'de> for FieldsSeed<'_> {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        let (mut has_payload, mut has_key) = (false, false);
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let is_payload = self.payload_field == Some(&name);
            let is_key = self.key_field == Some(&name);
            let repeated = (is_payload && has_payload) || (is_key && has_key);
            if repeated {
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
            (has_payload, has_key) = (has_payload || is_payload, has_key || is_key);
            if !is_payload && !is_key {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = text_or_json(map.next_value::<&RawValue>()?).map_err(A::Error::custom)?;
            if is_payload {
                fields.payload.clone_from(&value);
            }
            if is_key {
                fields.key = value;
            }
        }
        match self.key_field {
            Some(name) if !has_key => Err(A::Error::custom(format_args!("missing field `{name}`"))),
            _ => Ok(fields),
        }
    }
}

/// The text of a string, or the JSON of any other value; `None` for null.
fn text_or_json(value: &RawValue) -> Result<Option<Bytes>, serde_json::Error> {
    let json = value.get();
    match json.as_bytes().first() {
        Some(b'"') => Ok(Some(serde_json::from_str::<String>(json)?.into())),
        _ if json == "null" => Ok(None),
        _ => Ok(Some(Bytes::copy_from_slice(json.as_bytes()))),
    }
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

    #[test]
    fn a_field_is_the_payload() {
        let read = |line: &str| field_message(line.as_bytes(), "log", Some("id"));
        let of = |payload: &'static str| NewMessage::new(payload);
        assert_eq!(read(r#"{"log":"a\n","id":7,"stream":"x"}"#), Ok(of("a\n").with_key("7")));
        assert_eq!(
            read(r#"{"id":"k","log":{"b": [1.50, null]}}"#),
            Ok(of(r#"{"b": [1.50, null]}"#).with_key("k"))
        );
        assert_eq!(read(r#"{"log":"","id":null}"#), Ok(of("")));
        for (line, problem) in [
            (r#"{"id":1}"#, "its field \"log\" is missing or null"),
            (r#"{"id":1,"log":null}"#, "its field \"log\" is missing or null"),
            (r#"{"log":"a"}"#, "missing field `id`"),
            (r#"{"log":"a","id":1,"log":"b"}"#, "duplicate field `log`"),
            (r#"["log"]"#, "expected an object"),
            (r#"{"log":"a","id":1}}"#, "trailing characters"),
            (r#"{"log":"a","id":1"#, "EOF"),
        ] {
            let text = describe(read(line).expect_err(line));
            assert!(text.contains(problem), "{line}: {text}");
        }
        // One field may be both.
        let both = field_message(br#"{"a":"x"}"#, "a", Some("a"));
        assert_eq!(both, Ok(of("x").with_key("x")));
    }

    #[test]
    fn a_whole_line_of_json_is_the_payload() {
        let line = r#"{"b": 1, "id": "k"}"#;
        assert_eq!(whole_message(line.into(), None), Ok(NewMessage::new(line)));
        assert_eq!(whole_message(line.into(), Some("id")), Ok(NewMessage::new(line).with_key("k")));
        assert_eq!(whole_message("7".into(), None), Ok(NewMessage::new("7")));
        for line in ["", "{", "a", "{} {}", "{'a':1}"] {
            assert!(whole_message(line.into(), None).is_err(), "{line}");
        }
        assert!(whole_message("7".into(), Some("id")).is_err());
        let text = describe(whole_message(Bytes::from_static(b"\"\xff\""), None).unwrap_err());
        assert_eq!(text, "2: read JSON: it is not UTF-8");
    }
}
