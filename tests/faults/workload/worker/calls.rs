//! A worker that takes and settles messages by calls.

use fastrand::Rng;
use trunkline::proto;

use super::{
    WorkerClient, is_diligent,
    verdicts::{encode, in_calls},
};
use crate::{
    history::{Settlement, Stage, What},
    workload::{BrokerConnection, World, pause, refused, with_deadline},
};

/// How many messages it takes at a time, at most. It must settle them within a second.
const MOST: i32 = 200;

/// The most calls that settle what it took.
const CALLS: usize = 3;

impl WorkerClient {
    /// Takes messages, and settles them with some more calls.
    pub(super) async fn work_by_calls(
        &self,
        world: &World,
        connection: &mut BrokerConnection,
        rng: &mut Rng,
    ) {
        let settlements = match self.receive(world, connection, rng).await {
            Ok(settlements) => settlements,
            Err(refused) => return connection.move_on(&refused, rng).await,
        };
        if is_diligent(world) {
            self.settle(world, connection, &settlements, rng).await;
            return;
        }
        for settlements in in_calls(&settlements, CALLS, rng) {
            // It leaves with messages that it has not settled.
            if rng.u8(..40) == 0 {
                return connection.leave(rng);
            }
            self.settle(world, connection, &settlements, rng).await;
        }
        // Others may have some, too.
        pause(rng, 5, 50).await;
    }

    /// Takes messages; returns what becomes of them.
    async fn receive(
        &self,
        world: &World,
        connection: &mut BrokerConnection,
        rng: &mut Rng,
    ) -> Result<Vec<Settlement>, What> {
        let op = world.history.invoke(&self.name, self.taking());
        let request = proto::ReceiveRequest {
            topic: self.topic.to_string(),
            subscription_id: self.subscription.to_string(),
            max_messages: rng.i32(1..=MOST),
            wait: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        };
        let received =
            async { connection.subscriptions().await?.receive(with_deadline(request)).await };
        match received.await {
            Ok(received) => {
                let settlements = self.take(world, op, received.into_inner().deliveries, rng);
                world.history.write(&self.name, op, Stage::Ok, What::Left);
                Ok(settlements)
            }
            Err(status) => {
                let (stage, what) = refused(&status);
                world.history.write(&self.name, op, stage, what.clone());
                Err(what)
            }
        }
    }

    /// Settles messages with one call. If it is refused, they are delivered again.
    async fn settle(
        &self,
        world: &World,
        connection: &mut BrokerConnection,
        settlements: &[Settlement],
        rng: &mut Rng,
    ) {
        if settlements.is_empty() {
            return;
        }
        let op = world.history.invoke(&self.name, self.settling(settlements.to_vec()));
        let request = proto::SettleRequest {
            topic: self.topic.to_string(),
            subscription_id: self.subscription.to_string(),
            settlements: settlements.iter().map(encode).collect(),
        };
        let settled =
            async { connection.subscriptions().await?.settle(with_deadline(request)).await };
        match settled.await {
            Ok(settled) => {
                let applied = settled.into_inner().applied;
                world.history.write(&self.name, op, Stage::Ok, What::Settled { applied });
            }
            Err(status) => {
                let (stage, what) = refused(&status);
                world.history.write(&self.name, op, stage, what.clone());
                connection.move_on(&what, rng).await;
            }
        }
    }
}
