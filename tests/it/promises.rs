//! The promises of the README.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tonic::Code;
use trunkline::proto::{self, consume_response::Event};

use crate::support::{TestBroker, TestDatabase, Trunkline, assert_refused, info, soon};

/// Promise 1: a publish is acknowledged only after its transaction committed.
#[tokio::test]
async fn acknowledged_messages_survive_a_kill_of_the_broker_and_of_postgres() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let serve = ["--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()];
    let (mut broker, endpoint) = Trunkline::serve(&serve).await;
    let lines: String = (0..2_000).map(|n| format!("line {n}\n")).collect();
    let produce = ["produce", "orders", "--producer", "p", "--register", "--endpoint", &endpoint];
    let produced = Trunkline::run_with_input(&produce, lines.as_bytes()).await;
    assert_eq!(produced.code(), 0, "{produced:?}");

    // PostgreSQL first, then the broker.
    let postmaster = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid")).unwrap();
    let postmaster = postmaster.lines().next().unwrap().parse().unwrap();
    let postmaster = nix::unistd::Pid::from_raw(postmaster);
    nix::sys::signal::kill(postmaster, nix::sys::signal::Signal::SIGKILL).unwrap();
    broker.kill().await;

    let (mut broker, endpoint) = Trunkline::serve(&serve).await;
    let consume = [
        "consume",
        "orders",
        "--consumer",
        "c",
        "--register",
        "--until-caught-up",
        "--endpoint",
        &endpoint,
    ];
    let consumed = Trunkline::run(&consume).await;
    assert_eq!(consumed.code(), 0, "{consumed:?}");
    assert_eq!(consumed.stdout, lines);
    broker.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(broker.wait().await.success());
}

/// Promise 1: `synchronous_commit` is forced on, whatever the server's default is.
#[tokio::test]
async fn a_publish_waits_for_the_disk_whatever_the_servers_default() {
    let database = Arc::new(TestDatabase::create().await);
    let sql = database.sql().await;
    let name = &database.name;
    sql.batch_execute(&format!("alter database {name} set synchronous_commit = off"))
        .await
        .unwrap();
    // Records the setting of the publishing session during the publish.
    sql.batch_execute(
        "create table public.recorded (setting text);
        create function record_setting() returns trigger language plpgsql as $$
         begin insert into public.recorded values (current_setting('synchronous_commit')); return new; end $$;
         create trigger record_setting after insert on trunkline.batch
         for each row execute function record_setting()",
    )
    .await
    .unwrap();
    let broker = TestBroker::start_on(database).await;
    broker.topic("orders").await;
    broker.publish("orders", ["first"]).await;
    let recorded = sql.query_one("select setting from public.recorded", &[]).await.unwrap();
    assert_eq!(recorded.get::<_, &str>(0), "on");
}

/// Promise 2: offsets are dense in commit order, and a consumer sees n before n + 1.
#[tokio::test]
async fn offsets_are_dense_and_consumers_receive_them_in_order() {
    let broker = Arc::new(TestBroker::start().await);
    let other = Arc::new(broker.start_another().await);
    broker.topic("orders").await;
    broker.consumer("orders", "live").await;
    let mut live = broker.consume("orders", "live").await;
    live.attached().await;

    let mut publishers = JoinSet::new();
    for publisher in 0..16 {
        let broker = if publisher % 2 == 0 { broker.clone() } else { other.clone() };
        publishers.spawn(async move {
            let mut offsets = Vec::new();
            for number in 0..50 {
                let payloads =
                    [format!("{publisher} {number} a"), format!("{publisher} {number} b")];
                let answer =
                    broker.try_publish("orders", "producer", payloads.clone()).await.unwrap();
                offsets.push((answer.first_offset, payloads[0].clone()));
                offsets.push((answer.first_offset + 1, payloads[1].clone()));
            }
            assert!(offsets.is_sorted(), "the offsets of one publisher grow");
            offsets
        });
    }
    let mut acknowledged = BTreeMap::new();
    while let Some(offsets) = publishers.join_next().await {
        acknowledged.extend(offsets.unwrap());
    }
    assert_eq!(acknowledged.len(), 1_600);
    assert_eq!(acknowledged.keys().copied().collect::<Vec<_>>(), (0..1_600).collect::<Vec<_>>());

    let received = live.messages(1_600).await;
    for (offset, message) in (0..).zip(&received) {
        assert_eq!(message.offset, offset);
        assert_eq!(acknowledged[&offset].as_bytes(), &message.payload[..]);
    }
    assert!(
        received.is_sorted_by_key(|message| message.publish_time.map(|t| (t.seconds, t.nanos)))
    );
}

