//! Lines of JSON that other tools have written.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::problem::Problem;
use crate::proto::NewMessage;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(problem: Problem) -> String {
        format!("{}: {problem}", problem.column.map_or("-".to_owned(), |at| at.to_string()))
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
