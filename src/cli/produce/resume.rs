//! Where a run with `--resume` goes on.

use tonic::Code;

use super::{
    super::failure::Failure,
    Produce,
    input::Input,
    ledger::{Choices, Ledger, Place},
    message::Rule,
    passing::{self, Passing},
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

/// Opens a producer that goes on where an earlier one ended.
pub(super) async fn resume(
    client: &Client,
    options: &Produce,
    rule: &Rule,
    inputs: &[Input],
) -> Result<Opened, Failure> {
    if inputs.iter().any(|input| input.file().is_none()) {
        return resume_stream(client, options, rule, inputs).await;
    }
    let registration = registration(client, options).await?;
    let path = match &options.state {
        Some(path) => path.clone(),
        None => StateFile::default_path(&registration)?,
    };
    super::checks::apart(options, &path)?;
    // Before the producer is opened: a run that goes on is not to be shut out by this one.
    let file = StateFile::open(path)?;
    let mut opened = anew(client, options, inputs).await?;
    let producer = opened.producer.registration();
    if registered(producer) != registered(&registration) {
        return Err(Failure::refused("the producer was registered anew meanwhile: try again"));
    }
    let choices = Choices { restart: options.restart, same_file: options.same_file };
    let mut ledger = Ledger::open(file, producer, rule.clone(), choices)?;
    opened.places = ledger.places(inputs, choices)?;
    if ledger.is_known() {
        if opened.places.iter().any(|place| place.unsettled.is_some()) {
            opened.last_message = passing::last_message(client, producer).await?;
        }
    } else if !options.restart {
        let help = format!("there is no state at {}", ledger.path());
        opened.passing = compare(client, producer, rule, &help).await?;
    }
    opened.ledger = Some(ledger);
    Ok(opened)
}

/// A stream has no place that could be kept: the lines of before are read again.
async fn resume_stream(
    client: &Client,
    options: &Produce,
    rule: &Rule,
    inputs: &[Input],
) -> Result<Opened, Failure> {
    if inputs.len() > 1 || options.state.is_some() {
        return Err(Failure::usage(
            "standard input, pipes and devices have no place that can be kept: with --resume, name \
             one of them alone, without --state",
        ));
    }
    let mut opened = anew(client, options, inputs).await?;
    if !options.restart {
        let help = "a stream has no place that is kept";
        let producer = opened.producer.registration();
        opened.passing = compare(client, producer, rule, help).await?;
    }
    Ok(opened)
}

/// Passes over as many lines as there are messages, if the last of them is the last message.
async fn compare(
    client: &Client,
    producer: &proto::Producer,
    rule: &Rule,
    why: &str,
) -> Result<Option<Passing>, Failure> {
    let stored = producer.next_sequence.unsigned_abs();
    if stored == 0 {
        return Ok(None);
    }
    let last_message = passing::last_message(client, producer).await?.ok_or_else(|| {
        Failure::refused(format!(
            "producer {} has published {stored} messages and {why}: the last message is not kept \
             any more, so that it cannot be told whether these are its lines; --restart ships them \
             from their beginning",
            producer.producer_id
        ))
    })?;
    Ok(Some(Passing::of_all_inputs(stored, rule.clone(), last_message)))
}

/// The producer's registration, which is made if it is missing and may be.
async fn registration(client: &Client, options: &Produce) -> Result<proto::Producer, Failure> {
    let (topic, producer_id) = (options.topic.clone(), options.producer.clone());
    if options.register {
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
    }
    let request = GetProducerRequest { topic, producer_id };
    let found = client.producers().get_producer(request).await?.into_inner().producer;
    Ok(found.unwrap_or_default())
}
