//! Payloads as people read them: as text, as JSON, or as numbers.

use std::fmt::Write as _;

use maud::{Markup, html};
use serde::Deserialize;

use super::format;

/// How much of a payload is shown in one line, and in all.
const PREVIEW: usize = 200;
const SHOWN: usize = 64 * 1024;

/// How far JSON is indented at most: deeper nesting would make a small payload a huge page.
const DEEPEST: usize = 32;

/// How many bytes a line of hexadecimal numbers shows.
const HEX_LINE: usize = 16;

/// How to show a payload.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Form {
    Text,
    Json,
    Hex,
}

/// A payload, and how to show it.
pub(super) struct Payload<'a> {
    bytes: &'a [u8],
    pub(super) form: Form,
    /// It as JSON, if that is its form.
    json: Option<String>,
}

impl<'a> Payload<'a> {
    /// In a form, or in the most telling one that it has.
    pub(super) fn new(bytes: &'a [u8], form: Option<Form>) -> Self {
        let is_text = || std::str::from_utf8(bytes).is_ok();
        let json = match form {
            None | Some(Form::Json) => as_json(bytes),
            Some(_) => None,
        };
        let form = form.unwrap_or_else(|| match json.is_some() {
            true => Form::Json,
            false if is_text() => Form::Text,
            false => Form::Hex,
        });
        Self { bytes, form, json }
    }
}

/// Shows a payload.
pub(super) fn show(payload: Payload<'_>) -> Markup {
    let Payload { bytes: payload, form, json } = payload;
    let begin = &payload[..payload.len().min(SHOWN)];
    let shown = match form {
        Form::Json => match json {
            Some(json) => json,
            None if begin.len() < payload.len() => {
                return html! { p.muted { "The payload is too large to be shown as JSON." } };
            }
            None => return html! { p.muted { "The payload is not JSON." } },
        },
        Form::Text => String::from_utf8_lossy(begin).into_owned(),
        Form::Hex => hex(begin),
    };
    let class = if form == Form::Hex { "payload payload-hex" } else { "payload" };
    html! {
        @if payload.is_empty() {
            p.muted { "The payload is empty." }
        } @else {
            pre class=(class) tabindex="0" aria-label="Payload" { code { (shown) } }
            @if begin.len() < payload.len() {
                p.muted { "Only the first " (format::bytes(SHOWN as i64)) " are shown." }
            }
        }
    }
}

/// JSON with line breaks; `None` if the payload is none, or too large to be shown whole.
fn as_json(payload: &[u8]) -> Option<String> {
    let value = (payload.len() <= SHOWN).then_some(payload)?;
    let value: Box<serde_json::value::RawValue> = serde_json::from_slice(value).ok()?;
    // Not by way of a `Value`, which would sort the names and round numbers.
    Some(indent(value.get()))
}

/// Breaks JSON into lines, and changes nothing else.
fn indent(json: &str) -> String {
    let (mut text, mut depth, mut in_string, mut escaped) = (String::new(), 0, false, false);
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth.min(DEEPEST)));
    };
    let mut letters = json.chars().peekable();
    while let Some(letter) = letters.next() {
        if in_string {
            text.push(letter);
            in_string = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
            continue;
        }
        match letter {
            '"' => {
                in_string = true;
                text.push(letter);
            }
            '{' | '[' => {
                text.push(letter);
                while letters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                let end = if letter == '{' { '}' } else { ']' };
                match letters.next_if_eq(&end) {
                    Some(end) => text.push(end),
                    None => {
                        depth += 1;
                        line(&mut text, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(letter);
            }
            ',' => {
                text.push(letter);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            letter if letter.is_ascii_whitespace() => {}
            letter => text.push(letter),
        }
    }
    text
}

/// Bytes as hexadecimal numbers, and as letters.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, line) in bytes.chunks(HEX_LINE).enumerate() {
        let _ = write!(text, "{:08x} ", number * HEX_LINE);
        for place in 0..HEX_LINE {
            match line.get(place) {
                Some(byte) => drop(write!(text, " {byte:02x}")),
                None => text.push_str("   "),
            }
        }
        text.push_str("  ");
        let letter = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' };
        text.extend(line.iter().map(letter));
        text.push('\n');
    }
    text
}

/// The beginning of some bytes in one line. What is no text, or cannot be seen, is replaced.
pub(super) fn one_line(bytes: &[u8]) -> String {
    let begin = &bytes[..bytes.len().min(4 * PREVIEW)];
    let text = String::from_utf8_lossy(begin);
    let visible = |letter: char| match letter {
        '\n' | '\r' | '\t' => ' ',
        letter if letter.is_control() => '\u{fffd}',
        letter => letter,
    };
    let mut line: String = text.chars().map(visible).take(PREVIEW).collect();
    if text.chars().nth(PREVIEW).is_some() || begin.len() < bytes.len() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_broken_into_lines_and_nothing_else_changes() {
        for (json, lines) in [
            (
                r#"{"b":1.10,"a":[1,{}],"s":"x,\"{y"}"#,
                "{\n  \"b\": 1.10,\n  \"a\": [\n    1,\n    {}\n  ],\n  \"s\": \"x,\\\"{y\"\n}",
            ),
            ("[ ]", "[]"),
            ("12345678901234567890123", "12345678901234567890123"),
            (r#""a\\""#, r#""a\\""#),
        ] {
            assert_eq!(as_json(json.as_bytes()).as_deref(), Some(lines));
        }
        let deep = ["[".repeat(SHOWN / 2), "]".repeat(SHOWN / 2)].concat();
        assert!(as_json(deep.as_bytes()).unwrap().len() < 8 * 1024 * 1024);
        assert_eq!(as_json(b"{"), None);
        assert_eq!(as_json(&[0xff]), None);
    }

    #[test]
    fn bytes_are_shown_as_numbers_and_letters() {
        let text = hex(b"hello, world! 12\x00");
        let first = "00000000  68 65 6c 6c 6f 2c 20 77 6f 72 6c 64 21 20 31 32  hello, world! 12\n";
        assert!(text.starts_with(first), "{text}");
        assert!(text.ends_with("  .\n"), "{text}");
    }

    #[test]
    fn a_preview_is_one_line_of_what_can_be_seen() {
        assert_eq!(one_line(b"a\nb\x1b[31m"), "a b\u{fffd}[31m");
        assert_eq!(one_line(&[b'x'; 1_000]).chars().count(), PREVIEW + 1);
        assert_eq!(one_line(&[0xff, b'y']), "\u{fffd}y");
    }
}
