//! Records which lines of which files are stored.

use super::super::plural::count;
use super::{
    super::failure::{Failure, print_notice},
    file_state::{BadLinesDestination, FileState, NamedFile, RunStart},
    identity::{Fingerprint, Inode, Position},
    input::{Input, RegularFile},
    message::Rule,
    resume_points::{Choices, ResumePoint, Search},
    state::ProducerState,
    state_file::StateFile,
};
use crate::proto::Producer;

/// The state of the files, brought in line with what the broker has stored.
pub(super) struct Ledger {
    file: StateFile,
    state: ProducerState,
    settings: LedgerSettings,
    inputs: Vec<TrackedInput>,
    /// Whether the state accounts for what the producer has stored.
    is_known: bool,
    /// Whether the producer's last message comes from the last of the files, after its position.
    is_last_unsettled: bool,
}

/// How a run ships its files.
pub(super) struct LedgerSettings {
    pub(super) rule: Rule,
    pub(super) bad_lines: Option<BadLinesDestination>,
    pub(super) choices: Choices,
}

/// An input whose position is recorded.
struct TrackedInput {
    inode: Inode,
    path: String,
}

/// How far an input is shipped.
pub(super) struct Checkpoint<'a> {
    /// The index of the input.
    pub(super) input: usize,
    pub(super) position: Position,
    /// The input's first bytes.
    pub(super) head: &'a [u8],
    /// The sequence after the last message that is accounted for.
    pub(super) sequence: i64,
}

impl Ledger {
    /// Opens the ledger of a producer as the broker describes it.
    pub(super) fn open(
        file: StateFile,
        producer: &Producer,
        settings: LedgerSettings,
    ) -> Result<Self, Failure> {
        let new = ProducerState::new(producer);
        let saved = saved_state(&file, &new)?;
        let is_known = saved.as_ref().is_some_and(|state| !state.files.is_empty());
        let state = saved.unwrap_or(new);
        let inputs = Vec::new();
        let mut ledger = Self { file, state, settings, inputs, is_known, is_last_unsettled: false };
        ledger.settle(producer)?;
        ledger.state.next_sequence = producer.next_sequence;
        ledger.state.shipping = false;
        Ok(ledger)
    }

    /// Whether the state accounts for what the producer has stored.
    pub(super) fn is_known(&self) -> bool {
        self.is_known
    }

    /// The state file, unchanged: nothing is written before lines are sent.
    pub(super) fn into_file(self) -> StateFile {
        self.file
    }

    /// The path of the state file, for people.
    pub(super) fn path(&self) -> String {
        self.file.path().display().to_string()
    }

    /// Brings the state in line with the number of messages that the broker has stored.
    fn settle(&mut self, producer: &Producer) -> Result<(), Failure> {
        let (expected, stored) = (self.state.next_sequence, producer.next_sequence);
        let id = &producer.producer_id;
        let was_shipping = self.state.shipping;
        let Some(last) = self.state.files.last_mut() else { return Ok(()) };
        if stored < expected {
            if self.settings.choices.restart {
                return Ok(());
            }
            if last.began.sequence > stored {
                return Err(Failure::refused(format!(
                    "the topic has {} of producer {id}, and {expected} were acknowledged: its \
                     database has lost the others, from before the last run; --restart ships the \
                     files from their beginning",
                    count(stored.unsigned_abs(), "message")
                )));
            }
            print_notice(&format!(
                "the database has lost {} that it had acknowledged: what it lost is shipped again",
                count(expected.abs_diff(stored), "message")
            ));
            last.position = last.began.position.clone();
            last.unsettled = stored.abs_diff(last.began.sequence);
        } else if was_shipping {
            last.unsettled += stored.abs_diff(expected);
        } else if stored > expected {
            print_notice(&format!(
                "found {} that producer {id} published without --resume",
                count(stored.abs_diff(expected), "message")
            ));
            return Ok(());
        }
        self.is_last_unsettled = last.unsettled > 0;
        Ok(())
    }

    /// Finds out where each file is continued, and prints what it decides.
    pub(super) fn resume_points(&mut self, inputs: &[Input]) -> Result<Vec<ResumePoint>, Failure> {
        let files = inputs
            .iter()
            .filter_map(|input| Some(NamedFile { name: input.name.as_str(), file: input.file()? }));
        let files: Vec<NamedFile<'_>> = files.collect();
        for NamedFile { file: RegularFile { inode, path, .. }, .. } in &files {
            let path = path.to_string_lossy().into_owned();
            self.inputs.push(TrackedInput { inode: *inode, path });
        }
        let mut search = Search {
            files: &mut self.state.files,
            inputs: &files,
            choices: self.settings.choices,
            keeps_bad_lines: self.settings.bad_lines.is_some(),
            is_last_unsettled: self.is_last_unsettled,
        };
        files.iter().map(|file| search.resume_point(*file)).collect()
    }

    /// Records that lines after a position are about to be sent. All lines before it are settled.
    pub(super) fn begin(&mut self, at: Checkpoint<'_>) -> Result<(), Failure> {
        let began = RunStart { sequence: at.sequence, position: at.position.clone() };
        self.save(at, Some(began), true)
    }

    /// Records that all lines up to a position are settled; more may be in flight if `is_shipping`.
    pub(super) fn advance(&mut self, at: Checkpoint<'_>, is_shipping: bool) -> Result<(), Failure> {
        self.save(at, None, is_shipping)
    }

    fn save(
        &mut self,
        at: Checkpoint<'_>,
        began: Option<RunStart>,
        is_shipping: bool,
    ) -> Result<(), Failure> {
        let sequence = at.sequence;
        self.record(at, began);
        self.state.next_sequence = sequence;
        self.state.shipping = is_shipping;
        self.file.save(&self.state)
    }

    /// Records that nothing is in flight.
    pub(super) fn close(&mut self, sequence: i64) -> Result<(), Failure> {
        self.state.next_sequence = sequence;
        self.state.shipping = false;
        // A state without files would mean that nothing is known to be stored.
        if self.state.files.is_empty() {
            return Ok(());
        }
        self.file.save(&self.state)
    }

    /// Replaces the state of an input, which becomes the last one.
    fn record(&mut self, at: Checkpoint<'_>, began: Option<RunStart>) {
        let Checkpoint { input, position, head, .. } = at;
        let TrackedInput { inode, path } = &self.inputs[input];
        let files = &mut self.state.files;
        let old = files.iter().position(|file| file.inode == *inode).map(|at| files.remove(at));
        let began = began.or(old.map(|old| old.began));
        files.push(FileState {
            path: path.clone(),
            inode: *inode,
            head: (!head.is_empty()).then(|| Fingerprint::of(0, head)),
            began: began.unwrap_or(RunStart {
                sequence: self.state.next_sequence,
                position: position.clone(),
            }),
            position,
            unsettled: 0,
            rule: self.settings.rule.clone(),
            bad_lines: self.settings.bad_lines.clone(),
        });
        self.state.prune(self.inputs.len());
    }
}

/// The saved state, if it is of the same registration.
fn saved_state(file: &StateFile, new: &ProducerState) -> Result<Option<ProducerState>, Failure> {
    file.check_owner(&new.topic, &new.producer)?;
    let Some(saved) = file.saved() else { return Ok(None) };
    if saved.registered != new.registered {
        let (id, path) = (&new.producer, file.path().display());
        print_notice(&format!(
            "producer {id} was registered again, so the state in {path} is ignored"
        ));
        return Ok(None);
    }
    Ok(Some(saved.clone()))
}
