//! Opens the producer, after finding out where a run with `--resume` continues.

use std::path::PathBuf;

use super::super::plural::count;
use super::{
    super::{created, failure::Failure},
    checks,
    dry_run::dry_run,
    input::Input,
    ledger::{Ledger, LedgerSettings},
    message::Rule,
    options::ProduceArgs,
    resume_points::{Choices, ResumePoint},
    state::registered,
    state_file::StateFile,
    stored_lines::{self, StoredLines},
};
use crate::{
    client::{Client, Producer},
    proto,
};

/// What a run is to resume.
pub(super) struct Resuming<'a> {
    pub(super) client: &'a Client,
    pub(super) options: &'a ProduceArgs,
    pub(super) rule: &'a Rule,
    pub(super) inputs: &'a [Input],
}

/// An open producer, and what it has published of the inputs before.
pub(super) struct OpenedProducer {
    pub(super) producer: Producer,
    pub(super) plan: Plan,
}

/// Where a run continues.
pub(super) struct Plan {
    /// Records how far the files are shipped, if all inputs are files.
    pub(super) ledger: Option<Ledger>,
    /// Where each input is continued.
    pub(super) resume_points: Vec<ResumePoint>,
    /// The lines to pass over first.
    pub(super) stored_lines: Option<StoredLines>,
    /// The producer's last message, if it is needed and still kept.
    pub(super) last_message: Option<proto::Message>,
}

impl Resuming<'_> {
    /// Opens a producer that ships all inputs from their beginning.
    pub(super) async fn start_over(&self) -> Result<OpenedProducer, Failure> {
        let producer = self.options.open_producer(self.client).await?;
        Ok(OpenedProducer { producer, plan: self.plan_from_beginning() })
    }

    /// Opens a producer that continues where an earlier one ended. First finds out where that is,
    /// from the registration: a run that is refused must not fence a live instance.
    pub(super) async fn resume(
        &self,
        registration: Option<proto::Producer>,
    ) -> Result<OpenedProducer, Failure> {
        // The position in a stream cannot be stored, so its earlier lines are read again.
        let is_stored = self.inputs.iter().all(|input| input.file().is_some());
        let given = match &self.options.state {
            Some(path) if is_stored => Some(self.open_state(path.clone())?),
            _ => None,
        };
        let registration = match registration {
            Some(registration) => registration,
            None => register(self.client, self.options).await?,
        };
        let file = match given {
            None if is_stored => Some(self.open_state(StateFile::default_path(&registration)?)?),
            given => given,
        };
        let plan = self.plan(file, &registration).await?;
        let Plan { resume_points, stored_lines, last_message, .. } = &plan;
        dry_run(self.inputs, resume_points, stored_lines.clone(), last_message.as_ref()).await?;
        let producer = self.options.open_producer(self.client).await?;
        let opened = producer.registration();
        if registered(opened) != registered(&registration) {
            return Err(Failure::refused(
                "the producer has been registered again: run the command again",
            ));
        }
        let progress = |producer: &proto::Producer| (producer.next_sequence, producer.last_offset);
        let plan = match progress(opened) == progress(&registration) {
            true => plan,
            // Messages that an older instance had in flight have been stored in the meantime.
            false => self.plan(plan.ledger.map(Ledger::into_file), opened).await?,
        };
        Ok(OpenedProducer { producer, plan })
    }

    /// Locks and reads a state file.
    fn open_state(&self, path: PathBuf) -> Result<StateFile, Failure> {
        checks::bad_lines_file(self.options, &path)?;
        let file = StateFile::open(path)?;
        file.check_owner(&self.options.topic, &self.options.producer)?;
        Ok(file)
    }

    fn plan_from_beginning(&self) -> Plan {
        let resume_points = self.inputs.iter().map(|_| ResumePoint::default()).collect();
        Plan { ledger: None, resume_points, stored_lines: None, last_message: None }
    }

    /// Finds out where a producer continues.
    async fn plan(
        &self,
        file: Option<StateFile>,
        producer: &proto::Producer,
    ) -> Result<Plan, Failure> {
        let options = self.options;
        let mut plan = self.plan_from_beginning();
        let Some(file) = file else {
            if !options.restart {
                let why = "the position in a stream is not stored";
                plan.stored_lines = self.compare(producer, why).await?;
            }
            return Ok(plan);
        };
        let settings = LedgerSettings {
            rule: self.rule.clone(),
            bad_lines: options.bad_lines_destination(),
            choices: Choices { restart: options.restart, same_file: options.same_file },
        };
        let mut ledger = Ledger::open(file, producer, settings)?;
        plan.resume_points = ledger.resume_points(self.inputs)?;
        if ledger.is_known() {
            if plan.resume_points.iter().any(|point| point.unsettled.is_some()) {
                plan.last_message = stored_lines::last_message(self.client, producer).await?;
            }
        } else if !options.restart {
            let why = format!("there is no state at {}", ledger.path());
            plan.stored_lines = self.compare(producer, &why).await?;
        }
        plan.ledger = Some(ledger);
        Ok(plan)
    }

    /// Passes over as many lines as the producer has stored messages; the last of them must be its
    /// last message.
    async fn compare(
        &self,
        producer: &proto::Producer,
        why: &str,
    ) -> Result<Option<StoredLines>, Failure> {
        let stored = producer.next_sequence.unsigned_abs();
        if stored == 0 {
            return Ok(None);
        }
        let last_message = stored_lines::last_message(self.client, producer).await?;
        let last_message = last_message.ok_or_else(|| {
            Failure::refused(format!(
                "producer {} has published {} and {why}: the last message is no longer kept, so \
                 these lines cannot be compared with it; --restart ships the inputs from their \
                 beginning",
                producer.producer_id,
                count(stored, "message")
            ))
        })?;
        Ok(Some(StoredLines::of_all_inputs(stored, self.rule.clone(), last_message)))
    }
}

/// Registers the producer, which does not fence other instances.
async fn register(client: &Client, options: &ProduceArgs) -> Result<proto::Producer, Failure> {
    created::ensure_topic(client, &options.topic).await?;
    created::ensure_producer(client, &options.topic, &options.producer).await
}
