//! Half-open ranges of numbers.

/// The union of ranges, as ranges that do not touch.
pub fn union(mut ranges: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    ranges.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for (from, end) in ranges.into_iter().filter(|(from, end)| from < end) {
        match joined.last_mut() {
            Some((_, last)) if from <= *last => *last = end.max(*last),
            _ => joined.push((from, end)),
        }
    }
    joined
}

/// The parts of a range that are not in sorted ranges that do not touch.
pub fn missing((from, end): (i64, i64), joined: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let mut missing = Vec::new();
    let mut at = from;
    for (first, last) in joined.iter().filter(|(first, last)| *last > from && *first < end) {
        if at < *first {
            missing.push((at, *first));
        }
        at = *last;
    }
    if at < end {
        missing.push((at, end));
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_ranges_are_joined() {
        let ranges = vec![(5, 7), (0, 2), (1, 3), (3, 4), (9, 9)];
        assert_eq!(union(ranges), [(0, 4), (5, 7)]);
    }

    #[test]
    fn the_missing_parts_are_between_the_ranges() {
        let ranges = [(0, 4), (5, 7)];
        assert_eq!(missing((1, 9), &ranges), [(4, 5), (7, 9)]);
        assert_eq!(missing((-2, 3), &ranges), [(-2, 0)]);
        assert_eq!(missing((5, 7), &ranges), []);
        assert_eq!(missing((7, 5), &ranges), []);
    }
}
