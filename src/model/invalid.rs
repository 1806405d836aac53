//! Input that is refused before anything is done with it.

/// A field whose value cannot be taken, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidInput {
    /// The field as the proto names it, `messages[3].headers` for example.
    pub field: String,
    /// What is wrong with it, with the limit where there is one.
    pub problem: String,
    /// The limit that was passed, where there is one.
    pub limit: Option<u64>,
}

impl InvalidInput {
    /// A value that is ill-formed.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into(), limit: None }
    }

    /// A value that is too long, too large or too many: `actual` of `unit` where `limit` are
    /// allowed.
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

    /// The same problem, of a field inside another one.
    pub fn within(mut self, parent: &str) -> Self {
        self.field = format!("{parent}.{}", self.field);
        self
    }
}
