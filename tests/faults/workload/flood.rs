//! More publishes at once than a broker takes in.

use std::sync::Arc;

use tokio::task::JoinSet;
use trunkline::proto::producer_service_client::ProducerServiceClient;

use super::{Way, World, producer::publish};
use crate::history::Values;

/// Requests of one connection; a broker takes no more than 2,048.
const OF_A_CONNECTION: i64 = 2_000;

/// Publishes so many messages of a producer to a broker, each by a request of its own and all at
/// once; returns how many were acknowledged.
pub async fn flood(
    world: Arc<World>,
    broker: usize,
    (topic, name): (Arc<str>, Arc<str>),
    values: std::ops::Range<i64>,
) -> usize {
    let mut requests = JoinSet::new();
    let mut way = Way::new(&world, broker);
    for number in values.clone() {
        if (number - values.start) % OF_A_CONNECTION == 0 {
            way = Way::new(&world, broker);
        }
        let channel = way.channel().await.unwrap();
        requests.spawn(publish_one(world.clone(), channel, topic.clone(), name.clone(), number));
    }
    requests.join_all().await.into_iter().filter(|acknowledged| *acknowledged).count()
}

async fn publish_one(
    world: Arc<World>,
    channel: tonic::transport::Channel,
    topic: Arc<str>,
    name: Arc<str>,
    number: i64,
) -> bool {
    // As there is no order among requests of many at once.
    let client: Arc<str> = format!("{name}-{number}").into();
    let values = Values { producer: name, first: number, count: 1 };
    let published = publish(&world, &client, &topic, (&values, None), async |request| {
        ProducerServiceClient::new(channel).publish(request).await
    });
    published.await.is_ok()
}