/// Promise 2: a consumer never sees an uncommitted message.
#[tokio::test]
async fn no_consumer_sees_a_message_before_its_transaction_commits() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "live").await;
    let mut sql = broker.sql().await;
    let transaction = sql.transaction().await.unwrap();
    transaction
        .batch_execute(
            "update trunkline.topic_head set next_offset = next_offset + 1;
             insert into trunkline.batch select id, 0, 1, 1, array['x'::bytea], null, null,
                 array['producer'], array[1], now() from trunkline.topic",
        )
        .await
        .unwrap();
    let mut live = broker.consume("orders", "live").await;
    let (messages, head) = live.read_to_end().await;
    assert!(messages.is_empty());
    assert_eq!(head, 0);
    transaction.commit().await.unwrap();
    // The broker did not store it, so the poll finds it.
    assert_eq!(live.payloads(1).await, ["x"]);
}

/// Promise 3: one stream at a time can advance a consumer.
#[tokio::test]
async fn only_one_stream_at_a_time_has_the_lease_across_all_brokers() {
    let broker = TestBroker::start().await;
    let other = broker.start_another().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut holder = broker.consume("orders", "billing").await;
    holder.attached().await;
    let epoch = holder.epoch;

    let on_busy = proto::OnBusy::Fail.into();
    for broker in [&broker, &other] {
        let request = TestBroker::request("orders", "billing");
        let mut refused = broker.open(proto::ConsumeRequest { on_busy, ..request }).await;
        let status = refused.ended().await;
        let metadata = info(&status, Code::FailedPrecondition, "LEASE_HELD");
        let shown = broker.get_consumer("orders", "billing").await;
        assert_eq!(metadata["holder"], shown.holder);
        assert!(!shown.holder.is_empty());
    }
    let mut standby = other.consume("orders", "billing").await;
    standby.standby().await;
    drop(holder);
    assert_eq!(standby.attached().await.epoch, epoch + 1);
}

/// Promise 3: a stream that lost the lease can no longer move the position.
#[tokio::test]
async fn a_consumer_that_lost_its_lease_cannot_move_the_position() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["first", "second"]).await;
    let mut stale = broker.consume_manually("orders", "billing").await;
    stale.next_messages().await;

    // The lock is lost with its session, as when the network breaks.
    broker.end_sessions("trunkline lease").await;
    let status = stale.ended().await;
    info(&status, Code::Unavailable, "DATABASE_UNAVAILABLE");
    let mut owner = broker.consume_manually("orders", "billing").await;
    owner.next_messages().await;
    assert!(owner.epoch > stale.epoch);

    let metadata = assert_refused(stale.commit(1).await, Code::Aborted, "LEASE_LOST");
    assert_eq!(metadata["epoch"], stale.epoch.to_string());
    assert_eq!(broker.position("orders", "billing").await, 0);
    assert_eq!(owner.commit(1).await.unwrap(), 1);
    assert_eq!(broker.position("orders", "billing").await, 1);
}

/// Promise 3: the epoch fences, not only the lock.
#[tokio::test]
async fn a_stream_with_an_old_epoch_ends_although_it_has_the_lock() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut stale = broker.consume("orders", "billing").await;
    stale.attached().await;
    // Another broker claims a new epoch, although it cannot get the lock.
    let sql = broker.sql().await;
    sql.batch_execute(
        "update trunkline.consumer_topic
         set epoch = epoch + 1, claim_epoch = epoch + 1, claimant = 'another',
             claimed_by = 'token', claimed_at = now()",
    )
    .await
    .unwrap();
    broker.publish("orders", ["first"]).await;
    let metadata = info(&stale.ended().await, Code::Aborted, "LEASE_TAKEN_OVER");
    assert_eq!(metadata["holder"], "another");
    assert_eq!(broker.position("orders", "billing").await, 0);
}

/// Promise 4, auto commit: the position moves before a frame leaves.
#[tokio::test]
async fn in_auto_mode_a_message_is_delivered_at_most_once() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["first", "second"]).await;
    let mut stream = broker.consume("orders", "billing").await;
    assert_eq!(stream.payloads(2).await, ["first", "second"]);
    assert_eq!(broker.position("orders", "billing").await, 2);
    drop(stream);
    broker.publish("orders", ["third"]).await;
    let mut stream = broker.consume("orders", "billing").await;
    assert_eq!(stream.payloads(1).await, ["third"]);
}

/// Promise 4, manual commit: a message is delivered until its position is committed.
#[tokio::test]
async fn in_manual_mode_a_message_is_delivered_until_it_is_committed() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["first", "second", "third"]).await;
    let mut stream = broker.consume_manually("orders", "billing").await;
    assert_eq!(stream.payloads(3).await, ["first", "second", "third"]);
    assert_eq!(broker.position("orders", "billing").await, 0);
    stream.commit(1).await.unwrap();
    drop(stream);
    let mut stream = broker.consume_manually("orders", "billing").await;
    assert_eq!(stream.payloads(2).await, ["second", "third"]);
}

/// Promise 4: a position never goes back.
#[tokio::test]
async fn a_position_never_goes_back() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["first", "second", "third"]).await;
    let mut stream = broker.consume_manually("orders", "billing").await;
    stream.messages(3).await;
    stream.commit(2).await.unwrap();
    let metadata = assert_refused(stream.commit(1).await, Code::OutOfRange, "COMMIT_BEHIND");
    assert_eq!((metadata["asked"].as_str(), metadata["position"].as_str()), ("1", "2"));
    assert_eq!(broker.position("orders", "billing").await, 2);
}

