//! `trunkline produce` and `trunkline topic read`, run on the topic `orders`.

use super::{Finished, TestBroker};

pub async fn produce(broker: &TestBroker, options: &[&str], input: &str) -> Finished {
    let produce = ["produce", "orders", "--producer", "p", "--register"];
    broker.run_with_input(&[&produce[..], options].concat(), input).await
}

pub async fn read(broker: &TestBroker, options: &[&str]) -> String {
    let read = broker.run(&[&["topic", "read", "orders"], options].concat()).await;
    assert_eq!(read.code(), 0, "{read:?}");
    read.stdout
}
