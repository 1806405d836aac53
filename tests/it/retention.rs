//! What topics keep, what becomes of consumers that come too late, and of the space.

use std::{sync::Arc, time::Duration};

use prost_types::FieldMask;
use tonic::{Code, Status};
use trunkline::{
    model::{Offset, TopicId},
    proto::{self, CommitMode, Retention, consume_response::Event, trim_topic_request::Before},
    storage::Storage,
};

use crate::support::{
    LIMITS, TestBroker, TestDatabase, Trunkline, assert_field, assert_refused, payload, until,
};

/// A topic that keeps what `retention` says.
async fn topic(broker: &TestBroker, topic: &str, retention: Retention) {
    let topic = topic.to_owned();
    let request = proto::CreateTopicRequest {
        topic: topic.clone(),
        retention: Some(retention),
        ..Default::default()
    };
    broker.topics().create_topic(request).await.unwrap();
    broker.producer(&topic, "producer").await;
}

async fn floor_becomes(broker: &TestBroker, topic: &str, floor: i64) {
    until("the floor rises", async || broker.get_topic(topic).await.first_offset == floor).await;
}

async fn payloads(broker: &TestBroker, topic: &str) -> Vec<String> {
    let request = proto::ReadMessagesRequest { topic: topic.to_owned(), ..Default::default() };
    let page = broker.topics().read_messages(request).await.unwrap().into_inner();
    page.messages.iter().map(payload).collect()
}

