//! The state of a run that ships lines from its inputs to its topic.

use std::time::Instant;

use super::{
    super::failure::Failure, bad_lines::BadLines, input::Source, ledger::Ledger, line_id::LineId,
    line_mark::LineMark, message::Rule, options::ProduceArgs, problem::Problem,
    progress::ShippingProgress, refused_lines::RefusedLines, resume_points::ResumePoint,
    sent::SentLines, stored_lines::StoredLines,
};
use crate::{
    client::{Client, Producer},
    proto::Message,
};

pub(super) struct Shipping {
    pub(super) client: Client,
    pub(super) options: ProduceArgs,
    pub(super) producer: Producer,
    /// How lines become messages.
    pub(super) rule: Rule,
    /// The maximum number of bytes of a line that are kept in memory.
    pub(super) limit: usize,
    /// Whether errors about bad lines suggest `--on-bad-line`, as it was not given.
    pub(super) suggests_flag: bool,
    /// The names of the inputs.
    pub(super) names: Vec<String>,
    pub(super) sources: Vec<Source>,
    /// Where each input is continued.
    pub(super) resume_points: Vec<ResumePoint>,
    /// Records how far the files are shipped, with `--resume`.
    pub(super) ledger: Option<Ledger>,
    /// Whether a last line without a line end is left to a later run.
    pub(super) leaves_unfinished: bool,
    /// The lines to pass over next, as they are stored already.
    pub(super) stored_lines: Option<StoredLines>,
    /// The producer's last message, if it is needed and still kept.
    pub(super) last_message: Option<Message>,
    pub(super) bad_lines: BadLines,
    pub(super) progress: ShippingProgress,
    pub(super) sent: SentLines,
    /// The number of lines that were published before this run.
    pub(super) lines_before: u64,
    /// Last lines that were left to a later run, for people.
    pub(super) unfinished: Vec<String>,
    pub(super) refused: RefusedLines,
    /// The last bad line that is kept.
    pub(super) last_kept: Option<LineId>,
    pub(super) current: CurrentInput,
}

/// The input that is being shipped.
#[derive(Default)]
pub(super) struct CurrentInput {
    pub(super) index: usize,
    /// Whether the ledger says that lines of this input are in flight.
    pub(super) has_begun: bool,
    /// When the ledger was last saved.
    pub(super) written: Option<Instant>,
    /// The ends of inputs that were passed over whole. They are recorded only once it is certain
    /// that these are the right inputs.
    pub(super) passed_over: Vec<LineMark>,
}

impl Shipping {
    /// The sequence after the last acknowledged message.
    pub(super) fn sequence(&self) -> i64 {
        let acknowledged = self.sent.acknowledged_to_this_instance();
        let acknowledged = i64::try_from(acknowledged).unwrap_or(i64::MAX);
        self.producer.first_sequence().saturating_add(acknowledged)
    }

    /// The failure of a run that stops at a bad line.
    pub(super) fn stopped_at(&self, number: u64, problem: &Problem) -> Failure {
        let name = &self.names[self.current.index];
        let column = problem.column.map(|at| format!(", column {at},")).unwrap_or_default();
        let colon = if problem.is_predicate() { "" } else { ":" };
        let help = match self.suggests_flag {
            true => "; --on-bad-line skip|cut continues after such a line",
            false => "",
        };
        Failure::refused(format!("line {number}{column} of {name}{colon} {problem}{help}"))
    }
}
