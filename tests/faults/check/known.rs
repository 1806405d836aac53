//! The highest number that was known of something, line by line.

use super::operations::Line;

/// The lines in which it was higher than ever before.
#[derive(Debug, Default)]
pub struct Known(Vec<(Line, i64)>);

impl Known {
    pub fn of(mut told: Vec<(Line, i64)>) -> Self {
        told.sort_unstable();
        let mut highest = None;
        told.retain(|(_, number)| {
            let rises = highest.is_none_or(|highest| *number > highest);
            highest = highest.max(Some(*number));
            rises
        });
        Self(told)
    }

    /// The highest one up to a line, and the line that told it.
    pub fn by(&self, line: Line) -> Option<(Line, i64)> {
        self.0[..self.0.partition_point(|(told, _)| *told <= line)].last().copied()
    }

    pub fn at_last(&self) -> Option<(Line, i64)> {
        self.0.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_does_not_go_back() {
        let known = Known::of(vec![(7, 4), (3, 5), (9, 8), (5, 1)]);
        assert_eq!(
            [2, 3, 8, 9].map(|line| known.by(line)),
            [None, Some((3, 5)), Some((3, 5)), Some((9, 8))]
        );
        assert_eq!(known.at_last(), Some((9, 8)));
    }
}