async fn rows(broker: &TestBroker) -> i64 {
    let sql = broker.sql().await;
    sql.query_one("select count(*) from trunkline.batch", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_topic_keeps_so_many_messages() {
    let broker = TestBroker::start().await;
    topic(&broker, "orders", Retention { max_messages: 4, ..Default::default() }).await;
    broker.publish("orders", ["a", "b", "c"]).await;
    broker.publish("orders", ["d", "e", "f"]).await;
    broker.publish("orders", ["g"]).await;
    // To the message, also in the middle of what was stored together.
    floor_becomes(&broker, "orders", 3).await;
    assert_eq!(payloads(&broker, "orders").await, ["d", "e", "f", "g"]);
    broker.publish("orders", ["h"]).await;
    floor_becomes(&broker, "orders", 4).await;
    assert_eq!(payloads(&broker, "orders").await, ["e", "f", "g", "h"]);
    let sql = broker.sql().await;
    let view = "select min(\"offset\"), count(*) from trunkline.message";
    let row = sql.query_one(view, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (4, 4));
    until("the first batch is deleted", async || rows(&broker).await == 3).await;
    let described = broker.get_topic("orders").await;
    assert_eq!((described.head, described.retention.unwrap().max_messages), (8, 4));
}

#[tokio::test]
async fn a_topic_keeps_so_many_bytes() {
    let broker = TestBroker::start().await;
    topic(&broker, "orders", Retention { max_bytes: 2_500, ..Default::default() }).await;
    let kilobyte = "x".repeat(1_000);
    for _ in 0..6 {
        broker.publish("orders", [kilobyte.as_str()]).await;
    }
    floor_becomes(&broker, "orders", 3).await;
    // Never less than the limit, as long as there is more.
    assert_eq!(broker.get_topic("orders").await.bytes, 3_000);
    until("the rows are deleted", async || rows(&broker).await == 3).await;
}

#[tokio::test]
async fn a_topic_keeps_messages_for_so_long() {
    let broker = TestBroker::start().await;
    let max_age = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    topic(&broker, "orders", Retention { max_age, ..Default::default() }).await;
    broker.publish("orders", ["a", "b"]).await;
    broker.publish("orders", ["c"]).await;
    let sql = broker.sql().await;
    sql.batch_execute(
        "update trunkline.batch set published_at = now() - interval '61 minutes'
         where base_offset = 0",
    )
    .await
    .unwrap();
    floor_becomes(&broker, "orders", 2).await;
    assert_eq!(payloads(&broker, "orders").await, ["c"]);
    // The last one goes too, and the offsets go on.
    sql.batch_execute("update trunkline.batch set published_at = now() - interval '61 minutes'")
        .await
        .unwrap();
    floor_becomes(&broker, "orders", 3).await;
    assert_eq!(broker.get_topic("orders").await.bytes, 0);
    assert_eq!(broker.publish("orders", ["d"]).await, 3);
}

#[tokio::test]
async fn what_the_slowest_consumer_has_not_read_is_kept_if_so_said() {
    let broker = TestBroker::start().await;
    let retention = Retention { max_messages: 2, keep_unread: true, ..Default::default() };
    topic(&broker, "orders", retention).await;
    broker.consumer("orders", "slow").await;
    broker.consumer("orders", "fast").await;
    broker.publish("orders", ["a", "b", "c", "d", "e", "f"]).await;
    broker.pull("orders", "fast", 6).await.unwrap();
    broker.pull("orders", "slow", 3).await.unwrap();
    floor_becomes(&broker, "orders", 3).await;
    broker.pull("orders", "slow", 3).await.unwrap();
    floor_becomes(&broker, "orders", 4).await;
    // A consumer that is no longer there keeps nothing.
    broker.consumer("orders", "never").await;
    broker.publish("orders", ["g", "h"]).await;
    let (topic, consumer_id) = ("orders".to_owned(), "never".to_owned());
    let request = proto::UnregisterConsumerRequest { topic, consumer_id };
    broker.pull("orders", "fast", 2).await.unwrap();
    broker.pull("orders", "slow", 2).await.unwrap();
    assert_eq!(broker.get_topic("orders").await.first_offset, 4);
    broker.consumers().unregister_consumer(request).await.unwrap();
    floor_becomes(&broker, "orders", 6).await;
}

/// A limit that the oldest batch only just keeps is no reason to remove what everybody has read.
#[tokio::test]
async fn what_the_limits_keep_is_kept_though_everybody_has_read_it() {
    let broker = TestBroker::start().await;
    let retention = Retention { max_bytes: 1_000, keep_unread: true, ..Default::default() };
    topic(&broker, "orders", retention).await;
    topic(&broker, "bills", Retention { max_messages: 1, ..Default::default() }).await;
    broker.consumer("orders", "reader").await;
    let payload = "x".repeat(400);
    for _ in 0..3 {
        broker.publish("orders", [payload.as_str()]).await;
    }
    assert_eq!(broker.pull("orders", "reader", 3).await.unwrap().position, 3);
    // Two rounds of another topic tell that this one was looked at in between.
    for floor in [1, 2] {
        broker.publish("bills", ["x"]).await;
        if floor == 1 {
            broker.publish("bills", ["x"]).await;
        }
        floor_becomes(&broker, "bills", floor).await;
    }
    assert_eq!(broker.get_topic("orders").await.first_offset, 0);
    broker.publish("orders", [payload.as_str()]).await;
    floor_becomes(&broker, "orders", 1).await;
}

#[tokio::test]
async fn a_consumer_that_registers_or_seeks_while_the_floor_rises_begins_at_the_floor() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    broker.consumer("orders", "seeking").await;
    // As retention does it, but slower.
    let mut sql = broker.sql().await;
    let raising = sql.transaction().await.unwrap();
    let lock = "select from trunkline.topic_head for update";
    raising.query(lock, &[]).await.unwrap();
    let (topic, consumer_id) = ("orders".to_owned(), "new".to_owned());
    let register = proto::RegisterConsumerRequest { topic, consumer_id, start: None };
    let mut consumers = broker.consumers();
    let registering = tokio::spawn(async move { consumers.register_consumer(register).await });
    let (topic, consumer_id) = ("orders".to_owned(), "seeking".to_owned());
    let target = Some(proto::seek_request::Target::Offset(1));
    let seek = proto::SeekRequest { topic, consumer_id, target };
    let mut consumers = broker.consumers();
    let seeking = tokio::spawn(async move { consumers.seek(seek).await });
    until("both wait", async || broker.waiting_for_locks().await == 2).await;
    raising.batch_execute("update trunkline.topic_head set first_offset = 2").await.unwrap();
    raising.commit().await.unwrap();
    let registered = registering.await.unwrap().unwrap().into_inner().consumer.unwrap();
    assert_eq!(registered.position, 2);
    assert_refused(seeking.await.unwrap(), Code::OutOfRange, "OFFSET_OUT_OF_RANGE");
    assert_eq!(broker.position("orders", "seeking").await, 0);
}

#[tokio::test]
async fn a_topic_that_somebody_locks_does_not_keep_others_from_expiring() {
    let broker = TestBroker::start().await;
    for name in ["bills", "orders"] {
        topic(&broker, name, Retention { max_messages: 1, ..Default::default() }).await;
    }
    let mut sql = broker.sql().await;
    let locking = sql.transaction().await.unwrap();
    let lock = "select from trunkline.topic_head h join trunkline.topic t on t.id = topic_id
        where name = 'bills' for update of h";
    broker.publish("bills", ["a", "b"]).await;
    locking.query(lock, &[]).await.unwrap();
    broker.publish("orders", ["a", "b"]).await;
    floor_becomes(&broker, "orders", 1).await;
    let before = Some(Before::Offset(2));
    assert_refused(trim(&broker, "bills", before).await, Code::Unavailable, "TOPIC_BUSY");
    locking.rollback().await.unwrap();
    floor_becomes(&broker, "bills", 1).await;
}

#[tokio::test]
async fn a_deleted_topic_is_not_forgotten_while_it_has_messages() {
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
    // Another broker that is at it too may find nothing where this one has just been.
    storage.forget_deleted_topic(topic).await.unwrap();
    assert_eq!(storage.find_deleted_topics().await.unwrap(), [topic]);
    let rest = storage.delete_remains(topic, Offset(512)).await.unwrap();
    assert_eq!((rest.batches, rest.end), (44, Some(Offset(600))));
    assert_eq!(storage.delete_remains(topic, Offset(600)).await.unwrap().end, None);
    storage.forget_deleted_topic(topic).await.unwrap();
    assert!(storage.find_deleted_topics().await.unwrap().is_empty());
}

#[tokio::test]
async fn limits_may_be_changed_one_by_one_and_lifted() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    assert_eq!(broker.get_topic("orders").await.retention, None);
    let update = async |retention: Retention, paths: &[&str]| {
        let paths = paths.iter().map(|path| path.to_string()).collect();
        let request = proto::UpdateTopicRequest {
            topic: "orders".to_owned(),
            retention: Some(retention),
            update_mask: Some(FieldMask { paths }),
            ..Default::default()
        };
        let updated = broker.topics().update_topic(request).await?.into_inner();
        Ok::<_, Status>(updated.topic.unwrap().retention)
    };
    let bytes = Retention { max_bytes: 1 << 30, ..Default::default() };
    assert_eq!(update(bytes, &["retention"]).await.unwrap(), Some(bytes));
    let both =
        update(Retention { max_messages: 1, ..Default::default() }, &["retention.max_messages"]);
    assert_eq!(both.await.unwrap(), Some(Retention { max_messages: 1, ..bytes }));
    floor_becomes(&broker, "orders", 2).await;
    let lifted = update(Retention::default(), &["retention"]).await.unwrap();
    assert_eq!(lifted, None);

    let bad = update(Retention { max_bytes: -1, ..Default::default() }, &["retention"]).await;
    assert_field(bad, "retention.max_bytes", None);
    let bad = update(Retention { max_messages: -1, ..Default::default() }, &["retention"]).await;
    assert_field(bad, "retention.max_messages", None);
    let bad = update(Retention::default(), &["retention.colour"]).await;
    assert_field(bad, "update_mask", None);
    for seconds in [0, -1, i64::MAX] {
        let max_age = Some(prost_types::Duration { seconds, nanos: 0 });
        let bad = update(Retention { max_age, ..Default::default() }, &["retention"]).await;
        assert_field(bad, "retention.max_age", Some(100 * 365 * 24 * 3_600));
    }
    let bad = proto::CreateTopicRequest {
        topic: "bad".to_owned(),
        retention: Some(Retention { max_bytes: -1, ..Default::default() }),
        ..Default::default()
    };
    assert_field(broker.topics().create_topic(bad).await, "retention.max_bytes", None);
}

