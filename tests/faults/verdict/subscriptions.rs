//! What is stored of subscriptions at the end of a run.

use std::sync::Arc;

use crate::{
    history::{Offsets, What},
    workload::World,
};

/// Notes the subscriptions of topics. Before the logs are noted: retention may remove more messages
/// meanwhile, and what is parked of them.
pub async fn note(world: &World, name: &Arc<str>, sql: &tokio_postgres::Client, topics: &[&str]) {
    // One statement, so that all is of one moment.
    let subscriptions = "select t.name, c.consumer_id, c.position,
            array(select m.\"offset\" from trunkline.subscription_message m
                where m.topic_id = s.topic_id and m.id = s.id and m.due is null order by 1),
            array(select m.\"offset\" from trunkline.subscription_message m
                where m.topic_id = s.topic_id and m.id = s.id and m.due is not null order by 1)
        from trunkline.subscription s
        join trunkline.consumer_topic c on c.topic_id = s.topic_id and c.id = s.id
        join trunkline.topic t on t.id = s.topic_id
        where t.name = any($1)";
    for row in sql.query(subscriptions, &[&topics]).await.unwrap() {
        let (topic, consumer): (&str, &str) = (row.get(0), row.get(1));
        let (parked, retried): (Vec<i64>, Vec<i64>) = (row.get(3), row.get(4));
        let subscription = What::Subscription {
            topic: topic.into(),
            consumer: consumer.into(),
            floor: row.get(2),
            parked: ranges(&parked),
            retried: ranges(&retried),
        };
        world.history.note(name, subscription);
    }
}

/// Offsets in order, as ranges.
fn ranges(offsets: &[i64]) -> Vec<Offsets> {
    let consecutive = offsets.chunk_by(|one, next| one + 1 == *next);
    consecutive.map(|range| (range[0], range[0] + range.len() as i64)).collect()
}
