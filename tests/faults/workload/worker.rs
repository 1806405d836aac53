//! A client that works on the messages of a subscription.

mod calls;
mod stream;
mod verdicts;

use std::sync::Arc;

use fastrand::Rng;
use trunkline::proto;

use super::{BrokerConnection, World};
use crate::{
    history::{Settlement, Stage, What},
    values,
};

/// A client that works on the messages of a subscription, and settles most of them.
#[derive(Clone)]
pub struct WorkerClient {
    pub topic: Arc<str>,
    pub subscription: Arc<str>,
    pub name: Arc<str>,
    /// Whether it has a stream, or takes and settles messages by calls.
    pub streams: bool,
}

impl WorkerClient {
    /// Works until reading stops. What it has then is left to others.
    pub async fn run(self, world: Arc<World>, first: usize) {
        let mut rng = world.rng(&self.name);
        let mut connection = BrokerConnection::new(&world, first, &self.principal());
        let works = async {
            while !world.stop_reading.is_cancelled() {
                match self.streams {
                    true => self.work_on_a_stream(&world, &mut connection, &mut rng).await,
                    false => self.work_by_calls(&world, &mut connection, &mut rng).await,
                }
            }
        };
        tokio::select! {
            () = works => {}
            () = world.stop_reading.cancelled() => {}
        }
    }

    /// All workers of a subscription are one principal.
    pub fn principal(&self) -> String {
        format!("{}-{}", self.topic, self.subscription)
    }

    /// The invocation of a stream or of a call for messages.
    fn taking(&self) -> What {
        What::Work { topic: self.topic.clone(), consumer: self.subscription.clone() }
    }

    /// The invocation of settlements.
    fn settling(&self, settlements: Vec<Settlement>) -> What {
        let (topic, consumer) = (self.topic.clone(), self.subscription.clone());
        What::Settle { topic, consumer, settlements }
    }

    /// Notes what an operation delivered; returns what becomes of it.
    fn take(
        &self,
        world: &World,
        op: u64,
        deliveries: Vec<proto::Delivery>,
        rng: &mut Rng,
    ) -> Vec<Settlement> {
        let mut settlements = Vec::new();
        for proto::Delivery { delivery, batch, attempts } in deliveries {
            let messages = batch.map(|batch| batch.messages).unwrap_or_default();
            let mut runs = Vec::new();
            messages.iter().for_each(|message| values::add(&mut runs, message));
            settlements.extend(match is_diligent(world) {
                true => verdicts::settle_all(delivery, &runs),
                false => verdicts::settle_some(delivery, &runs, rng),
            });
            let handed = What::Handed { delivery, runs, attempts: in_a_row(&attempts) };
            world.history.write(&self.name, op, Stage::Note, handed);
        }
        settlements
    }
}

/// Whether workers settle everything at once and stay: at the end of a run they must catch up.
fn is_diligent(world: &World) -> bool {
    world.stop_writing.is_cancelled()
}

/// Each number, and how often it comes in a row.
fn in_a_row(numbers: &[i32]) -> Vec<(i32, i64)> {
    let rows = numbers.chunk_by(|one, next| one == next);
    rows.map(|row| (row[0], row.len() as i64)).collect()
}
