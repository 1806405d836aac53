//! Turns lines into messages.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{super::lines::Line, delay, foreign_json, json, problem::Problem};
use crate::proto::{MAX_MESSAGE_BYTES, NewMessage};

/// The header of a cut line that contains the length of the whole line.
const CUT_HEADER: &str = "line-bytes";

/// What a line consists of.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Form {
    /// The payload.
    Payload,
    /// A key and a payload.
    Keyed { separator: String },
    /// A JSON object as `consume --json` prints it.
    Json,
    /// A JSON object, of which one field is the payload.
    JsonField { payload: String, key: Option<String> },
    /// JSON, all of which is the payload.
    WholeJson { key: Option<String> },
}

impl Form {
    /// Whether the payload is plain text, so that it can be cut.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Payload | Self::Keyed { .. })
    }
}

/// What to do with a line that cannot be a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnBadLine {
    /// Stop the run; the lines before it are stored.
    #[default]
    Stop,
    /// Skip it, and name it at the end.
    Skip,
    /// Cut a line over the limit to it; skip any other.
    Cut,
    /// Cut a line over the limit to it; stop at any other. The default with `--resume`, so that one
    /// long line does not stop the shipping of a log for good.
    #[value(skip)]
    CutOrStop,
}

impl OnBadLine {
    /// Whether a line that can neither be a message nor be cut stops the run.
    pub(super) fn stops(self) -> bool {
        matches!(self, Self::Stop | Self::CutOrStop)
    }
}

/// How lines become messages. It is stored with the position in a file, as only the same rule turns
/// the same lines into the same messages.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) form: Form,
    /// Headers of all messages.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) on_bad_line: OnBadLine,
    /// How long after it is read a line is to be delivered to workers, if not at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delay: Option<Duration>,
}

/// A line's message.
#[derive(Debug, PartialEq)]
pub(super) struct ShapedMessage {
    pub(super) message: NewMessage,
    /// Whether the line was cut to the limit.
    pub(super) is_cut: bool,
}

impl Rule {
    /// How many bytes of a line are read: JSON may take more bytes than the payload in it.
    pub(super) fn max_line_bytes(&self) -> usize {
        match &self.form {
            Form::Payload => MAX_MESSAGE_BYTES,
            Form::Keyed { separator } => MAX_MESSAGE_BYTES + separator.len(),
            Form::Json | Form::JsonField { .. } => 8 * MAX_MESSAGE_BYTES,
            // The whole line is the payload.
            Form::WholeJson { .. } => MAX_MESSAGE_BYTES,
        }
    }

    /// The problem with a line over the limit.
    pub(super) fn too_long(&self) -> Problem {
        Problem::new(&format!("is longer than the limit of {} bytes", self.max_line_bytes()))
    }

    /// A line's message, or the problem with the line.
    pub(super) fn shape(&self, line: &Line) -> Result<ShapedMessage, Problem> {
        let cuts = matches!(self.on_bad_line, OnBadLine::Cut | OnBadLine::CutOrStop);
        let may_cut = cuts && self.form.is_plain();
        let limit = self.max_line_bytes();
        let is_whole = line.length <= limit as u64;
        if !is_whole && !may_cut {
            return Err(self.too_long());
        }
        let mut message = self.message(line.bytes.slice(..line.bytes.len().min(limit)))?;
        if !self.headers.is_empty() {
            let own = std::mem::replace(&mut message.headers, self.headers.clone());
            // A line's own headers take precedence.
            message.headers.extend(own);
        }
        if let Some(delay) = self.delay {
            let (name, value) = delay::header(SystemTime::now() + delay);
            message.headers.entry(name).or_insert(value);
        }
        let fits = is_whole.then(|| message.check());
        match fits {
            Some(Ok(())) => return Ok(ShapedMessage { message, is_cut: false }),
            Some(Err(error)) if !may_cut || !is_too_large(&message) => {
                return Err(Problem::new(&error.to_string()));
            }
            _ => {}
        }
        cut(&mut message, line.length);
        message.check().map_err(|error| Problem::new(&error.to_string()))?;
        Ok(ShapedMessage { message, is_cut: true })
    }

