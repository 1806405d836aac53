//! Filters: conditions on the headers of a message, in the filter language of Google Cloud Pub/Sub.
//!
//! | filter | messages that match |
//! |---|---|
//! | `headers:name` | those that have the header |
//! | `headers.name = "value"` | those whose header has the value |
//! | `headers.name != "value"` | all others, including those without the header |
//! | `hasPrefix(headers.name, "value")` | those whose header begins with the value |
//! | `NOT headers:name`, `-headers:name` | those that the condition does not match |
//! | `headers:one AND headers:other` | those that match both |
//! | `headers:one OR headers:other` | those that match at least one |
//!
//! * `attributes`, as Pub/Sub says, means the same as `headers`.
//! * `NOT` applies to the one condition that follows. `AND` and `OR` need parentheses to be
//!   combined: `headers:a AND (headers:b OR headers:c)`.
//! * Names and values are compared exactly, character by character.
//! * A name is put in double quotes if it begins with `-`, or has other characters than ASCII
//!   letters, digits, `_` and `-`: `headers."iana.org/language_tag"`. Values are always quoted.
//! * Between quotes, control characters must be escaped. The escapes are `\"`, `\\`, `\n`, `\r`,
//!   `\t`, `\u` with 4 hexadecimal digits and `\U` with 8. ASCII characters may also be written as
//!   `\x` with 2 hexadecimal digits, or as a backslash with 3 octal digits.
//! * Outside quotes, spaces, tabs and line breaks may stand between any two words and symbols.
//!
//! The length and the depth of a filter are limited, so parsing and matching take bounded time and
//! stack. Parsing is linear in the length.

mod error;
mod expression;
mod parse;
#[cfg(test)]
mod tests;
mod tokens;

pub use error::FilterError;

use expression::Expression;

/// A condition on the headers of a message.
///
/// Two filters are equal if they are written alike. An empty text is no filter: to match all
/// messages, use none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    source: String,
    /// What is wrong with a stored one that cannot be read.
    expression: Result<Expression, FilterError>,
}

impl Filter {
    /// The most characters of a filter.
    pub const MAX_CHARACTERS: usize = 1_024;

    /// Checks a filter that a client wrote.
    pub fn parse(source: &str) -> Result<Self, FilterError> {
        let (count, limit) = (source.chars().count(), Self::MAX_CHARACTERS);
        if count > limit {
            return Err(FilterError::expected(limit, format!("at most {limit} characters"), count));
        }
        Ok(Self { source: source.to_owned(), expression: Ok(parse::parse(source)?) })
    }

    /// A filter that was checked before it was stored. Another version may have stored it, whose filters this
    /// one cannot read.
    pub fn stored(source: &str) -> Self {
        Self::parse(source)
            .unwrap_or_else(|error| Self { source: source.to_owned(), expression: Err(error) })
    }

    /// Why the filter cannot be read, if so. Then no message must be judged by it.
    pub fn problem(&self) -> Option<&FilterError> {
        self.expression.as_ref().err()
    }

    /// The filter as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether a message matches. `header` looks up the value of a header by its name. A filter that cannot be
    /// read matches none.
    pub fn matches<'h>(&self, header: impl Fn(&str) -> Option<&'h str>) -> bool {
        self.expression.as_ref().is_ok_and(|expression| expression.matches(&header))
    }
}
