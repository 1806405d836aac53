//! How topics and consumers have moved, as readings have shown.
//!
//! Bounded: a reading lists so many topics and consumers, and of each a fixed number of points is kept.
//! What a reading does not list any more is forgotten.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

use crate::{
    model::{ConsumerKey, TopicId},
    storage::{ConsumerState, TopicState},
};

/// How many points of the last minute are kept, and how far they are apart at least.
const POINTS: usize = 31;
const STEP: Duration = Duration::from_secs(2);

/// How many points of a consumer's lag are kept, and how far they are apart at least: an hour.
const LAG_POINTS: usize = 120;
const LAG_STEP: Duration = Duration::from_secs(30);

/// The time over which a rate is measured, if points reach so far back.
const RATE_OVER: Duration = Duration::from_secs(10);

/// A number at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The moment.
    pub at: Instant,
    /// The number.
    pub value: i64,
}

/// The newest points of a number.
#[derive(Clone, Debug, Default)]
struct Series {
    points: VecDeque<Point>,
    /// The newest value, which may be too near to the last point to be one.
    newest: Option<Point>,
}

/// How topics and consumers have moved.
#[derive(Debug, Default)]
pub(super) struct History {
    heads: HashMap<TopicId, Series>,
    positions: HashMap<ConsumerKey, Series>,
    lags: HashMap<ConsumerKey, Series>,
}

impl Series {
    fn add(&mut self, point: Point, step: Duration, most: usize) {
        self.newest = Some(point);
        if self.points.back().is_some_and(|last| point.at.duration_since(last.at) < step) {
            return;
        }
        if self.points.len() == most {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// How much the number has grown each second, lately; nothing if it has become smaller.
    fn rate(&self) -> f64 {
        let Some(newest) = self.newest else { return 0.0 };
        let since = |point: &&Point| newest.at.duration_since(point.at) >= RATE_OVER;
        let oldest = self.points.iter().rev().find(since).or(self.points.front());
        oldest.map_or(0.0, |oldest| growth(oldest, &newest))
    }

    /// The same between each two points, the oldest first.
    fn rates(&self) -> Vec<f64> {
        self.points.iter().zip(self.points.iter().skip(1)).map(|(a, b)| growth(a, b)).collect()
    }
}

fn growth(from: &Point, to: &Point) -> f64 {
    let seconds = to.at.duration_since(from.at).as_secs_f64();
    if seconds > 0.0 { (to.value - from.value).max(0) as f64 / seconds } else { 0.0 }
}

impl History {
    /// Adds what a reading has shown.
    pub(super) fn add(&mut self, at: Instant, topics: &[TopicState], consumers: &[ConsumerState]) {
        let point = |value| Point { at, value };
        let heads = topics.iter().map(|it| (it.id, point(it.head.0)));
        add_all(&mut self.heads, heads, STEP, POINTS);
        let positions = consumers.iter().map(|it| (it.key, point(it.position.0)));
        add_all(&mut self.positions, positions, STEP, POINTS);
        let lags = consumers.iter().map(|it| (it.key, point(it.lag)));
        add_all(&mut self.lags, lags, LAG_STEP, LAG_POINTS);
    }

    /// How many messages were published to a topic each second, lately.
    pub(super) fn published(&self, topic: TopicId) -> f64 {
        self.heads.get(&topic).map_or(0.0, Series::rate)
    }

    /// The same over the last minute.
    pub(super) fn published_lately(&self, topic: TopicId) -> Vec<f64> {
        self.heads.get(&topic).map(Series::rates).unwrap_or_default()
    }

    /// How many messages a consumer has moved on each second, lately.
    pub(super) fn consumed(&self, consumer: ConsumerKey) -> f64 {
        self.positions.get(&consumer).map_or(0.0, Series::rate)
    }

    /// The same over the last minute.
    pub(super) fn consumed_lately(&self, consumer: ConsumerKey) -> Vec<f64> {
        self.positions.get(&consumer).map(Series::rates).unwrap_or_default()
    }

    /// A consumer's lag over the last hour.
    pub(super) fn lag(&self, consumer: ConsumerKey) -> Vec<Point> {
        let Some(series) = self.lags.get(&consumer) else { return Vec::new() };
        let is_point = |newest: &Point| series.points.back() == Some(newest);
        let newest = series.newest.filter(|newest| !is_point(newest));
        series.points.iter().copied().chain(newest).collect()
    }
}

/// Adds a point to the series of each key, and forgets those of other keys.
fn add_all<K: Eq + Hash>(
    series: &mut HashMap<K, Series>,
    points: impl Iterator<Item = (K, Point)>,
    step: Duration,
    most: usize,
) {
    let mut before = std::mem::take(series);
    series.extend(points.map(|(key, point)| {
        let mut series = before.remove(&key).unwrap_or_default();
        series.add(point, step, most);
        (key, series)
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(began: Instant, values: &[(u64, i64)]) -> Series {
        let mut series = Series::default();
        for &(second, value) in values {
            let at = began + Duration::from_secs(second);
            series.add(Point { at, value }, STEP, POINTS);
        }
        series
    }

    #[test]
    fn a_rate_is_measured_over_the_last_seconds() {
        let began = Instant::now();
        assert_eq!(series(began, &[]).rate(), 0.0);
        assert_eq!(series(began, &[(0, 5)]).rate(), 0.0);
        assert_eq!(series(began, &[(0, 0), (1, 30)]).rate(), 30.0);
        // The first seconds are too long ago.
        assert_eq!(series(began, &[(0, 0), (10, 1_000), (20, 1_100)]).rate(), 10.0);
        // A log that was truncated.
        assert_eq!(series(began, &[(0, 100), (5, 50)]).rate(), 0.0);
        assert_eq!(series(began, &[(0, 0), (2, 4), (4, 4), (6, 10)]).rates(), [2.0, 0.0, 3.0]);
    }

    #[test]
    fn so_many_points_are_kept_and_those_that_are_far_enough_apart() {
        let began = Instant::now();
        let values: Vec<_> = (0..500).map(|second| (second, second as i64)).collect();
        let series = series(began, &values);
        assert_eq!(series.points.len(), POINTS);
        assert_eq!(series.points.back().unwrap().value, 498);
        assert!(series.rates().iter().all(|rate| *rate == 1.0));
    }

    #[test]
    fn what_is_not_listed_any_more_is_forgotten() {
        let point = |value| Point { at: Instant::now(), value };
        let mut all = HashMap::new();
        add_all(&mut all, [(1, point(1)), (2, point(2))].into_iter(), STEP, POINTS);
        add_all(&mut all, [(2, point(3))].into_iter(), STEP, POINTS);
        assert_eq!(all.keys().collect::<Vec<_>>(), [&2]);
    }
}
