//! Why a filter is refused.

use std::fmt::Display;

/// Where a filter is wrong, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {problem}")]
pub struct FilterError {
    /// How many characters of the filter come before the error.
    pub position: usize,
    /// What is expected there, and what is found.
    pub problem: String,
}

impl FilterError {
    pub(super) fn expected(position: usize, expected: impl Display, found: impl Display) -> Self {
        Self { position, problem: format!("expected {expected}, found {found}") }
    }

    /// Adds how to correct it.
    pub(super) fn with_advice(self, advice: &str) -> Self {
        Self { problem: format!("{}: {advice}", self.problem), ..self }
    }
}
