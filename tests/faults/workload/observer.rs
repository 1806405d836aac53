//! The observer, which reads the tables during a run and notes changes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::World;
use crate::{history::What, postgres::connect, run::TOPICS};

/// Notes positions and log ends until reading stops.
pub async fn observe(world: Arc<World>) {
    let mut known = HashMap::new();
    while !world.stop_reading.is_cancelled() {
        let mut database = world.database.subscribe();
        let url = database.borrow_and_update().clone();
        if let Ok(sql) = connect(&url).await {
            tokio::select! {
                // A server that is down or full is read again later.
                _ = note_changes(&world, &sql, &mut known) => {}
                // Another server has replaced it.
                _ = database.changed() => {}
                () = world.stop_reading.cancelled() => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The last known values of each row.
type KnownRows = HashMap<(String, String), (i64, i64)>;

async fn note_changes(
    world: &World,
    sql: &tokio_postgres::Client,
    known: &mut KnownRows,
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
                // Other topics have no table at the end to compare them with.
                if known.get(&names) == Some(&values) || !TOPICS.contains(&names.0.as_str()) {
                    continue;
                }
                let (topic, consumer): (Arc<str>, Arc<str>) =
                    (names.0.as_str().into(), names.1.as_str().into());
                // The name includes the row, so that a client's previous line is about the same row.
                let name = format!("observer of {topic}/{consumer}").into();
                let what = match consumer.is_empty() {
                    true => What::LogEnds { topic, first: values.0, head: values.1 },
                    false => {
                        What::Position { topic, consumer, position: values.0, epoch: values.1 }
                    }
                };
                world.history.note(&name, what);
                known.insert(names, values);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
