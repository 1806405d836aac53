//! Stores orders and publishes their events in the same transactions, then prints the events.
//!
//! Run it as `cargo run TOPIC CONSUMER`, with the broker's database in `DATABASE_URL`.

use std::{env, error::Error};

use sqlx::{Connection as _, PgConnection};
use tokio_stream::StreamExt as _;
use trunkline::client::{Client, Commit, Start};

const TABLE: &str = "create table if not exists orders (
    id bigint generated always as identity primary key, item text not null)";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let topic = arguments.next().ok_or("the topic is missing")?;
    let consumer_id = arguments.next().ok_or("the consumer is missing")?;

    let mut database = PgConnection::connect(&env::var("DATABASE_URL")?).await?;
    sqlx::query(TABLE).execute(&mut database).await?;
    let create = sqlx::query("select trunkline.create_topic($1, if_missing => true)");
    create.bind(&topic).execute(&mut database).await?;

    let mut transaction = database.begin().await?;
    place_order(&mut transaction, &topic, "one coffee").await?;
    transaction.commit().await?;

    let mut transaction = database.begin().await?;
    place_order(&mut transaction, &topic, "two teas").await?;
    // Nobody ever sees the order or its event. To drop the transaction, as `?` does, is the same.
    transaction.rollback().await?;

    let mut transaction = database.begin().await?;
    let last = place_order(&mut transaction, &topic, "three cakes").await?.to_string();
    transaction.commit().await?;

    let endpoint = env::var("TRUNKLINE_ENDPOINT");
    let client = Client::connect(endpoint.as_deref().unwrap_or("http://127.0.0.1:50051")).await?;
    let consumer = client.consumer(&topic, &consumer_id, Commit::Manual);
    let mut events = consumer.register_at(Start::Earliest).open().await?;
    while let Some(event) = events.next().await {
        let event = event?;
        let key = String::from_utf8_lossy(event.key.as_deref().unwrap_or_default());
        println!("{key} {}", String::from_utf8_lossy(&event.payload));
        events.commit(&event);
        if key == last {
            break;
        }
    }
    events.close().await?;
    Ok(())
}

/// Stores an order and publishes its event, both with the caller's transaction; returns its id.
async fn place_order(on: &mut PgConnection, topic: &str, item: &str) -> sqlx::Result<i64> {
    let insert = sqlx::query_scalar("insert into orders (item) values ($1) returning id");
    let id: i64 = insert.bind(item).fetch_one(&mut *on).await?;
    let publish =
        "select trunkline.publish_later($1, jsonb_build_object('id', $2, 'item', $3), $4)";
    // The key is text.
    sqlx::query(publish).bind(topic).bind(id).bind(item).bind(id.to_string()).execute(on).await?;
    Ok(id)
}
