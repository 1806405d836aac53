//! Works on each message of a subscription, which any number of these programs share.

use std::{env, error::Error};

use trunkline::{
    client::{Client, Job, Start, Verdict},
    proto::DeliveryPolicy,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoint = env::var("TRUNKLINE_ENDPOINT");
    let client = Client::connect(endpoint.as_deref().unwrap_or("http://127.0.0.1:50051")).await?;
    client.ensure_topic("pictures").await?;

    let producer = client.producer("pictures", "camera").register().open().await?;
    producer.publish("one.png").await?;
    producer.close().await?;

    // A message is parked when it was delivered five times and never acknowledged.
    let policy = DeliveryPolicy { max_deliveries: 5, ..Default::default() };
    let worker = client
        .worker("pictures", "resize")
        .create(Start::Earliest, policy)
        .concurrency(4)
        .until_caught_up() // without this, it waits for new messages for ever
        .open()
        .await?;
    worker.run(resize).await?;
    Ok(())
}

/// An error asks for another attempt, after a delay that grows.
async fn resize(job: Job) -> Result<Verdict, Box<dyn Error + Send + Sync>> {
    let Ok(name) = std::str::from_utf8(&job.payload) else {
        // No attempt would help.
        return Ok(Verdict::reject("the name is not UTF-8"));
    };
    println!("attempt {} at {name}", job.attempt());
    Ok(Verdict::Acknowledge)
}
