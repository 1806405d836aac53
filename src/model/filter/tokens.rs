//! Splits a filter into words, symbols and strings.

use std::fmt;

use super::error::FilterError;

/// How much of a word an error shows.
const SHOWN_CHARACTERS: usize = 40;

/// A piece of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword or a name: ASCII letters, digits, `_` and `-`.
    Word(&'a str),
    /// `!=`, or any other character that begins neither a word nor a string.
    Symbol(&'a str),
    /// The characters that a string in double quotes stands for.
    Quoted(String),
    /// The end of the filter.
    End,
}

/// What is left of a filter.
pub(super) struct Tokens<'a> {
    rest: &'a str,
    /// How many characters come before the rest.
    position: usize,
}

/// Names the token in an error.
impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => match word.get(..SHOWN_CHARACTERS) {
                Some(beginning) if beginning != *word => write!(f, "\"{beginning}…\""),
                _ => write!(f, "\"{word}\""),
            },
            Self::Symbol(symbol) => write!(f, "{symbol:?}"),
            Self::Quoted(text) if text.is_empty() => f.write_str("an empty string"),
            Self::Quoted(_) => f.write_str("a string in double quotes"),
            Self::End => f.write_str("the end of the filter"),
        }
    }
}

impl<'a> Tokens<'a> {
    pub(super) fn of(source: &'a str) -> Self {
        Self { rest: source, position: 0 }
    }

    /// The next token, and its position in characters.
    pub(super) fn read(&mut self) -> Result<(usize, Token<'a>), FilterError> {
        self.take_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n'));
        let position = self.position;
        let Some(first) = self.rest.chars().next() else { return Ok((position, Token::End)) };
        let token = match first {
            '"' => Token::Quoted(self.read_string()?),
            '!' if self.rest.starts_with("!=") => Token::Symbol(self.take(2)),
            // A hyphen at the beginning negates.
            '-' => Token::Symbol(self.take(1)),
            _ if is_of_word(first) => Token::Word(self.take_while(is_of_word)),
            _ => Token::Symbol(self.take(first.len_utf8())),
        };
        Ok((position, token))
    }

    fn read_string(&mut self) -> Result<String, FilterError> {
        let start = self.position;
        self.take(1);
        let mut text = String::new();
        loop {
            let position = self.position;
            match self.take_char() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.read_escape()?),
                Some(c) if c.is_control() => {
                    let expected = format!(r"an escape such as \u{:04x}", u32::from(c));
                    return Err(FilterError::expected(position, expected, "a control character"));
                }
                Some(c) => text.push(c),
                None => {
                    let expected = format!("the closing quote of the string at character {start}");
                    return Err(FilterError::expected(position, expected, Token::End));
                }
            }
        }
    }

    /// Reads what follows a backslash.
    fn read_escape(&mut self) -> Result<char, FilterError> {
        let position = self.position;
        match self.take_char() {
            Some(c @ ('"' | '\\')) => Ok(c),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') => character(position, self.read_digits(0, 4, 16)?),
            Some('U') => character(position, self.read_digits(0, 8, 16)?),
            Some('x') => ascii(position, self.read_digits(0, 2, 16)?),
            Some(c @ '0'..='7') => {
                let first = u32::from(c) - u32::from('0');
                ascii(position, self.read_digits(first, 2, 8)?)
            }
            other => {
                let expected = r#"an escape (\" \\ \n \r \t \u \U \x or 3 octal digits)"#;
                Err(FilterError::expected(position, expected, found(other)))
            }
        }
    }

    /// Reads more digits of a number that begins with `first`. The number must fit: it may have 8
    /// hexadecimal digits.
    fn read_digits(&mut self, first: u32, count: usize, radix: u32) -> Result<u32, FilterError> {
        let mut number = first;
        for _ in 0..count {
            let position = self.position;
            let next = self.take_char();
            let Some(digit) = next.and_then(|c| c.to_digit(radix)) else {
                let expected = if radix == 8 { "an octal digit" } else { "a hexadecimal digit" };
                return Err(FilterError::expected(position, expected, found(next)));
            };
            number = number * radix + digit;
        }
        Ok(number)
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        self.take(self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len()))
    }

    fn take_char(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.take(next.len_utf8());
        Some(next)
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        self.position += taken.chars().count();
        taken
    }
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn found(next: Option<char>) -> String {
    next.map_or_else(|| Token::End.to_string(), |c| Token::Symbol(&c.to_string()).to_string())
}

fn character(position: usize, code: u32) -> Result<char, FilterError> {
    char::from_u32(code).ok_or_else(|| {
        let error = FilterError::expected(position, "the code of a character", hex(code));
        match code {
            0xd800..=0xdfff => error.with_advice(r"use \U and 8 digits for the whole character"),
            _ => error,
        }
    })
}

/// Refuses what is not ASCII: it might be meant as a byte of UTF-8, or as a character.
fn ascii(position: usize, code: u32) -> Result<char, FilterError> {
    match u8::try_from(code) {
        Ok(byte) if byte.is_ascii() => Ok(char::from(byte)),
        _ => {
            let error =
                FilterError::expected(position, "the code of an ASCII character", hex(code));
            Err(error.with_advice(r"use \u for other characters"))
        }
    }
}

fn hex(code: u32) -> String {
    format!("{code:#x}")
}
