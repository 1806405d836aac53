//! The problem with a bad line.

use std::fmt;

use super::super::escape::printable;

/// A problem may quote the line, so it is cut to this many characters.
const MAX_CHARS: usize = 300;

/// Why a line cannot be a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// The column in the line, if known; counts from 1.
    pub(super) column: Option<usize>,
    text: String,
}

impl Problem {
    pub(super) fn new(text: &str) -> Self {
        Self { column: None, text: excerpt(text, MAX_CHARS) }
    }

    /// Whether the text is a predicate of the line, as in "line 7 is longer than …".
    pub(super) fn is_predicate(&self) -> bool {
        self.text.starts_with("is longer")
    }

    /// The problem with a line of JSON, followed by a hint.
    pub(super) fn of_json(error: &serde_json::Error, help: &str) -> Self {
        let text = error.to_string();
        // The parser sees one line only, so its line number means nothing.
        let place = format!(" at line {} column {}", error.line(), error.column());
        let text = text.strip_suffix(&place).unwrap_or(&text);
        let column = (error.line() > 0).then(|| error.column().max(1));
        Self { column, text: format!("read JSON: {}{help}", excerpt(text, MAX_CHARS)) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The beginning of a text, with control characters escaped, as it may come from anyone.
pub(super) fn excerpt(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", printable(&text[..end])),
        None => printable(text).into_owned(),
    }
}

/// The same as [`excerpt`] in ASCII, which every database can store.
pub(super) fn ascii_excerpt(text: &str, max_chars: usize) -> String {
    let mut ascii = String::new();
    for c in excerpt(text, max_chars).chars() {
        match c.is_ascii() {
            true => ascii.push(c),
            false => ascii.extend(c.escape_unicode()),
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_line_is_cut_and_escaped() {
        assert_eq!(excerpt("a\u{1b}[31mü\n", 100), "a\\u{1b}[31mü\\n");
        assert_eq!(excerpt("abcdef", 3), "abc…");
        assert_eq!(ascii_excerpt("a\n€bc", 3), "a\\n\\u{20ac}\\u{2026}");
        assert_eq!(excerpt("abc", 3), "abc");
    }
}
