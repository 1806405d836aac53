//! A small shop: a broker that authenticates, with two principals and what is theirs.

use tonic::{Code, Status};
use trunkline::proto::Operation;

use super::secured::{As, SecuredBroker};

/// A broker with the topic `orders`, the producer `web` and the consumer `billing`, which belong to
/// the principals `shop` and `office`.
pub struct Shop {
    pub broker: SecuredBroker,
    pub root: As,
    pub shop: As,
    pub office: As,
}

impl Shop {
    pub async fn open() -> Self {
        let broker = SecuredBroker::start().await;
        let root = broker.root().await;
        let shop = broker.principal("shop", [(Operation::Publish, "orders")]).await;
        let office = broker.principal("office", [(Operation::Consume, "orders")]).await;
        root.create_topic("orders").await.unwrap();
        shop.register_producer("orders", "web", false).await.unwrap();
        office.register_consumer("orders", "billing").await.unwrap();
        Self { broker, root, shop, office }
    }
}

/// Everything that a client can tell refusals apart by.
pub fn appearance(status: &Status, name: &str) -> (Code, String, Vec<u8>) {
    let replace = |text: &str| text.replace(name, "******");
    let details = String::from_utf8_lossy(status.details());
    let mut details = replace(&details).into_bytes();
    // The values of an ErrorInfo are a map, whose order differs from answer to answer.
    details.sort_unstable();
    (status.code(), replace(status.message()), details)
}
