//! Publishes a message and prints every message that the consumer has not received yet.

use std::{env, error::Error};

use tokio_stream::StreamExt as _;
use trunkline::{
    client::{Client, Commit, Start, Stop},
    proto::NewMessage,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoint = env::var("TRUNKLINE_ENDPOINT");
    let client = Client::connect(endpoint.as_deref().unwrap_or("http://127.0.0.1:50051")).await?;
    client.ensure_topic("orders").await?;

    let producer = client.producer("orders", "bar").register().open().await?;
    let offset = producer.publish(NewMessage::new("one coffee").with_key("table 7")).await?;
    println!("published at offset {offset}");
    producer.close().await?;

    let mut consumer = client
        .consumer("orders", "barista", Commit::Manual)
        .register_at(Start::Earliest)
        .stop(Stop::CaughtUp) // without this, the loop waits for new messages for ever
        .open()
        .await?;
    while let Some(message) = consumer.next().await {
        let message = message?;
        println!("consumed {}: {}", message.offset, String::from_utf8_lossy(&message.payload));
        consumer.commit(&message);
    }
    consumer.close().await?;
    Ok(())
}
