//! Removed messages free their space on disk.

use trunkline::{
    model::{Offset, TopicId},
    proto::Retention,
    storage::Storage,
};

use crate::support::{LIMITS, TestBroker, TestDatabase, until};

#[tokio::test]
async fn a_deleted_topic_is_remembered_while_it_has_messages() {
    let database = TestDatabase::create().await;
    let storage = Storage::open(&database.url, None, LIMITS).await.unwrap();
    let sql = database.sql().await;
    sql.batch_execute(
        "insert into trunkline.deleted_topic (topic_id) values (7);
         insert into trunkline.batch (topic_id, base_offset, count, bytes, payloads, producers,
             producer_counts, published_at)
         select 7, n * 2, 2, 2, array['x', 'y']::bytea[], array['p'], array[2], now()
         from generate_series(0, 299) as n",
    )
    .await
    .unwrap();
    let topic = TopicId(7);
    let first = storage.delete_remains(topic, Offset(0)).await.unwrap();
    assert_eq!((first.batches, first.bytes, first.end), (256, 512, Some(Offset(512))));
    // Another broker that deletes them at the same time may find nothing left and try this.
    storage.forget_deleted_topic(topic).await.unwrap();
    assert_eq!(storage.find_deleted_topics().await.unwrap(), [topic]);
    let rest = storage.delete_remains(topic, Offset(512)).await.unwrap();
    assert_eq!((rest.batches, rest.end), (44, Some(Offset(600))));
    assert_eq!(storage.delete_remains(topic, Offset(600)).await.unwrap().end, None);
    storage.forget_deleted_topic(topic).await.unwrap();
    assert!(storage.find_deleted_topics().await.unwrap().is_empty());
}

/// Ten times the retained volume goes through a topic, and the tables do not grow.
#[tokio::test]
async fn freed_space_is_reused() {
    const KEPT: i64 = 8 * 1024 * 1024;
    const MESSAGE: usize = 32 * 1024;
    let broker = TestBroker::start().await;
    broker
        .topic_with_retention("orders", Retention { max_bytes: KEPT, ..Default::default() })
        .await;
    let sql = broker.sql().await;
    let size = async || -> i64 {
        let size = "select sum(pg_total_relation_size(oid))::bigint from pg_class
            where relkind = 'r' and relnamespace = 'trunkline'::regnamespace";
        sql.query_one(size, &[]).await.unwrap().get(0)
    };
    let mut seed = 1_u64;
    // Text that does not compress, as the size would say nothing otherwise.
    let mut noise = || -> String {
        std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + (seed >> 33) as u8 % 90)
        })
        .take(MESSAGE)
        .collect()
    };
    let kept = KEPT / MESSAGE as i64;
    let mut sizes = Vec::new();
    for _ in 0..20 {
        // Each round publishes half of what is kept.
        for _ in 0..kept / 4 {
            broker.publish("orders", [noise().as_str(), &noise()]).await;
        }
        until("everything over the limit is deleted", async || {
            let topic = broker.get_topic("orders").await;
            topic.first_offset >= topic.head - kept - 2
                && broker.batches().await <= (topic.head - topic.first_offset) / 2 + 1
        })
        .await;
        sizes.push(size().await);
    }
    println!("bytes on disk after each {} published: {sizes:?}", KEPT / 2);
    assert!(sizes[2] > KEPT, "the text compresses: {sizes:?}");
    let (early, late) = sizes.split_at(10);
    let (early, late) = (early.iter().max().unwrap(), late.iter().max().unwrap());
    // A vacuum may find the table locked, or its rows still visible to a snapshot (autovacuum
    // holds one, too). The next round makes up for it, so this costs the space of one round, once.
    let one_round = KEPT / 2;
    assert!(*late <= early + early / 20 + one_round, "the tables grow: {sizes:?}");
    assert!(*late <= 3 * KEPT, "the tables are too large: {sizes:?}");
}