async fn trim(broker: &TestBroker, topic: &str, before: Option<Before>) -> Result<i64, Status> {
    let request = proto::TrimTopicRequest { topic: topic.to_owned(), before };
    Ok(broker.topics().trim_topic(request).await?.into_inner().first_offset)
}

#[tokio::test]
async fn a_topic_is_trimmed_to_the_message() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    broker.publish("orders", ["d"]).await;
    let second = {
        let sql = broker.sql().await;
        let time = "select max(published_at) from trunkline.batch";
        sql.query_one(time, &[]).await.unwrap().get::<_, std::time::SystemTime>(0)
    };
    assert_eq!(trim(&broker, "orders", Some(Before::Offset(0))).await.unwrap(), 0);
    assert_eq!(trim(&broker, "orders", Some(Before::Offset(2))).await.unwrap(), 2);
    assert_eq!(payloads(&broker, "orders").await, ["c", "d"]);
    // The floor never falls.
    assert_eq!(trim(&broker, "orders", Some(Before::Offset(1))).await.unwrap(), 2);
    assert_eq!(trim(&broker, "orders", Some(Before::Time(second.into()))).await.unwrap(), 3);
    let later = second + Duration::from_secs(3_600);
    assert_eq!(trim(&broker, "orders", Some(Before::Time(later.into()))).await.unwrap(), 4);
    assert!(payloads(&broker, "orders").await.is_empty());
    until("the rows are deleted", async || rows(&broker).await == 0).await;
    assert_eq!(broker.publish("orders", ["e"]).await, 4);
    assert_eq!(payloads(&broker, "orders").await, ["e"]);

    let beyond = trim(&broker, "orders", Some(Before::Offset(6))).await;
    let metadata = assert_refused(beyond, Code::OutOfRange, "OFFSET_OUT_OF_RANGE");
    assert_eq!((metadata["offset"].as_str(), metadata["head"].as_str()), ("6", "5"));
    assert_field(trim(&broker, "orders", None).await, "before", None);
    assert_field(trim(&broker, "orders", Some(Before::Offset(-1))).await, "offset", None);
    let no_time = prost_types::Timestamp { seconds: 0, nanos: -1 };
    assert_field(trim(&broker, "orders", Some(Before::Time(no_time))).await, "time", None);
    assert_field(trim(&broker, "a b", Some(Before::Offset(1))).await, "topic", None);
    let nowhere = trim(&broker, "nope", Some(Before::Offset(1))).await;
    assert_refused(nowhere, Code::NotFound, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn a_consumer_below_the_floor_is_told_of_the_gap_and_goes_on() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    for id in ["auto", "manual", "puller"] {
        broker.consumer("orders", id).await;
    }
    broker.publish("orders", ["a", "b", "c", "d"]).await;
    broker.trim("orders", 3).await;
    assert_eq!(broker.get_consumer("orders", "auto").await.lag, 1);

    let mut auto = broker.consume("orders", "auto").await;
    assert_eq!(auto.attached().await.position, 0);
    assert_eq!(auto.gap().await, (0, 3));
    assert_eq!(auto.payloads(1).await, ["d"]);
    assert_eq!(broker.position("orders", "auto").await, 4);

    let mut manual = broker.consume_manually("orders", "manual").await;
    manual.attached().await;
    assert_eq!(manual.gap().await, (0, 3));
    assert_eq!(manual.payloads(1).await, ["d"]);
    assert_eq!(broker.position("orders", "manual").await, 0);
    // What was removed may be committed, as what was delivered.
    manual.commit(3).await.unwrap();
    manual.commit(4).await.unwrap();

    let pulled = broker.pull("orders", "puller", 10).await.unwrap();
    assert_eq!(pulled.gap, Some(proto::Gap { first_offset: 0, end_offset: 3 }));
    assert_eq!((pulled.position, pulled.messages.len()), (4, 1));
}

