//! Promises that a broker breaks on purpose, to show that the tests notice: only there in debug
//! builds with the feature `sabotage`, and only one of them, if it is asked for.

/// The variable that says which.
const VARIABLE: &str = "TRUNKLINE_SABOTAGE";

/// A promise to break.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A publish is acknowledged before its transaction is committed.
    AcknowledgeBeforeCommit,
    /// Offsets are taken before the transaction that stores the messages, as from a sequence.
    OffsetsFromSequence,
    /// A position is moved whatever the epoch.
    NoEpochCheck,
    /// What no notification told is not looked for.
    NoPolling,
    /// A statement that failed is passed over, and the transaction committed.
    SwallowRollback,
}

impl Sabotage {
    /// Whether this one is asked for.
    pub fn is_on(self) -> bool {
        let asked = std::env::var(VARIABLE).unwrap_or_default();
        asked == self.name()
    }

    /// What it is called in the variable.
    fn name(self) -> &'static str {
        match self {
            Self::AcknowledgeBeforeCommit => "acknowledge-before-commit",
            Self::OffsetsFromSequence => "offsets-from-sequence",
            Self::NoEpochCheck => "no-epoch-check",
            Self::NoPolling => "no-polling",
            Self::SwallowRollback => "swallow-rollback",
        }
    }
}
