//! Checks whether the brokers kept their promises, according to a history.
//!
//! There are no false positives: every violation is the brokers' fault, or a fault of the program
//! that wrote the history (`C0`). An operation with an unknown outcome excuses anything it may have
//! caused, then or later. The checks do not cover progress, which needs a clock and a bound, nor
//! whether a message was visible between its commit and its answer.
//!
//! They work on runs rather than single messages, in time proportional to the number of lines and
//! runs.

mod attempts;
mod bound;
mod contiguous;
mod covered;
mod deliveries;
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
mod parked;
mod piece;
mod positions;
mod ranges;
mod reading;
mod sequences;
mod settled;
mod settlements;
mod skipped;
mod stale;
#[cfg(test)]
mod story;
mod unsettled;
mod visible;
mod well_formed;

pub use figures::Figures;
pub use kept::LostOffsets;
pub use skipped::MAX_IN_A_FRAME;

use crate::history::Event;
use findings::Findings;
use index::Index;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The check that found it, such as `C1`; `C0` if the history contradicts itself.
    pub check: &'static str,
    /// A sentence that names the operations and lines concerned; lines count from 1.
    pub text: String,
}

/// The result of the checks.
#[derive(Clone, Debug)]
pub struct Report {
    pub violations: Vec<Violation>,
    /// The offsets of acknowledged messages that are not stored.
    pub lost: Vec<LostOffsets>,
    /// How much was tried, so that a run that tried nothing does not count as a success.
    pub figures: Figures,
}

type Check = fn(&Index<'_>, &mut Findings);

const CHECKS: [(&str, Check); 21] = [
    ("C0", well_formed::every_line_belongs_to_its_operation),
    ("C1", kept::acknowledged_values_are_kept),
    ("C1", covered::committed_messages_were_delivered),
    ("C1", skipped::no_stream_skips_more_than_was_in_flight),
    ("C2", invented::only_published_values_are_stored),
    ("C3", bound::each_offset_is_bound_to_one_value),
    ("C4", dense::tables_are_dense),
    ("C4", heads::log_ends_only_rise),
    ("C5", once::values_are_stored_once),
    ("C6", order::publishes_are_stored_in_order),
    ("C6", sequences::sequences_are_stored_without_holes),
    ("C6", contiguous::streams_are_contiguous),
    ("C7", positions::only_seeks_move_positions_back),
    ("C8", stale::old_epochs_move_nothing),
    ("C9", overlap::one_stream_at_a_time_moves_a_position),
    ("C11", visible::nothing_is_delivered_before_its_publish),
    ("C12", fresh::fresh_reads_equal_the_table),
    ("C13", unsettled::no_message_is_lost),
    ("C14", parked::rejected_messages_are_parked),
    ("C15", settled::settled_messages_stay_settled),
    ("C16", deliveries::deliveries_are_well_formed),
];

/// Runs all checks on a history.
pub fn check(events: &[Event]) -> Report {
    let index = Index::of(events);
    let violations = CHECKS.iter().flat_map(|(name, check)| {
        let mut findings = Findings::of(name);
        check(&index, &mut findings);
        findings.into_violations()
    });
    Report {
        violations: violations.collect(),
        lost: kept::lost_offsets(&index),
        figures: Figures::of(&index),
    }
}

#[cfg(test)]
mod tests {
    use super::story::Story;

    #[test]
    fn an_empty_history_has_no_violations_and_no_figures() {
        let report = super::check(&[]);
        assert_eq!((report.violations, report.figures), (Vec::new(), Default::default()));
    }

    /// As many lines as one or two minutes of a soak: a quadratic check would not finish.
    #[test]
    fn a_long_history_is_checked_quickly() {
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
            story.log_ends(0, at + 10);
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