#[tokio::test]
async fn a_gap_up_to_the_head_moves_a_consumer_there() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    for id in ["auto", "puller"] {
        broker.consumer("orders", id).await;
    }
    broker.publish("orders", ["a", "b"]).await;
    broker.trim("orders", 2).await;
    let mut auto = broker.consume("orders", "auto").await;
    auto.attached().await;
    assert_eq!(auto.gap().await, (0, 2));
    let Event::CaughtUp(caught_up) = auto.next().await else { panic!("caught up expected") };
    assert_eq!(caught_up.head, 2);
    assert_eq!(broker.position("orders", "auto").await, 2);
    broker.publish("orders", ["c"]).await;
    assert_eq!(auto.payloads(1).await, ["c"]);
    let pulled = broker.pull("orders", "puller", 10).await.unwrap();
    assert_eq!(
        (pulled.gap, pulled.position),
        (Some(proto::Gap { first_offset: 0, end_offset: 2 }), 3)
    );
}

#[tokio::test]
async fn a_stream_that_retention_overtakes_gets_a_gap_on_whatever_broker_it_is() {
    let broker = TestBroker::start().await;
    let other = broker.start_another().await;
    broker.topic("orders").await;
    broker.consumer("orders", "slow").await;
    let mut stream = other
        .open(proto::ConsumeRequest {
            commit_mode: CommitMode::Manual.into(),
            max_in_flight: 1,
            ..TestBroker::request("orders", "slow")
        })
        .await;
    stream.attached().await;
    for payload in ["a", "b", "c", "d", "e"] {
        broker.publish("orders", [payload]).await;
    }
    assert_eq!(stream.payloads(1).await, ["a"]);
    broker.trim("orders", 3).await;
    // The other broker's poll tells it.
    until("the other broker has heard of it", async || {
        let request =
            proto::ReadMessagesRequest { topic: "orders".to_owned(), ..Default::default() };
        let page = other.topics().read_messages(request).await.unwrap().into_inner();
        page.first_offset == 3
    })
    .await;
    stream.commit(1).await.unwrap();
    // It may have read ahead before the messages were removed; what follows is in order, and once.
    let mut next = 1;
    while next < 5 {
        match stream.next().await {
            Event::Batch(batch) => {
                assert_eq!(batch.messages[0].offset, next);
                next += batch.messages.len() as i64;
                stream.commit(next).await.unwrap();
            }
            Event::Gap(gap) => {
                assert_eq!((gap.first_offset, gap.end_offset), (next, 3));
                next = gap.end_offset;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn one_broker_at_a_time_removes_and_another_takes_its_place() {
    let first = TestBroker::start().await;
    let second = first.start_another().await;
    topic(&first, "orders", Retention { max_messages: 1, ..Default::default() }).await;
    first.publish("orders", ["a", "b"]).await;
    floor_becomes(&second, "orders", 1).await;
    let sql = second.sql().await;
    let locks = "select count(*) from pg_locks
        where locktype = 'advisory' and objsubid = 1 and granted
          and database = (select oid from pg_database where datname = current_database())";
    assert_eq!(sql.query_one(locks, &[]).await.unwrap().get::<_, i64>(0), 1);
    first.stop().await;
    second.publish("orders", ["c", "d"]).await;
    floor_becomes(&second, "orders", 3).await;
    // And when its session is lost, it gets the right back with a new one.
    second.end_sessions("trunkline lease").await;
    second.publish("orders", ["e"]).await;
    floor_becomes(&second, "orders", 4).await;
}

#[tokio::test]
async fn trimming_much_does_not_hold_up_publishes() {
    const BATCHES: i64 = 20_000;
    let broker = Arc::new(TestBroker::start().await);
    broker.topic("orders").await;
    let sql = broker.sql().await;
    sql.execute(
        "insert into trunkline.batch (topic_id, base_offset, count, bytes, payloads, producers,
             producer_counts, published_at)
         select id, n, 1, 1, array['x'::bytea], array['producer'], array[1], now()
         from trunkline.topic, generate_series(0, $1::bigint - 1) as n",
        &[&BATCHES],
    )
    .await
    .unwrap();
    sql.execute(
        "update trunkline.topic_head set next_offset = $1, bytes = $1, last_published_at = now()",
        &[&BATCHES],
    )
    .await
    .unwrap();
    let trimming = broker.clone();
    let trimming = tokio::spawn(async move { trimming.trim("orders", BATCHES).await });
    // A publish that waits half a second for the topic's row is refused.
    let mut published = 0;
    while !trimming.is_finished() || published < 10 {
        broker.publish("orders", ["y"]).await;
        published += 1;
    }
    assert_eq!(trimming.await.unwrap(), BATCHES);
    until("what was trimmed is deleted", async || rows(&broker).await == published).await;
    assert_eq!(broker.get_topic("orders").await.bytes, published);
}

/// Ten times the retained volume goes through a topic; the tables stay as they were.
#[tokio::test]
async fn space_is_used_again() {
    const KEPT: i64 = 8 * 1024 * 1024;
    const MESSAGE: usize = 32 * 1024;
    let broker = TestBroker::start().await;
    topic(&broker, "orders", Retention { max_bytes: KEPT, ..Default::default() }).await;
    let sql = broker.sql().await;
    let size = async || -> i64 {
        let size = "select sum(pg_total_relation_size(oid))::bigint from pg_class
            where relkind = 'r' and relnamespace = 'trunkline'::regnamespace";
        sql.query_one(size, &[]).await.unwrap().get(0)
    };
    let mut seed = 1_u64;
    // Text that does not compress, or the size would say nothing.
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
        // Half of what is kept, in each round.
        for _ in 0..kept / 4 {
            broker.publish("orders", [noise().as_str(), &noise()]).await;
        }
        until("what is too much is deleted", async || {
            let topic = broker.get_topic("orders").await;
            topic.first_offset >= topic.head - kept - 2
                && rows(&broker).await <= (topic.head - topic.first_offset) / 2 + 1
        })
        .await;
        sizes.push(size().await);
    }
    println!("bytes on disk after each {} published: {sizes:?}", KEPT / 2);
    assert!(sizes[2] > KEPT, "it compresses: {sizes:?}");
    let (early, late) = sizes.split_at(10);
    let (early, late) = (early.iter().max().unwrap(), late.iter().max().unwrap());
    // A vacuum that finds the table locked, or its rows still in some snapshot (autovacuum reads
    // it too), is made up for in the next round: it costs the space of one round, and only once.
    let one_round = KEPT / 2;
    assert!(*late <= early + early / 20 + one_round, "the tables grow: {sizes:?}");
    assert!(*late <= 3 * KEPT, "the tables are too large: {sizes:?}");
}

#[tokio::test]
async fn the_command_sets_limits_and_trims() {
    let broker = TestBroker::start().await;
    let run = async |arguments: &[&str]| {
        Trunkline::run(&[&["--endpoint", &broker.endpoint], arguments].concat()).await
    };
    let created =
        run(&["topic", "create", "orders", "--retention-age", "7d", "--keep-unread"]).await;
    assert_eq!(created.code(), 0, "{created:?}");
    let described = run(&["topic", "describe", "orders"]).await;
    assert!(described.stdout.contains("7days; unread messages are kept"), "{described:?}");
    let updated = run(&[
        "topic",
        "update",
        "orders",
        "--retention-age",
        "forever",
        "--retention-bytes",
        "1GiB",
        "--keep-unread=false",
    ])
    .await;
    assert_eq!(updated.code(), 0, "{updated:?}");
    let described = run(&["topic", "describe", "orders"]).await;
    assert!(described.stdout.contains("kept:            1.0 GiB\n"), "{described:?}");
    let nothing = run(&["topic", "update", "orders"]).await;
    assert_eq!((nothing.code(), nothing.stderr.lines().count()), (2, 1), "{nothing:?}");
    let bad = run(&["topic", "update", "orders", "--retention-age", "soon"]).await;
    assert_eq!(bad.code(), 2, "{bad:?}");

    broker.producer("orders", "producer").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    let trimmed = run(&["topic", "trim", "orders", "--before", "2"]).await;
    assert_eq!(trimmed.code(), 0, "{trimmed:?}");
    assert!(trimmed.stdout.contains("begins at offset 2"), "{trimmed:?}");
    let late = run(&[
        "consume",
        "orders",
        "--consumer",
        "late",
        "--register",
        "--from",
        "2",
        "--until-caught-up",
    ])
    .await;
    assert_eq!((late.code(), late.stdout.as_str()), (0, "c\n"), "{late:?}");
    let trimmed = run(&["topic", "trim", "orders", "--before", "@1970-01-01T00:00:00Z"]).await;
    assert!(trimmed.stdout.contains("begins at offset 2"), "{trimmed:?}");
    let beyond = run(&["topic", "trim", "orders", "--before", "9"]).await;
    assert_eq!(beyond.code(), 1, "{beyond:?}");
}

#[tokio::test]
async fn the_command_tells_of_a_gap_and_goes_on() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    broker.trim("orders", 2).await;
    let read = Trunkline::run(&[
        "--endpoint",
        &broker.endpoint,
        "consume",
        "orders",
        "--consumer",
        "billing",
        "--until-caught-up",
    ])
    .await;
    assert_eq!((read.code(), read.stdout.as_str()), (0, "c\n"), "{read:?}");
    assert!(read.stderr.contains("offsets 0 to 1 are no longer kept"), "{read:?}");
    assert_eq!(broker.position("orders", "billing").await, 3);
}
