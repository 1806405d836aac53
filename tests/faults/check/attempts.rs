//! Attempts to publish values, and their outcomes.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    operations::{Line, Outcome, Publish},
    piece::Piece,
};

/// Consecutive values of one producer on one topic that took part in the same attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempted {
    pub first: i64,
    /// The value after the last one.
    pub end: i64,
    /// The number of attempts that were acknowledged, have an unknown outcome, and failed.
    pub acknowledged: u32,
    pub unknown: u32,
    pub failed: u32,
    /// The difference between a value's sequence and the value, in the last attempt that may have
    /// stored it; `None` if any attempt had no sequence.
    pub sequenced: Option<i64>,
    /// The first attempt.
    pub op: u64,
    pub invoked: Line,
}

impl Attempted {
    pub fn count(&self) -> u64 {
        (self.end - self.first) as u64
    }

    /// How often each value may be stored.
    pub fn copies(&self) -> u32 {
        match self.sequenced {
            Some(_) => 1,
            None => self.acknowledged + self.unknown,
        }
    }

    /// Whether the values are certainly not stored.
    pub fn all_failed(&self) -> bool {
        self.acknowledged + self.unknown == 0
    }

    /// Whether only the tables can tell if the values are stored.
    pub fn is_unknown(&self) -> bool {
        self.acknowledged == 0 && self.unknown > 0
    }
}

/// All attempts by topic and producer, each list in the order of its values.
#[derive(Debug, Default)]
pub struct Attempts<'a> {
    pub all: BTreeMap<(&'a str, &'a str), Vec<Attempted>>,
}

impl<'a> Attempts<'a> {
    pub fn of(publishes: &[Publish<'a>]) -> Self {
        let mut edges: BTreeMap<_, Vec<(i64, usize, bool)>> = BTreeMap::new();
        for (number, publish) in publishes.iter().enumerate() {
            let values = publish.values;
            if values.count > 0 {
                let edges = edges.entry((publish.topic, &*values.producer)).or_default();
                edges.push((values.first, number, true));
                edges.push((values.first + values.count, number, false));
            }
        }
        let all = edges.into_iter().map(|(key, edges)| (key, between_edges(publishes, edges)));
        Self { all: all.collect() }
    }

    /// Splits a piece into parts with the same attempts; `None` for values that were never tried.
    pub fn parts(
        &self,
        topic: &'a str,
        piece: Piece<'a>,
    ) -> impl Iterator<Item = (Piece<'a>, Option<&Attempted>)> {
        let tried = self.all.get(&(topic, piece.producer)).map(Vec::as_slice).unwrap_or_default();
        let mut next = tried.partition_point(|tried| tried.end <= piece.value);
        let mut value = piece.value;
        std::iter::from_fn(move || {
            if value >= piece.value_end() {
                return None;
            }
            let (end, attempted) = match tried.get(next) {
                Some(tried) if tried.first <= value => {
                    next += 1;
                    (tried.end, Some(tried))
                }
                Some(tried) => (tried.first, None),
                None => (i64::MAX, None),
            };
            let end = end.min(piece.value_end());
            let part = piece.between(piece.offset_of(value), piece.offset_of(end));
            value = end;
            Some((part, attempted))
        })
    }
}

/// Sweeps over the values: between two edges they all took part in the same publishes.
fn between_edges(publishes: &[Publish<'_>], mut edges: Vec<(i64, usize, bool)>) -> Vec<Attempted> {
    edges.sort_unstable();
    let (mut all, mut trying, mut from) = (Vec::new(), BTreeSet::new(), 0);
    for (at, number, begins) in edges {
        if from < at && !trying.is_empty() {
            all.push(attempted(from, at, trying.iter().map(|number: &usize| &publishes[*number])));
        }
        match begins {
            true => trying.insert(number),
            false => trying.remove(&number),
        };
        from = at;
    }
    all
}

fn attempted<'a>(
    first: i64,
    end: i64,
    mut trying: impl Iterator<Item = &'a Publish<'a>> + Clone,
) -> Attempted {
    let with = |what: fn(&Outcome) -> bool| {
        trying.clone().filter(|publish| what(&publish.outcome)).count() as u32
    };
    let (acknowledged, unknown, failed) = (
        with(|outcome| matches!(outcome, Outcome::Done(_))),
        with(|outcome| matches!(outcome, Outcome::Unknown)),
        with(|outcome| matches!(outcome, Outcome::NotDone)),
    );
    let offset = |publish: &Publish<'_>| Some(publish.sequence? - publish.values.first);
    let sequenced = match trying.clone().all(|publish| publish.sequence.is_some()) {
        true => trying.clone().filter(|publish| publish.outcome.may_be_done()).last(),
        false => None,
    };
    let sequenced = sequenced.and_then(offset);
    let earliest = trying.next().unwrap();
    let (op, invoked) = (earliest.op, earliest.invoked);
    Attempted { first, end, acknowledged, unknown, failed, sequenced, op, invoked }
}

#[cfg(test)]
mod tests {
    use crate::{
        check::{index::Index, piece::Piece, story::Story},
        history::Event,
    };

    /// Each part's first value, count, attempts by outcome, and whether it has sequences.
    fn parts(events: &[Event], first: i64, count: i64) -> Vec<(i64, i64, [u32; 3], bool)> {
        let index = Index::of(events);
        let piece = Piece { offset: 100, producer: "p", value: first, count };
        let parts = index.attempts.parts("t", piece).map(|(part, tried)| {
            assert_eq!(part.offset, 100 + part.value - first);
            let tries = tried.map_or([0; 3], |a| [a.acknowledged, a.unknown, a.failed]);
            (part.value, part.count, tries, tried.is_some_and(|a| a.sequenced.is_some()))
        });
        parts.collect()
    }

    #[test]
    fn overlapping_attempts_are_distinguished() {
        let mut story = Story::new();
        let (first, second) =
            (story.publish("p", 0, 10, Some(0)), story.publish("p", 5, 10, Some(5)));
        let third = story.publish("p", 20, 5, None);
        story.unknown(first);
        story.stored(second, 0);
        story.refused(third);
        let all = [
            (-1, 1, [0, 0, 0], false),
            (0, 5, [0, 1, 0], true),
            (5, 5, [1, 1, 0], true),
            (10, 5, [1, 0, 0], true),
            (15, 5, [0, 0, 0], false),
            (20, 5, [0, 0, 1], false),
            (25, 1, [0, 0, 0], false),
        ];
        assert_eq!(parts(story.events(), -1, 27), all);
        assert_eq!(parts(story.events(), 7, 2), [(7, 2, [1, 1, 0], true)]);
    }

    #[test]
    fn an_attempt_without_a_sequence_makes_its_values_unsequenced() {
        let mut story = Story::new();
        story.publish("p", 0, 1, Some(0));
        story.publish("p", 0, 1, None);
        assert_eq!(parts(story.events(), 0, 1), [(0, 1, [0, 2, 0], false)]);
    }
}
