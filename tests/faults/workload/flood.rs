//! More concurrent publishes than a broker accepts.

use std::sync::Arc;

use tokio::task::JoinSet;
use trunkline::proto::producer_service_client::ProducerServiceClient;

use super::{BrokerConnection, Connection, World, producer::publish};
use crate::history::Values;

/// Requests per connection, of which a broker accepts 2,048.
const PER_CONNECTION: i64 = 2_000;

/// Publishes a producer's values to a broker, each in its own request and all at once; returns how
/// many were acknowledged.
pub async fn flood(
    world: Arc<World>,
    broker: usize,
    (topic, name): (Arc<str>, Arc<str>),
    values: std::ops::Range<i64>,
) -> usize {
    let mut requests = JoinSet::new();
    let mut connection = BrokerConnection::new(&world, broker, &name);
    for number in values.clone() {
        if (number - values.start) % PER_CONNECTION == 0 {
            connection = BrokerConnection::new(&world, broker, &name);
        }
        let channel = connection.channel().await.unwrap();
        requests.spawn(publish_one(world.clone(), channel, topic.clone(), name.clone(), number));
    }
    requests.join_all().await.into_iter().filter(|acknowledged| *acknowledged).count()
}

async fn publish_one(
    world: Arc<World>,
    channel: Connection,
    topic: Arc<str>,
    name: Arc<str>,
    number: i64,
) -> bool {
    // Each request counts as a client, as concurrent requests have no order.
    let client: Arc<str> = format!("{name}-{number}").into();
    let values = Values { producer: name, first: number, count: 1 };
    let published = publish(&world, &client, &topic, (&values, None), async |request| {
        ProducerServiceClient::new(channel).publish(request).await
    });
    published.await.is_ok()
}
