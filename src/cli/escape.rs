//! Escapes text from others, so that a terminal shows it and does not act upon it.
//!
//! A description, a client's name or an error may contain characters that move the cursor, set a
//! title or reverse the direction of text. All output for people shows such characters as `\u{1b}`,
//! wherever it goes: a file may be shown on a terminal later. JSON uses its own escapes.
//!
//! The payloads, keys, headers and ids of printed messages are data. They are escaped on a terminal,
//! and stay as they are, byte for byte, in a file or a pipe.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write},
};

use serde_json::Value;

/// The text on one line, without a character that a terminal acts upon.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_control(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// How the data of messages is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Data {
    /// Byte for byte.
    #[default]
    Raw,
    /// Without anything that a terminal acts upon.
    Escaped,
}

impl Data {
    /// How data is written to standard output.
    pub(super) fn of_standard_output() -> Self {
        if io::stdout().is_terminal() { Self::Escaped } else { Self::Raw }
    }

    /// Writes text or bytes that others chose.
    pub(super) fn write(self, out: &mut impl Write, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Raw => out.write_all(data),
            Self::Escaped => write_escaped(out, data, |_| false),
        }
    }

    /// As [`Self::write`], for a payload: its line feeds and tabs stay, as a terminal can show them.
    pub(super) fn write_payload(self, out: &mut impl Write, payload: &[u8]) -> io::Result<()> {
        match self {
            Self::Raw => out.write_all(payload),
            Self::Escaped => write_escaped(out, payload, |c| matches!(c, '\n' | '\t')),
        }
    }
}

/// Writes bytes as text; what is not UTF-8, such as an eight-bit control code, as `\xff`.
fn write_escaped(out: &mut impl Write, data: &[u8], kept: fn(char) -> bool) -> io::Result<()> {
    for chunk in data.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some((at, c)) = rest.char_indices().find(|&(_, c)| is_control(c) && !kept(c)) {
            write!(out, "{}{}", &rest[..at], c.escape_default())?;
            rest = &rest[at + c.len_utf8()..];
        }
        out.write_all(rest.as_bytes())?;
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// Whether a terminal may act upon a character rather than show it: control characters, line
/// separators, and characters that change the direction of the text that follows.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}')
}

/// Writes a value as one line of JSON.
pub(super) fn write_json_line(out: &mut impl Write, value: &Value) -> io::Result<()> {
    write_json(out, &serde_json::to_string(value)?)
}

/// Writes a value as JSON over several lines.
pub(super) fn write_pretty_json(out: &mut impl Write, value: &Value) -> io::Result<()> {
    write_json(out, &serde_json::to_string_pretty(value)?)
}

/// Writes JSON and a line's end, and escapes what JSON itself does not: the control characters from
/// U+007F on, which stand in strings only.
fn write_json(out: &mut impl Write, json: &str) -> io::Result<()> {
    let mut rest = json;
    // The line ends are those between the lines of the JSON, as JSON escapes others.
    while let Some((at, c)) = rest.char_indices().find(|&(_, c)| is_control(c) && c != '\n') {
        out.write_all(&rest.as_bytes()[..at])?;
        // All of them lie below U+10000, where one escape is enough.
        write!(out, "\\u{:04x}", u32::from(c))?;
        rest = &rest[at + c.len_utf8()..];
    }
    out.write_all(rest.as_bytes())?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_control_character_is_left() {
        for (text, shown) in [
            ("plain", "plain"),
            ("grüße 日本 🦀 C:\\new", "grüße 日本 🦀 C:\\new"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("a\u{9b}31m\u{85}b", "a\\u{9b}31m\\u{85}b"),
            ("a\nb\r\tc\u{8}\u{7f}", "a\\nb\\r\\tc\\u{8}\\u{7f}"),
            ("\u{202e}gpj.exe\u{2066}x\u{2069}", "\\u{202e}gpj.exe\\u{2066}x\\u{2069}"),
            ("a\u{2028}b\u{200f}\u{61c}", "a\\u{2028}b\\u{200f}\\u{61c}"),
            ("\0", "\\u{0}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let all: String = (0..=0xa0).chain(0x2000..0x2070).filter_map(char::from_u32).collect();
        let value = json!({ "text": all, "list": [1, [], {}], "k\u{9b}": null });
        let mut lines = [Vec::new(), Vec::new()];
        write_json_line(&mut lines[0], &value).unwrap();
        write_pretty_json(&mut lines[1], &value).unwrap();
        for line in lines {
            let line = String::from_utf8(line).unwrap();
            assert!(!line.contains(|c| is_control(c) && c != '\n'), "{line:?}");
            assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
        }
        let mut line = Vec::new();
        write_json_line(&mut line, &json!({ "a": "\u{9b}31m", "b": [1, "grüße"] })).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"a\":\"\\u009b31m\",\"b\":[1,\"grüße\"]}\n"
        );
        let mut pretty = Vec::new();
        let value = json!({ "a": [1, 2] });
        write_pretty_json(&mut pretty, &value).unwrap();
        let expected = serde_json::to_string_pretty(&value).unwrap() + "\n";
        assert_eq!(String::from_utf8(pretty).unwrap(), expected);
    }

    #[test]
    fn data_on_a_terminal_is_escaped_and_a_payload_keeps_its_lines() {
        let hostile = b"a\x1b[2J\r\n\tb\xe2\x80\xae\x9bc\xff";
        let written = |data: Data| {
            let (mut text, mut payload) = (Vec::new(), Vec::new());
            data.write(&mut text, hostile).unwrap();
            data.write_payload(&mut payload, hostile).unwrap();
            (text, payload)
        };
        assert_eq!(written(Data::Raw), (hostile.to_vec(), hostile.to_vec()));
        let text = b"a\\u{1b}[2J\\r\\n\\tb\\u{202e}\\x9bc\\xff".to_vec();
        let payload = b"a\\u{1b}[2J\\r\n\tb\\u{202e}\\x9bc\\xff".to_vec();
        assert_eq!(written(Data::Escaped), (text, payload));
    }
}
