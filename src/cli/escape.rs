//! Text that others have written, made harmless for a terminal.
//!
//! A description, a client's name or an error can hold what moves the cursor, sets a title or turns
//! the order of letters around. In everything for people such characters are shown as `\u{1b}`,
//! wherever the output goes: it may be shown on a terminal later. In JSON they are escaped as JSON
//! does. Payloads, keys and headers that messages are printed with are data, and stay as they are.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
};

use serde::Serialize as _;
use serde_json::{
    Serializer, Value,
    ser::{CompactFormatter, Formatter, PrettyFormatter},
};

/// The text on one line, without anything that a terminal acts upon.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c if acts(c) => {
                // Writing to a string does not fail.
                let _ = write!(escaped, "\\u{{{:x}}}", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Whether a terminal may act upon a character rather than show it: control characters, those that
/// end lines, and those that change the direction of what follows.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}')
}

/// Writes a value as one line of JSON.
pub(super) fn write_json_line(out: &mut impl Write, value: &Value) -> io::Result<()> {
    write_json(&mut *out, value, CompactFormatter)?;
    out.write_all(b"\n")
}

/// Writes a value as JSON over several lines.
pub(super) fn write_pretty_json(out: &mut impl Write, value: &Value) -> io::Result<()> {
    write_json(&mut *out, value, PrettyFormatter::new())?;
    out.write_all(b"\n")
}

fn write_json(out: &mut impl Write, value: &Value, inner: impl Formatter) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, Escaping(inner)))?;
    Ok(())
}

/// JSON that is ASCII where a terminal would act: JSON itself escapes only what lies below U+0020.
struct Escaping<F>(F);

impl<F: Formatter> Formatter for Escaping<F> {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|&(_, c)| acts(c)) {
            out.write_all(&rest.as_bytes()[..at])?;
            // All of them lie below U+10000, where one escape is enough.
            write!(out, "\\u{:04x}", u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        out.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_upon_is_left() {
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
    fn json_says_the_same_in_characters_that_a_terminal_shows() {
        let all: String = (0..=0xa0).chain(0x2000..0x2070).filter_map(char::from_u32).collect();
        let value = json!({ "text": all, "list": [1, [], {}], "k\u{9b}": null });
        let mut lines = [Vec::new(), Vec::new()];
        write_json_line(&mut lines[0], &value).unwrap();
        write_pretty_json(&mut lines[1], &value).unwrap();
        for line in lines {
            let line = String::from_utf8(line).unwrap();
            assert!(!line.contains(|c| acts(c) && c != '\n'), "{line:?}");
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
}
