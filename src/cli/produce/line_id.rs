//! Which line of the inputs a line is.

/// A line of an input; ordered as lines are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LineId {
    /// The index of the input.
    pub(super) file: usize,
    /// Counts from 1.
    pub(super) number: u64,
}