    fn message(&self, line: Bytes) -> Result<NewMessage, Problem> {
        match &self.form {
            Form::Payload => Ok(NewMessage { payload: line, ..NewMessage::default() }),
            Form::Keyed { separator } => split(&line, separator),
            Form::Json => json::message(&line),
            Form::JsonField { payload, key } => {
                foreign_json::field_message(&line, payload, key.as_deref())
            }
            Form::WholeJson { key } => foreign_json::whole_message(line, key.as_deref()),
        }
    }
}

fn split(line: &Bytes, separator: &str) -> Result<NewMessage, Problem> {
    let separator = separator.as_bytes();
    // The size of windows must not be 0; the command line refuses an empty separator.
    let mut windows = line.windows(separator.len().max(1));
    let Some(at) = windows.position(|window| window == separator) else {
        let separator = String::from_utf8_lossy(separator);
        return Err(Problem::new(&format!("contains no key separator {separator:?}")));
    };
    let payload = line.slice(at + separator.len()..);
    Ok(NewMessage { payload, key: Some(line.slice(..at)), ..NewMessage::default() })
}

/// The size of a message without its payload.
fn overhead(message: &NewMessage) -> usize {
    let headers = message.headers.iter().map(|(name, value)| name.len() + value.len());
    message.key.as_ref().map_or(0, Bytes::len) + headers.sum::<usize>()
}

fn is_too_large(message: &NewMessage) -> bool {
    overhead(message) + message.payload.len() > MAX_MESSAGE_BYTES
}

/// Cuts the payload so that the message fits, and adds a header with the line's length.
fn cut(message: &mut NewMessage, line_bytes: u64) {
    message.headers.insert(CUT_HEADER.to_owned(), line_bytes.to_string());
    let room = MAX_MESSAGE_BYTES.saturating_sub(overhead(message));
    cut_payload(&mut message.payload, room);
}