/// Promise 5: a producer that is not registered cannot publish, and its request stores nothing.
#[tokio::test]
async fn an_unregistered_producer_stores_nothing_and_does_not_affect_others_in_its_flush() {
    let broker = Arc::new(TestBroker::start().await);
    broker.topic("orders").await;
    broker.topic("bills").await;
    let mut publishers = JoinSet::new();
    for number in 0..200 {
        let broker = broker.clone();
        publishers.spawn(async move {
            let topic = if number % 3 == 0 { "bills" } else { "orders" };
            let producer = if number % 2 == 0 { "producer" } else { "stranger" };
            (producer, broker.try_publish(topic, producer, [format!("{number}")]).await)
        });
    }
    while let Some(outcome) = publishers.join_next().await {
        match outcome.unwrap() {
            ("producer", outcome) => assert_eq!(outcome.unwrap().count, 1),
            (_, outcome) => {
                let metadata =
                    assert_refused(outcome, Code::PermissionDenied, "PRODUCER_NOT_REGISTERED");
                assert_eq!(metadata["producer_id"], "stranger");
            }
        }
    }
    assert_eq!(broker.stored().await, 100);
    let sql = broker.sql().await;
    let strangers = "select count(*) from trunkline.message where producer_id <> 'producer'";
    assert_eq!(sql.query_one(strangers, &[]).await.unwrap().get::<_, i64>(0), 0);

    // Registrations are not cached: unregistering takes effect at once.
    let (topic, producer_id) = ("orders".to_owned(), "producer".to_owned());
    let request = proto::UnregisterProducerRequest { topic, producer_id };
    broker.producers().unregister_producer(request).await.unwrap();
    let refused = broker.try_publish("orders", "producer", ["late"]).await;
    assert_refused(refused, Code::PermissionDenied, "PRODUCER_NOT_REGISTERED");
}

/// Promise 7: the first frame comes at once, and an idle stream sends heartbeats.
#[tokio::test]
async fn no_stream_is_silent() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let heartbeat_interval = Some(Duration::from_millis(100).try_into().unwrap());
    let with_heartbeats =
        || proto::ConsumeRequest { heartbeat_interval, ..TestBroker::request("orders", "billing") };
    let mut holder = broker.open(with_heartbeats()).await;
    holder.attached().await;
    assert!(matches!(holder.next().await, Event::CaughtUp(_)));
    let mut standby = broker.open(with_heartbeats()).await;
    assert!(!standby.standby().await.is_empty());
    for stream in [&mut holder, &mut standby] {
        for _ in 0..3 {
            assert!(matches!(stream.next().await, Event::Heartbeat(_)));
        }
    }
    // Every stream ends with a status that says when to retry.
    let stopped = broker.shut_down();
    for stream in [&mut holder, &mut standby] {
        let status = stream.ended().await;
        info(&status, Code::Unavailable, "DRAINING");
        assert!(crate::support::retry_delay(&status).is_some());
    }
    soon("the broker stops", stopped).await.unwrap().unwrap();
}

/// Promise 8: different topics never wait for each other.
#[tokio::test]
async fn a_locked_topic_delays_no_other_topic() {
    let broker = TestBroker::start().await;
    for number in 0..8 {
        broker.topic(&format!("topic-{number}")).await;
    }
    let mut sql = broker.sql().await;
    let lock = sql.transaction().await.unwrap();
    lock.execute(
        "update trunkline.topic_head set next_offset = next_offset
         where topic_id = (select id from trunkline.topic where name = 'topic-0')",
        &[],
    )
    .await
    .unwrap();
    let locked = broker.try_publish("topic-0", "producer", ["locked"]);
    let others = async {
        for number in 1..8 {
            broker.publish(&format!("topic-{number}"), ["free"]).await;
        }
    };
    let (locked, ()) =
        soon("all publishes are answered", async { tokio::join!(locked, others) }).await;
    let metadata = assert_refused(locked, Code::Unavailable, "TOPIC_BUSY");
    assert_eq!(metadata["topic"], "topic-0");
    lock.rollback().await.unwrap();
    assert_eq!(broker.publish("topic-0", ["free again"]).await, 0);
}

/// Promise 8: different consumers of one topic never wait for each other.
#[tokio::test]
async fn a_consumer_that_does_not_read_delays_no_other_consumer() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    for consumer in ["slow", "fast"] {
        broker.consumer("orders", consumer).await;
    }
    let _slow = broker.consume("orders", "slow").await;
    let mut fast = broker.consume("orders", "fast").await;
    fast.attached().await;
    // More than all windows and queues on the way to the slow consumer hold.
    const MESSAGES: usize = 80;
    for _ in 0..MESSAGES {
        broker.try_publish("orders", "producer", [vec![b'x'; 512 * 1024]]).await.unwrap();
    }
    assert_eq!(fast.messages(MESSAGES).await.len(), MESSAGES);
    assert!(
        broker.position("orders", "slow").await < MESSAGES as i64,
        "the slow consumer has not received everything"
    );
}
