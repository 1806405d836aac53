//! Input that is refused before anything is done with it.
//!
//! A value does not know which field of a request it came from. Whoever decodes the request does, and
//! names the field with [`InvalidValue::in_field`].

/// Why a value is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidValue {
    /// The part of the value that is wrong, as it continues the field's path: `[3]` or `.name`. Empty
    /// for the value as a whole.
    pub part: String,
    /// What is wrong, and the limit if there is one.
    pub problem: String,
    /// The limit that the value exceeds, if there is one.
    pub limit: Option<u64>,
}

impl InvalidValue {
    /// A malformed value.
    pub fn new(problem: impl Into<String>) -> Self {
        Self { part: String::new(), problem: problem.into(), limit: None }
    }

    /// A value that exceeds a limit: `actual` is its size in `unit`.
    pub fn over_limit(actual: usize, limit: usize, unit: &'static str) -> Self {
        let problem = format!("is {actual} {unit}, and the limit is {limit}");
        Self { part: String::new(), problem, limit: Some(limit as u64) }
    }

    /// The same problem, which only a part of the value has.
    #[must_use]
    pub fn in_part(self, part: impl Into<String>) -> Self {
        Self { part: part.into(), ..self }
    }

    /// Names the field that the value came from.
    pub fn in_field(self, field: &str) -> InvalidInput {
        let Self { part, problem, limit } = self;
        InvalidInput { field: format!("{field}{part}"), problem, limit }
    }
}

/// A field whose value is refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidInput {
    /// The name of the field, as a path from the request: `messages[3].headers` for example.
    pub field: String,
    /// What is wrong with the value, and the limit if there is one.
    pub problem: String,
    /// The limit that the value exceeds, if there is one.
    pub limit: Option<u64>,
}

impl InvalidInput {
    /// A malformed value.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into(), limit: None }
    }

    /// A value that exceeds a limit: `actual` is its size in `unit`.
    pub fn over_limit(field: &str, actual: usize, limit: usize, unit: &'static str) -> Self {
        InvalidValue::over_limit(actual, limit, unit).in_field(field)
    }

    /// The same problem in a field of the field `parent`.
    pub fn within(mut self, parent: &str) -> Self {
        self.field = format!("{parent}.{}", self.field);
        self
    }
}
