//! Input that is refused before anything is done with it.

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
    pub fn over_limit(
        field: impl Into<String>,
        actual: usize,
        limit: usize,
        unit: &'static str,
    ) -> Self {
        Self {
            field: field.into(),
            problem: format!("is {actual} {unit}, and the limit is {limit}"),
            limit: Some(limit as u64),
        }
    }

    /// The same problem in a field of the field `parent`.
    pub fn within(mut self, parent: &str) -> Self {
        self.field = format!("{parent}.{}", self.field);
        self
    }
}
