//! A client that seeks a consumer repeatedly.

use std::sync::Arc;

use trunkline::proto::{self, seek_request::Target};

use super::{BrokerConnection, World, pause, refused, with_deadline};
use crate::history::{Stage, What};

/// The furthest that a seek goes back, as those messages must be read again before the end.
const MAX_BACK: i64 = 3_000;

/// Moves a consumer to the ends of its topic, and in between, until writing stops.
pub async fn seek_repeatedly(world: Arc<World>, topic: Arc<str>, consumer: Arc<str>) {
    let name: Arc<str> = "seeker".into();
    let mut rng = world.rng(&name);
    let mut connection = BrokerConnection::new(&world, 0, &name);
    let mut last = 0;
    while !world.stop_writing.is_cancelled() {
        pause(&mut rng, 100, 600).await;
        let target = match rng.u8(..4) {
            0 if last < MAX_BACK => Target::Edge(proto::LogEdge::Earliest.into()),
            1 => Target::Edge(proto::LogEdge::Latest.into()),
            _ => Target::Offset(rng.i64((last - MAX_BACK).max(0)..=last)),
        };
        let invocation = What::Seek { topic: topic.clone(), consumer: consumer.clone() };
        let op = world.history.invoke(&name, invocation);
        let request = proto::SeekRequest {
            topic: topic.to_string(),
            consumer_id: consumer.to_string(),
            target: Some(target),
        };
        match async { connection.consumers().await?.seek(with_deadline(request)).await }.await {
            Ok(sought) => {
                let position = sought.into_inner().position;
                last = last.max(position);
                world.history.write(&name, op, Stage::Ok, What::Sought { position });
            }
            Err(status) => {
                let (stage, what) = refused(&status);
                world.history.write(&name, op, stage, what.clone());
                connection.move_on(&what, &mut rng).await;
            }
        }
    }
}
