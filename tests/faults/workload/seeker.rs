//! Somebody who moves a consumer about.

use std::sync::Arc;

use trunkline::proto::{self, seek_request::Target};

use super::{Way, World, patient, refused, rest};
use crate::history::{Stage, What};

/// How far back a seek goes at the most: what it goes back by has to be read again before the end.
const FAR: i64 = 3_000;

/// Moves a consumer to the ends of its topic, and between them, until it is enough.
pub async fn seek_about(world: Arc<World>, topic: Arc<str>, consumer: Arc<str>) {
    let name: Arc<str> = "seeker".into();
    let mut chances = world.chances(&name);
    let mut way = Way::new(&world, 0);
    let mut last = 0;
    while !world.enough.is_cancelled() {
        rest(&mut chances, 100, 600).await;
        let target = match chances.u8(..4) {
            0 if last < FAR => Target::Edge(proto::LogEdge::Earliest.into()),
            1 => Target::Edge(proto::LogEdge::Latest.into()),
            _ => Target::Offset(chances.i64((last - FAR).max(0)..=last)),
        };
        let asked = What::Seek { topic: topic.clone(), consumer: consumer.clone() };
        let op = world.history.invoke(&name, asked);
        let request = proto::SeekRequest {
            topic: topic.to_string(),
            consumer_id: consumer.to_string(),
            target: Some(target),
        };
        match async { way.consumers().await?.seek(patient(request)).await }.await {
            Ok(sought) => {
                let position = sought.into_inner().position;
                last = last.max(position);
                world.history.write(&name, op, Stage::Ok, What::Sought { position });
            }
            Err(status) => {
                let (stage, what) = refused(&status);
                world.history.write(&name, op, stage, what.clone());
                way.move_on(&what, &mut chances).await;
            }
        }
    }
}
