//! The highest known number of something, by line.

use super::operations::Line;

/// The lines at which the number rose above all earlier ones, in order.
#[derive(Debug, Default)]
pub struct Known(Vec<(Line, i64)>);

impl Known {
    pub fn of(mut reports: Vec<(Line, i64)>) -> Self {
        reports.sort_unstable();
        let mut highest = None;
        reports.retain(|(_, number)| {
            let rises = highest.is_none_or(|highest| *number > highest);
            highest = highest.max(Some(*number));
            rises
        });
        Self(reports)
    }

    /// The highest number up to a line, and the line that reported it.
    pub fn by(&self, line: Line) -> Option<(Line, i64)> {
        self.0[..self.0.partition_point(|(reported, _)| *reported <= line)].last().copied()
    }

    pub fn highest(&self) -> Option<(Line, i64)> {
        self.0.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_known_number_never_falls() {
        let known = Known::of(vec![(7, 4), (3, 5), (9, 8), (5, 1)]);
        assert_eq!(
            [2, 3, 8, 9].map(|line| known.by(line)),
            [None, Some((3, 5)), Some((3, 5)), Some((9, 8))]
        );
        assert_eq!(known.highest(), Some((9, 8)));
    }
}
