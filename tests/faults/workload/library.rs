//! A producer of the client library, which batches single messages.

use std::{sync::Arc, time::Duration};

use tonic::Code;
use trunkline::client::{Acknowledgement, Error, Producer};

use super::{World, pause};
use crate::{
    history::{Stage, Values, What},
    values,
};

/// Codes that a broker may answer while something is broken.
const RETRYABLE: [Code; 4] =
    [Code::Unavailable, Code::Aborted, Code::ResourceExhausted, Code::DeadlineExceeded];

/// What it may answer in addition while tokens and grants are taken from clients.
const DENIED: [Code; 3] = [Code::Unauthenticated, Code::PermissionDenied, Code::NotFound];

/// A producer of the client library. It is reopened when it fails; requests in flight are not
/// repeated, as their outcome is unknown.
pub struct LibraryProducer {
    pub topic: Arc<str>,
    pub name: Arc<str>,
}

impl LibraryProducer {
    /// Publishes until writing stops.
    pub async fn run(self, world: Arc<World>) {
        let mut rng = world.rng(&self.name);
        let caller = world.caller(&self.name);
        let endpoints: Vec<String> =
            world.ports.iter().map(|port| caller.endpoint(*port)).collect();
        let endpoints = endpoints.join(",");
        let mut next = 0;
        while !world.stop_writing.is_cancelled() {
            let Some(producer) = self.open(&world, &endpoints).await else {
                pause(&mut rng, 50, 200).await;
                continue;
            };
            while !world.stop_writing.is_cancelled() {
                let mut sent = Vec::new();
                for _ in 0..rng.usize(1..=40) {
                    let values = Values { producer: self.name.clone(), first: next, count: 1 };
                    next += 1;
                    let message = values::message(&self.name, values.first);
                    let topic = self.topic.clone();
                    let invocation = What::Publish { topic, values, sequence: None };
                    let op = world.history.invoke(&self.name, invocation);
                    sent.push((op, producer.send(message).await));
                }
                if !self.settle(&world, sent).await {
                    break;
                }
                pause(&mut rng, 5, 40 * world.slowdown).await;
            }
        }
    }

    async fn open(&self, world: &World, endpoints: &str) -> Option<Producer> {
        let client = world.caller(&self.name).connect(endpoints).await.ok()?;
        let producer = client.producer(&self.topic, &self.name);
        match producer.register().retry_for(Duration::from_secs(20)).open().await {
            Ok(producer) => Some(producer),
            Err(error) => {
                let may_be = |code| {
                    RETRYABLE.contains(&code) || world.may_be_denied && DENIED.contains(&code)
                };
                if error.code().is_some_and(|code| !may_be(code)) {
                    world.alarm(format!("{} cannot be opened: {error:?}", self.name));
                }
                None
            }
        }
    }

    /// Writes the outcomes of messages; false if the producer must be reopened.
    async fn settle(
        &self,
        world: &World,
        sent: Vec<(u64, Result<Acknowledgement, Error>)>,
    ) -> bool {
        let mut goes_on = true;
        for (op, sent) in sent {
            let offset = match sent {
                Ok(acknowledgement) => acknowledgement.offset().await,
                Err(error) => Err(error),
            };
            match offset {
                Ok(first_offset) => {
                    let published = What::Published { first_offset, duplicate: false };
                    world.history.write(&self.name, op, Stage::Ok, published);
                }
                Err(error) => {
                    goes_on = false;
                    world.history.write(&self.name, op, Stage::Info, refused(&error));
                }
            }
        }
        goes_on
    }
}

/// The broker's refusal, or an error of the library.
fn refused(error: &Error) -> What {
    let (code, reason) = match error {
        Error::Refused(refusal) => (format!("{:?}", refusal.code), refusal.reason.clone()),
        _ => ("LIBRARY".to_owned(), String::new()),
    };
    What::Refused { code, reason, message: error.to_string() }
}
