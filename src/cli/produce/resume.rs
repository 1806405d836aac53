//! Where a run with `--resume` goes on.

use std::path::PathBuf;

use tonic::Code;

use super::{
    super::failure::Failure,
    Produce,
    input::Input,
    ledger::{Choices, Ledger, Place},
    message::Rule,
    passing::{self, Passing},
    rehearsal::rehearse,
    state::{StateFile, registered},
};
use crate::{
    client::{Client, Error, Producer},
    proto::{self, GetProducerRequest, RegisterProducerRequest},
};

/// A producer, and what it has published of the inputs before.
pub(super) struct Opened {
    pub(super) producer: Producer,
    pub(super) ledger: Option<Ledger>,
    pub(super) places: Vec<Place>,
    pub(super) passing: Option<Passing>,
    /// The producer's last message, if it is needed and still kept.
    pub(super) last_message: Option<proto::Message>,
}

/// Opens a producer that ships all inputs from their beginning.
pub(super) async fn anew(
    client: &Client,
    options: &Produce,
    inputs: &[Input],
) -> Result<Opened, Failure> {
    Ok(Opened {
        producer: super::open(client, options).await?,
        ledger: None,
        places: inputs.iter().map(|_| Place::default()).collect(),
        passing: None,
        last_message: None,
    })
}

/// Opens a producer that goes on where an earlier one ended. It is found out before where that is,
/// as `found` says how far it came: a run that is refused is not to shut out one that goes on.
pub(super) async fn resume(
    client: &Client,
    options: &Produce,
    rule: &Rule,
    inputs: &[Input],
    found: Option<proto::Producer>,
) -> Result<Opened, Failure> {
    let resuming = Resuming { client, options, rule, inputs };
    // A stream has no place that could be kept: the lines of before are read again.
    let is_kept = inputs.iter().all(|input| input.file().is_some());
    let given = match &options.state {
        Some(path) if is_kept => Some(resuming.open_state(path.clone())?),
        _ => None,
    };
    let found = match found {
        Some(found) => found,
        None => register(client, options).await?,
    };
    let file = match given {
        None if is_kept => Some(resuming.open_state(StateFile::default_path(&found)?)?),
        given => given,
    };
    let plan = resuming.plan(file, &found).await?;
    let Plan { places, passing, last_message, .. } = &plan;
    rehearse(inputs, places, passing.clone(), last_message.as_ref()).await?;
    let producer = super::open(client, options).await?;
    let opened = producer.registration();
    if registered(opened) != registered(&found) {
        return Err(Failure::refused("the producer was registered anew meanwhile: try again"));
    }
    let place = |producer: &proto::Producer| (producer.next_sequence, producer.last_offset);
    let plan = match place(opened) == place(&found) {
        true => plan,
        // What an older instance had under way has been stored meanwhile.
        false => resuming.plan(plan.ledger.map(Ledger::into_file), opened).await?,
    };
    let Plan { ledger, places, passing, last_message } = plan;
    Ok(Opened { producer, ledger, places, passing, last_message })
}

/// What a run that goes on is asked for.
struct Resuming<'a> {
    client: &'a Client,
    options: &'a Produce,
    rule: &'a Rule,
    inputs: &'a [Input],
}

/// Where it goes on.
struct Plan {
    ledger: Option<Ledger>,
    places: Vec<Place>,
    passing: Option<Passing>,
    last_message: Option<proto::Message>,
}

impl Resuming<'_> {
    /// Locks and reads a state file.
    fn open_state(&self, path: PathBuf) -> Result<StateFile, Failure> {
        super::checks::apart(self.options, &path)?;
        let file = StateFile::open(path)?;
        file.check_owner(&self.options.topic, &self.options.producer)?;
        Ok(file)
    }

    /// Finds out where a producer goes on that has come so far.
    async fn plan(
        &self,
        file: Option<StateFile>,
        producer: &proto::Producer,
    ) -> Result<Plan, Failure> {
        let options = self.options;
        let mut plan = Plan { ledger: None, places: Vec::new(), passing: None, last_message: None };
        let Some(file) = file else {
            plan.places.extend(self.inputs.iter().map(|_| Place::default()));
            if !options.restart {
                plan.passing = self.compare(producer, "a stream has no place that is kept").await?;
            }
            return Ok(plan);
        };
        let choices = Choices { restart: options.restart, same_file: options.same_file };
        let kept = options.bad_lines_in();
        let mut ledger = Ledger::open(file, producer, self.rule.clone(), kept, choices)?;
        plan.places = ledger.places(self.inputs, choices)?;
        if ledger.is_known() {
            if plan.places.iter().any(|place| place.unsettled.is_some()) {
                plan.last_message = passing::last_message(self.client, producer).await?;
            }
        } else if !options.restart {
            let help = format!("there is no state at {}", ledger.path());
            plan.passing = self.compare(producer, &help).await?;
        }
        plan.ledger = Some(ledger);
        Ok(plan)
    }

    /// Passes over as many lines as there are messages, if the last of them is the last message.
    async fn compare(
        &self,
        producer: &proto::Producer,
        why: &str,
    ) -> Result<Option<Passing>, Failure> {
        let stored = producer.next_sequence.unsigned_abs();
        if stored == 0 {
            return Ok(None);
        }
        let last_message = passing::last_message(self.client, producer).await?;
        let last_message = last_message.ok_or_else(|| {
            Failure::refused(format!(
                "producer {} has published {stored} messages and {why}: the last message is not \
                 kept any more, so that it cannot be told whether these are its lines; --restart \
                 ships them from their beginning",
                producer.producer_id
            ))
        })?;
        Ok(Some(Passing::of_all_inputs(stored, self.rule.clone(), last_message)))
    }
}

/// Registers the producer, which shuts nobody out.
async fn register(client: &Client, options: &Produce) -> Result<proto::Producer, Failure> {
    let (topic, producer_id) = (options.topic.clone(), options.producer.clone());
    client.ensure_topic(&topic).await?;
    let request = RegisterProducerRequest {
        topic: topic.clone(),
        producer_id: producer_id.clone(),
        ..Default::default()
    };
    match client.producers().register_producer(request).await {
        Ok(_) => {}
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => return Err(Error::from(status).into()),
    }
    let request = GetProducerRequest { topic, producer_id };
    let found = client.producers().get_producer(request).await?.into_inner().producer;
    Ok(found.unwrap_or_default())
}
