//! A producer of the client library: a message at a time, batched by the library.

use std::{sync::Arc, time::Duration};

use tonic::Code;
use trunkline::client::{Acknowledgement, Client, Error, Producer};

use super::{World, rest};
use crate::{
    history::{Stage, Values, What},
    values,
};

/// What a broker may answer while something is broken.
const RETRYABLE: [Code; 4] =
    [Code::Unavailable, Code::Aborted, Code::ResourceExhausted, Code::DeadlineExceeded];

/// A producer of the client library. One that fails is opened anew; what it had under way is not
/// sent again, as nobody knows what became of it.
pub struct LibraryProducer {
    pub topic: Arc<str>,
    pub name: Arc<str>,
}

impl LibraryProducer {
    /// Publishes until it is enough.
    pub async fn run(self, world: Arc<World>) {
        let mut chances = world.chances(&self.name);
        let endpoints: Vec<String> =
            world.ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let endpoints = endpoints.join(",");
        let mut next = 0;
        while !world.enough.is_cancelled() {
            let Some(producer) = self.open(&world, &endpoints).await else {
                rest(&mut chances, 50, 200).await;
                continue;
            };
            while !world.enough.is_cancelled() {
                let mut sent = Vec::new();
                for _ in 0..chances.usize(1..=40) {
                    let values = Values { producer: self.name.clone(), first: next, count: 1 };
                    next += 1;
                    let message = values::message(&self.name, values.first);
                    let topic = self.topic.clone();
                    let asked = What::Publish { topic, values, sequence: None };
                    let op = world.history.invoke(&self.name, asked);
                    sent.push((op, producer.send(message).await));
                }
                if !self.settle(&world, sent).await {
                    break;
                }
                rest(&mut chances, 5, 40 * world.leisure).await;
            }
        }
    }

    async fn open(&self, world: &World, endpoints: &str) -> Option<Producer> {
        let client = Client::connect(endpoints).await.ok()?;
        let producer = client.producer(&self.topic, &self.name);
        match producer.register().retry_for(Duration::from_secs(20)).open().await {
            Ok(producer) => Some(producer),
            Err(error) => {
                if error.code().is_some_and(|code| !RETRYABLE.contains(&code)) {
                    world.alarm(format!("{} cannot be opened: {error:?}", self.name));
                }
                None
            }
        }
    }

    /// Writes what became of messages; false if the producer is to be opened anew.
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

/// What the library says of a message: the broker's refusal, or that nobody can say.
fn refused(error: &Error) -> What {
    let (code, reason) = match error {
        Error::Refused(refusal) => (format!("{:?}", refusal.code), refusal.reason.clone()),
        _ => ("LIBRARY".to_owned(), String::new()),
    };
    What::Refused { code, reason, message: error.to_string() }
}
