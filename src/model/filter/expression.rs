//! Filters as they are matched.

/// What a message is matched with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// The message has a header, and its value passes a test.
    Header { name: String, test: Test },
    /// The expression does not match.
    Not(Box<Expression>),
    /// All of the expressions match.
    All(Vec<Expression>),
    /// At least one of the expressions matches.
    Any(Vec<Expression>),
}

/// What a header's value is tested for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// Nothing: any value passes.
    Present,
    /// It is this value.
    Equals(String),
    /// It begins with this text.
    StartsWith(String),
}

impl Expression {
    /// Whether a message with these headers matches. Recurses as deep as the parser let it nest.
    pub(super) fn matches<'h, H: Fn(&str) -> Option<&'h str>>(&self, header: &H) -> bool {
        match self {
            Self::Header { name, test } => header(name).is_some_and(|value| test.passes(value)),
            Self::Not(expression) => !expression.matches(header),
            Self::All(expressions) => expressions.iter().all(|it| it.matches(header)),
            Self::Any(expressions) => expressions.iter().any(|it| it.matches(header)),
        }
    }
}

impl Test {
    fn passes(&self, value: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Equals(expected) => value == expected,
            Self::StartsWith(prefix) => value.starts_with(prefix),
        }
    }
}
