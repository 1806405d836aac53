//! Somebody who removes a topic's older messages.

use std::sync::Arc;

use tonic::Status;
use trunkline::proto::{self, trim_topic_request::Before};

use super::{Way, World, patient, refused, rest};
use crate::history::{Stage, What};

/// Removes all but some hundred of a topic's messages, again and again, until it is enough.
pub async fn trim_behind(world: Arc<World>, topic: Arc<str>) {
    let name: Arc<str> = "trimmer".into();
    let mut chances = world.chances(&name);
    let mut way = Way::new(&world, 0);
    while !world.enough.is_cancelled() {
        rest(&mut chances, 100, 500).await;
        let before = match head(&mut way, &topic).await {
            Ok(head) => head - chances.i64(0..=head.min(500)),
            Err(status) => {
                // What it asked for is no operation of the history; that it was refused is told.
                let (_, what) = refused(&status);
                let op =
                    world.history.invoke(&name, What::Trim { topic: topic.clone(), before: 0 });
                world.history.write(&name, op, Stage::Fail, what.clone());
                way.move_on(&what, &mut chances).await;
                continue;
            }
        };
        if before <= 0 {
            continue;
        }
        let op = world.history.invoke(&name, What::Trim { topic: topic.clone(), before });
        let request = proto::TrimTopicRequest {
            topic: topic.to_string(),
            before: Some(Before::Offset(before)),
        };
        match async { way.topics().await?.trim_topic(patient(request)).await }.await {
            Ok(trimmed) => {
                let first_offset = trimmed.into_inner().first_offset;
                world.history.write(&name, op, Stage::Ok, What::Trimmed { first_offset });
            }
            Err(status) => {
                let (stage, what) = refused(&status);
                world.history.write(&name, op, stage, what.clone());
                way.move_on(&what, &mut chances).await;
            }
        }
    }
}

async fn head(way: &mut Way, topic: &str) -> Result<i64, Status> {
    let request = patient(proto::GetTopicRequest { topic: topic.to_owned() });
    let found = way.topics().await?.get_topic(request).await?.into_inner();
    Ok(found.topic.map_or(0, |topic| topic.head))
}
