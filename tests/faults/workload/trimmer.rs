//! A client that trims a topic repeatedly.

use std::sync::Arc;

use tonic::Status;
use trunkline::proto::{self, trim_topic_request::Before};

use super::{BrokerConnection, World, pause, refused, with_deadline};
use crate::history::{Stage, What};

/// Trims a topic to its last few hundred messages, repeatedly, until writing stops.
pub async fn trim_repeatedly(world: Arc<World>, topic: Arc<str>) {
    let name: Arc<str> = "trimmer".into();
    let mut rng = world.rng(&name);
    let mut connection = BrokerConnection::new(&world, 0, &name);
    while !world.stop_writing.is_cancelled() {
        pause(&mut rng, 100, 500).await;
        let before = match head(&mut connection, &topic).await {
            Ok(head) => head - rng.i64(0..=head.min(500)),
            Err(status) => {
                // Getting the topic is not an operation of the history; a trim records the refusal.
                let (_, what) = refused(&status);
                let op =
                    world.history.invoke(&name, What::Trim { topic: topic.clone(), before: 0 });
                world.history.write(&name, op, Stage::Fail, what.clone());
                connection.move_on(&what, &mut rng).await;
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
        match async { connection.topics().await?.trim_topic(with_deadline(request)).await }.await {
            Ok(trimmed) => {
                let first_offset = trimmed.into_inner().first_offset;
                world.history.write(&name, op, Stage::Ok, What::Trimmed { first_offset });
            }
            Err(status) => {
                let (stage, what) = refused(&status);
                world.history.write(&name, op, stage, what.clone());
                connection.move_on(&what, &mut rng).await;
            }
        }
    }
}

async fn head(connection: &mut BrokerConnection, topic: &str) -> Result<i64, Status> {
    let request = with_deadline(proto::GetTopicRequest { topic: topic.to_owned() });
    let found = connection.topics().await?.get_topic(request).await?.into_inner();
    Ok(found.topic.map_or(0, |topic| topic.head))
}
