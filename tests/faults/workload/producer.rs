//! A producer that waits for each answer.

use std::sync::Arc;

use tokio::time::Instant;
use tonic::{Response, Status};
use trunkline::proto;

use super::{BrokerConnection, FINAL_RETRIES, World, pause, refused, with_deadline};
use crate::{
    history::{Stage, Values, What},
    values::{self, Sizes},
};

/// Whether a producer uses sequences.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sequencing {
    /// Each request has a sequence and is retried until it is stored.
    With,
    /// Failed requests are not retried, and the next values follow.
    Without,
}

/// A producer that waits for each answer.
pub struct UnaryProducer {
    pub topic: Arc<str>,
    pub name: Arc<str>,
    pub sizes: Sizes,
    pub sequencing: Sequencing,
}

impl UnaryProducer {
    /// Publishes until writing stops.
    pub async fn run(self, world: Arc<World>, first: usize) {
        let mut rng = world.rng(&self.name);
        let mut connection = BrokerConnection::new(&world, first, &self.name);
        let mut next = 0;
        let mut give_up_at = None;
        while !world.stop_writing.is_cancelled() {
            let count = rng.i64(
                1..=match self.sizes {
                    Sizes::Small => 30,
                    Sizes::All => 3,
                },
            );
            let values = Values { producer: self.name.clone(), first: next, count };
            next += count;
            while let Err(refused) = self.publish(&world, &mut connection, &values).await {
                let stopped = world.stop_writing.is_cancelled();
                let give_up_at = stopped
                    .then(|| *give_up_at.get_or_insert_with(|| Instant::now() + FINAL_RETRIES));
                if self.sequencing == Sequencing::Without {
                    connection.move_on(&refused, &mut rng).await;
                    break;
                }
                if is_final(&refused) {
                    return world.alarm(format!("{} ends with {refused:?}", self.name));
                }
                if give_up_at.is_some_and(|at| at < Instant::now()) {
                    return world.alarm(format!("{} is stuck with {refused:?}", self.name));
                }
                connection.move_on(&refused, &mut rng).await;
            }
            pause(&mut rng, world.slowdown, 20 * world.slowdown).await;
        }
    }

    async fn publish(
        &self,
        world: &World,
        connection: &mut BrokerConnection,
        values: &Values,
    ) -> Result<(), What> {
        let sequence = (self.sequencing == Sequencing::With).then_some(values.first);
        publish(world, &self.name, &self.topic, (values, sequence), async |request| {
            connection.producers().await?.publish(with_deadline(request)).await
        })
        .await
    }
}

/// Publishes values as a client through a given call, and writes the outcome.
pub(super) async fn publish(
    world: &World,
    client: &Arc<str>,
    topic: &Arc<str>,
    (values, sequence): (&Values, Option<i64>),
    send: impl AsyncFnOnce(proto::PublishRequest) -> Result<Response<proto::PublishResponse>, Status>,
) -> Result<(), What> {
    let invocation = What::Publish { topic: topic.clone(), values: values.clone(), sequence };
    let op = world.history.invoke(client, invocation);
    let request = proto::PublishRequest {
        topic: topic.to_string(),
        producer_id: values.producer.to_string(),
        messages: messages(values),
        sequence,
        ..Default::default()
    };
    match send(request).await {
        Ok(published) => {
            let proto::PublishResponse { first_offset, duplicate, .. } = published.into_inner();
            let published = What::Published { first_offset, duplicate };
            world.history.write(client, op, Stage::Ok, published);
            Ok(())
        }
        Err(status) => {
            let (stage, what) = refused(&status);
            world.history.write(client, op, stage, what.clone());
            Err(what)
        }
    }
}

/// The messages of values.
pub(super) fn messages(values: &Values) -> Vec<proto::NewMessage> {
    (values.first..values.first + values.count)
        .map(|number| values::message(&values.producer, number))
        .collect()
}

/// Whether a retry of a request with a sequence must fail in the same way.
pub(super) fn is_final(refused: &What) -> bool {
    let What::Refused { reason, .. } = refused else { return false };
    [
        "SEQUENCE_GAP",
        "SEQUENCE_PASSED",
        "PRODUCER_FENCED",
        "PRODUCER_NOT_REGISTERED",
        "INVALID_FIELD",
    ]
    .contains(&reason.as_str())
}
