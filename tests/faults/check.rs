//! Judges a history: whether the brokers kept their promises through the faults.
//!
//! Guarantees that what is told is a fault of the brokers, or of what wrote the history (`C0`): an
//! operation of which nobody can say whether it was done excuses whatever it may have caused, now
//! or later. Does not judge whether anybody got on (that takes a clock and a bound), nor whether a
//! message could be seen between its commit and its answer.
//!
//! Nothing is taken apart message by message: the time it takes goes with the number of lines and
//! of runs.

mod attempts;
mod bound;
mod contiguous;
mod covered;
mod dense;
mod figures;
mod findings;
mod fresh;
mod heads;
mod index;
mod invented;
mod kept;
mod known;
mod log;
mod once;
mod operations;
mod order;
mod overlap;
mod passed;
mod piece;
mod positions;
mod ranges;
mod reading;
mod sequences;
mod stale;
#[cfg(test)]
mod story;
mod visible;
mod well_formed;

pub use figures::Figures;
pub use kept::LostOffsets;
pub use passed::MOST_IN_A_FRAME;

use crate::history::Event;
use findings::Findings;
use index::Index;

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which check found it: `C1` and so on; `C0` if the history contradicts itself.
    pub check: &'static str,
    /// A sentence that names the operations and lines to be looked up; lines count from 1.
    pub what: String,
}

/// What a history shows.
#[derive(Clone, Debug)]
pub struct Report {
    /// None, if all promises were kept.
    pub found: Vec<Found>,
    /// Where acknowledged messages are not there.
    pub lost: Vec<LostOffsets>,
    /// How much was tried, so that a run that tried nothing does not pass for a good one.
    pub figures: Figures,
}

type Check = fn(&Index<'_>, &mut Findings);

const CHECKS: [(&str, Check); 17] = [
    ("C0", well_formed::every_line_belongs_to_its_operation),
    ("C1", kept::acknowledged_values_are_kept),
    ("C1", covered::what_was_committed_was_handed_out),
    ("C1", passed::no_stream_passes_over_more_than_was_under_way),
    ("C2", invented::nothing_is_stored_that_was_not_published),
    ("C3", bound::each_offset_is_bound_to_one_value),
    ("C4", dense::tables_are_dense),
    ("C4", heads::heads_and_floors_only_rise),
    ("C5", once::values_are_stored_once),
    ("C6", order::publishes_are_stored_in_their_order),
    ("C6", sequences::sequences_are_stored_without_holes),
    ("C6", contiguous::streams_go_on_where_they_stand),
    ("C7", positions::positions_go_back_by_seek_only),
    ("C8", stale::old_epochs_move_nothing),
    ("C9", overlap::one_stream_moves_a_position),
    ("C11", visible::nothing_is_seen_before_it_was_asked_for),
    ("C12", fresh::fresh_reads_equal_the_table),
];

/// Judges a whole history.
pub fn check(events: &[Event]) -> Report {
    let index = Index::of(events);
    let found = CHECKS.iter().flat_map(|(name, check)| {
        let mut findings = Findings::of(name);
        check(&index, &mut findings);
        findings.told()
    });
    Report {
        found: found.collect(),
        lost: kept::lost_offsets(&index),
        figures: Figures::of(&index),
    }
}

#[cfg(test)]
mod tests {
    use super::story::Story;

    #[test]
    fn a_history_of_nothing_shows_nothing() {
        let report = super::check(&[]);
        assert_eq!((report.found, report.figures), (Vec::new(), Default::default()));
    }

    /// As many lines as a soak has in a minute or two: what is quadratic would not end.
    #[test]
    fn a_long_history_is_judged_soon() {
        let rounds = if cfg!(debug_assertions) { 15_000 } else { 30_000 };
        let mut story = Story::new();
        for round in 0..rounds {
            let (producer, at) = (["p", "q"][round % 2], 10 * round as i64);
            let value = 10 * (round / 2) as i64;
            let (first, again) = (
                story.publish(producer, value, 10, Some(value)),
                story.publish(producer, value, 10, Some(value)),
            );
            story.unknown(first);
            story.stored_again(again, at);
            let stream = story.consume("manual", true);
            story.attached(stream, at, round as i64 + 1);
            story.delivered(stream, &[(at, producer, value, 10)]);
            story.commit_accepted("manual", round as i64 + 1, at + 10);
            story.position("manual", at + 10, round as i64 + 1);
            story.ends(0, at + 10);
            story.left(stream);
        }
        let runs: Vec<_> = (0..rounds)
            .map(|round| (10 * round as i64, ["p", "q"][round % 2], 10 * (round / 2) as i64, 10))
            .collect();
        story.table(0, 10 * rounds as i64, &runs);
        story.fresh("a", &runs);
        story.assert_clean();
        assert_eq!(story.figures().acknowledged, 10 * rounds as u64);
    }
}
