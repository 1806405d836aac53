//! Promises that a broker breaks on purpose, to show that the tests notice. They exist only in debug
//! builds with the feature `sabotage`, and at most one of them is broken, on request.

/// The variable that names the promise to break.
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
    /// Messages without a notification are not looked for.
    NoPolling,
    /// A failed statement is ignored, and its transaction committed.
    SwallowRollback,
    /// Settlements of a subscription's messages are answered before they are stored.
    SettleBeforeStore,
}

impl Sabotage {
    /// Whether this promise is to be broken.
    pub fn is_on(self) -> bool {
        std::env::var(VARIABLE).is_ok_and(|named| named == self.name())
    }

    /// Its name in the variable.
    fn name(self) -> &'static str {
        match self {
            Self::AcknowledgeBeforeCommit => "acknowledge-before-commit",
            Self::OffsetsFromSequence => "offsets-from-sequence",
            Self::NoEpochCheck => "no-epoch-check",
            Self::NoPolling => "no-polling",
            Self::SwallowRollback => "swallow-rollback",
            Self::SettleBeforeStore => "settle-before-store",
        }
    }
}
