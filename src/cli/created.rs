//! Creates what a command needs and is missing, and says on standard error what it has created.

use super::failure::{Failure, print_notice};
use crate::{
    client::{Client, Start},
    proto::Producer,
};

/// Creates a topic unless it exists.
pub(super) async fn ensure_topic(client: &Client, topic: &str) -> Result<(), Failure> {
    if !client.ensure_topic(topic).await?.existed {
        print_notice(&format!("created topic {topic}"));
    }
    Ok(())
}

/// Registers a producer on a topic unless it is registered, and fences nobody. The broker makes an id
/// up if it is empty.
pub(super) async fn ensure_producer(
    client: &Client,
    topic: &str,
    id: &str,
) -> Result<Producer, Failure> {
    let registered = client.ensure_producer(topic, id).await?;
    let producer = registered.producer.unwrap_or_default();
    if !registered.existed {
        print_notice(&format!("registered producer {} on topic {topic}", producer.producer_id));
    }
    Ok(producer)
}

/// Registers a consumer on a topic, which begins at `start`, unless it is registered.
pub(super) async fn ensure_consumer(
    client: &Client,
    topic: &str,
    id: &str,
    start: Start,
) -> Result<(), Failure> {
    if !client.ensure_consumer(topic, id, start).await?.existed {
        print_notice(&format!("registered consumer {id} on topic {topic}"));
    }
    Ok(())
}
