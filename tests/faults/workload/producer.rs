//! A producer that waits for each answer.

use std::sync::Arc;

use tokio::time::Instant;
use tonic::{Response, Status};
use trunkline::proto;

use super::{LAST_TRIES, Way, World, patient, refused, rest};
use crate::{
    history::{Stage, Values, What},
    values::{self, Sizes},
};

/// Whether a producer's messages are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// With a sequence, so that each request is tried again until it is stored.
    Sequence,
    /// Without: what failed is not tried again, and the next values follow.
    None,
}

/// A producer that waits for each answer.
pub struct UnaryProducer {
    pub topic: Arc<str>,
    pub name: Arc<str>,
    pub sizes: Sizes,
    pub counting: Counting,
}

impl UnaryProducer {
    /// Publishes until it is enough.
    pub async fn run(self, world: Arc<World>, first: usize) {
        let mut chances = world.chances(&self.name);
        let mut way = Way::new(&world, first);
        let mut next = 0;
        let mut give_up_at = None;
        while !world.enough.is_cancelled() {
            let count = chances.i64(
                1..=match self.sizes {
                    Sizes::Small => 30,
                    Sizes::All => 3,
                },
            );
            let values = Values { producer: self.name.clone(), first: next, count };
            next += count;
            while let Err(refused) = self.publish(&world, &mut way, &values).await {
                let stopped = world.enough.is_cancelled();
                let give_up_at =
                    stopped.then(|| *give_up_at.get_or_insert_with(|| Instant::now() + LAST_TRIES));
                if self.counting == Counting::None {
                    way.move_on(&refused, &mut chances).await;
                    break;
                }
                if is_final(&refused) {
                    return world.alarm(format!("{} ends with {refused:?}", self.name));
                }
                if give_up_at.is_some_and(|at| at < Instant::now()) {
                    return world.alarm(format!("{} is stuck with {refused:?}", self.name));
                }
                way.move_on(&refused, &mut chances).await;
            }
            rest(&mut chances, world.leisure, 20 * world.leisure).await;
        }
    }

    async fn publish(&self, world: &World, way: &mut Way, values: &Values) -> Result<(), What> {
        let sequence = (self.counting == Counting::Sequence).then_some(values.first);
        publish(world, &self.name, &self.topic, (values, sequence), async |request| {
            way.producers().await?.publish(patient(request)).await
        })
        .await
    }
}

/// Publishes values as a client, in a way of its own, and writes what came of it.
pub(super) async fn publish(
    world: &World,
    client: &Arc<str>,
    topic: &Arc<str>,
    (values, sequence): (&Values, Option<i64>),
    send: impl AsyncFnOnce(proto::PublishRequest) -> Result<Response<proto::PublishResponse>, Status>,
) -> Result<(), What> {
    let asked = What::Publish { topic: topic.clone(), values: values.clone(), sequence };
    let op = world.history.invoke(client, asked);
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

/// Whether another try of a counted request must end in the same way.
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
