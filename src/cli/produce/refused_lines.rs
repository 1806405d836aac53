//! Lines of the current file that the broker has refused.

use super::problem::Problem;

#[derive(Default)]
pub(super) struct RefusedLines {
    lines: Vec<RefusedLine>,
}

struct RefusedLine {
    number: u64,
    problem: Problem,
}

impl RefusedLines {
    pub(super) fn add(&mut self, number: u64, problem: Problem) {
        self.lines.push(RefusedLine { number, problem });
    }

    /// Why the broker refused a line, if it did; the line is forgotten, as it is added again if it
    /// is refused again.
    pub(super) fn take(&mut self, number: u64) -> Option<Problem> {
        let at = self.lines.iter().position(|line| line.number == number)?;
        Some(self.lines.swap_remove(at).problem)
    }
}