/// Cuts a payload to `room` bytes, or up to three fewer so as not to split a UTF-8 character.
pub(super) fn cut_payload(payload: &mut Bytes, room: usize) {
    let continues = |at: usize| payload.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let end = (room.saturating_sub(3)..=room).rev().find(|&at| !continues(at));
    payload.truncate(end.unwrap_or(room));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::DELIVER_AT_HEADER;

    fn rule(form: Form, headers: &[(&str, &str)], on_bad_line: OnBadLine) -> Rule {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Rule { form, headers, on_bad_line, delay: None }
    }

    fn keyed(separator: &str) -> Form {
        Form::Keyed { separator: separator.to_owned() }
    }

    /// A line, of which `kept` bytes are in memory.
    fn line(text: impl Into<Bytes>, kept: usize) -> Line {
        let mut bytes = text.into();
        let length = bytes.len() as u64;
        bytes.truncate(kept);
        Line { bytes, length, number: 1, start: 0, end: length + 1 }
    }

    fn message(rule: &Rule, text: &'static str) -> Result<NewMessage, String> {
        let shaped = rule.shape(&line(text, usize::MAX)).map_err(|problem| problem.to_string())?;
        assert!(!shaped.is_cut);
        Ok(shaped.message)
    }

    #[test]
    fn a_line_is_a_payload_or_a_key_and_a_payload() {
        let plain = rule(Form::Payload, &[("a", "b")], OnBadLine::Stop);
        assert_eq!(message(&plain, "k:v"), Ok(NewMessage::new("k:v").with_header("a", "b")));
        let keyed = rule(keyed("::"), &[], OnBadLine::Stop);
        assert_eq!(message(&keyed, "k::v::w"), Ok(NewMessage::new("v::w").with_key("k")));
        assert_eq!(message(&keyed, "::"), Ok(NewMessage::new("").with_key("")));
        assert!(message(&keyed, "k:v").unwrap_err().contains("no key separator \"::\""));
    }

    #[test]
    fn bytes_are_not_changed() {
        let plain = rule(Form::Payload, &[], OnBadLine::Stop);
        let bytes = Bytes::from_static(b"\0\xff\xfe\r");
        let shaped = plain.shape(&line(bytes.clone(), usize::MAX)).unwrap();
        assert_eq!(shaped.message.payload, bytes);
    }

    #[test]
    fn headers_of_a_line_take_precedence() {
        let json = rule(Form::Json, &[("a", "all"), ("b", "all")], OnBadLine::Stop);
        let expected = NewMessage::new("x").with_header("a", "own").with_header("b", "all");
        assert_eq!(message(&json, r#"{"payload":"x","headers":{"a":"own"}}"#), Ok(expected));
    }

    #[test]
    fn a_line_that_breaks_a_limit_is_refused() {
        let plain = rule(Form::Payload, &[("", "v")], OnBadLine::Skip);
        assert!(message(&plain, "x").unwrap_err().contains("empty name"));
        let plain = rule(Form::Payload, &[], OnBadLine::Skip);
        let long = line(vec![b'x'; MAX_MESSAGE_BYTES + 1], MAX_MESSAGE_BYTES);
        let problem = plain.shape(&long).unwrap_err().to_string();
        assert_eq!(problem, "is longer than the limit of 1048576 bytes");
    }

    #[test]
    fn a_line_over_the_limit_is_cut_to_it() {
        let plain = rule(Form::Payload, &[("from", "here")], OnBadLine::Cut);
        // Over the limit without its header, and only with it.
        for length in [3 * MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES] {
            let shaped = plain.shape(&line(vec![b'x'; length], MAX_MESSAGE_BYTES)).unwrap();
            assert!(shaped.is_cut);
            assert_eq!(shaped.message.headers["line-bytes"], length.to_string());
            let size = overhead(&shaped.message) + shaped.message.payload.len();
            assert_eq!(size, MAX_MESSAGE_BYTES);
        }
        let keyed = rule(keyed(":"), &[], OnBadLine::Cut);
        let mut text = b"k:".to_vec();
        text.resize(2 * MAX_MESSAGE_BYTES, b'x');
        let shaped = keyed.shape(&line(text, keyed.max_line_bytes())).unwrap();
        assert_eq!(shaped.message.key.as_deref(), Some(&b"k"[..]));
        let none = keyed.shape(&line(vec![b'x'; 2 * MAX_MESSAGE_BYTES], keyed.max_line_bytes()));
        assert!(none.unwrap_err().to_string().contains("no key separator"));
        // JSON cannot be cut.
        let json = rule(Form::Json, &[], OnBadLine::Cut);
        let long = line(vec![b' '; 9 * MAX_MESSAGE_BYTES], json.max_line_bytes());
        assert!(json.shape(&long).unwrap_err().to_string().contains("is longer"));
    }

    #[test]
    fn no_character_is_split() {
        for (room, expected) in [(5, "aüb"), (3, "aü"), (2, "a"), (1, "a"), (0, "")] {
            let mut payload = Bytes::from("aüb");
            cut_payload(&mut payload, room);
            assert_eq!(payload, expected, "{room}");
        }
        let mut bytes = Bytes::from_static(&[0x80; 10]);
        cut_payload(&mut bytes, 6);
        assert_eq!(bytes.len(), 6);
    }

    #[test]
    fn a_line_is_delayed_unless_it_says_when_it_is_to_be_delivered() {
        let delay = Duration::from_secs(60);
        let delayed = |rule: Rule| Rule { delay: Some(delay), ..rule };
        let plain = delayed(rule(Form::Payload, &[], OnBadLine::Cut));
        let before = SystemTime::now();
        for length in [1, 2 * MAX_MESSAGE_BYTES] {
            let shaped = plain.shape(&line(vec![b'x'; length], MAX_MESSAGE_BYTES)).unwrap();
            let text = &shaped.message.headers[DELIVER_AT_HEADER];
            let wait = humantime::parse_rfc3339(text).unwrap().duration_since(before).unwrap();
            assert!(wait >= delay && wait < 2 * delay, "{wait:?}");
        }
        let json = delayed(rule(Form::Json, &[], OnBadLine::Stop));
        let own = r#"{"payload":"x","headers":{"trunkline-deliver-at":"2026-01-01T00:00:00Z"}}"#;
        let message = message(&json, own).unwrap();
        assert_eq!(message.headers[DELIVER_AT_HEADER], "2026-01-01T00:00:00Z");
    }

    #[test]
    fn a_rule_is_stored_as_json() {
        for form in [Form::Payload, keyed(":"), Form::WholeJson { key: None }] {
            let mut rule = rule(form, &[("a", "b")], OnBadLine::Cut);
            for delay in [None, Some(Duration::from_millis(1_500))] {
                rule.delay = delay;
                let text = serde_json::to_string(&rule).unwrap();
                assert_eq!(text.contains("delay"), delay.is_some(), "{text}");
                assert_eq!(serde_json::from_str::<Rule>(&text).unwrap(), rule, "{text}");
            }
        }
    }
}
