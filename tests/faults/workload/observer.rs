//! Somebody who reads the tables meanwhile, and writes down what has changed.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::World;
use crate::{history::What, postgres::connect, run::TOPICS};

/// Reads positions and ends until all is read.
pub async fn observe(world: Arc<World>) {
    let mut seen = HashMap::new();
    while !world.read.is_cancelled() {
        let mut database = world.database.subscribe();
        let url = database.borrow_and_update().clone();
        if let Ok(sql) = connect(&url).await {
            tokio::select! {
                // A server that is away, or full, is looked at again later.
                _ = look(&world, &sql, &mut seen) => {}
                // Another server has taken its place.
                _ = database.changed() => {}
                () = world.read.cancelled() => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What was last seen of a row.
type Seen = HashMap<(String, String), (i64, i64)>;

async fn look(
    world: &World,
    sql: &tokio_postgres::Client,
    seen: &mut Seen,
) -> Result<(), tokio_postgres::Error> {
    let positions = "select name, consumer_id, position, epoch from trunkline.consumer_topic c
        join trunkline.topic t on t.id = c.topic_id";
    let ends = "select name, '', first_offset, next_offset from trunkline.topic_head h
        join trunkline.topic t on t.id = h.topic_id";
    loop {
        for statement in [ends, positions] {
            for row in sql.query(statement, &[]).await? {
                let names: (String, String) = (row.get(0), row.get(1));
                let values: (i64, i64) = (row.get(2), row.get(3));
                // Others have no table at the end that they could be held against.
                if seen.get(&names) == Some(&values) || !TOPICS.contains(&names.0.as_str()) {
                    continue;
                }
                let (topic, consumer): (Arc<str>, Arc<str>) =
                    (names.0.as_str().into(), names.1.as_str().into());
                // Each row has a name of its own: it was read after the row's last line was written.
                let name = format!("observer of {topic}/{consumer}").into();
                let what = match consumer.is_empty() {
                    true => What::Ends { topic, first: values.0, head: values.1 },
                    false => {
                        What::Position { topic, consumer, position: values.0, epoch: values.1 }
                    }
                };
                world.history.note(&name, what);
                seen.insert(names, values);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
