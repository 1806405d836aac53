//! Streams: their frames, their leases, and how they end.

use std::time::{Duration, Instant};

use tonic::{Code, Status};
use trunkline::proto::{self, OnBusy, consume_response::Event};

use crate::support::{TestBroker, assert_field, assert_refused, info, until};

#[tokio::test]
async fn a_stream_attaches_delivers_messages_and_reports_that_it_caught_up() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a", "b"]).await;
    let mut stream = broker.consume("orders", "billing").await;
    let attached = stream.attached().await;
    assert_eq!((attached.position, attached.head, attached.epoch), (0, 2, 1));
    let Event::Batch(batch) = stream.next().await else { panic!("messages expected") };
    assert_eq!(batch.messages.len(), 2);
    let Event::CaughtUp(caught_up) = stream.next().await else { panic!("caught up expected") };
    assert_eq!(caught_up.head, 2);
    broker.publish("orders", ["c"]).await;
    let Event::Batch(batch) = stream.next().await else { panic!("messages expected") };
    assert_eq!((batch.messages[0].offset, batch.messages.len()), (2, 1));
}

#[tokio::test]
async fn a_message_arrives_without_waiting_for_the_next_poll() {
    let broker = TestBroker::start().await;
    let other = broker.start_another().await;
    broker.topic("orders").await;
    for (at, id) in [(&broker, "here"), (&other, "there")] {
        broker.consumer("orders", id).await;
        let mut stream = at.consume("orders", id).await;
        stream.read_to_end().await;
        // Brokers poll once a second: ten messages in succession would take several seconds.
        let started = Instant::now();
        for number in 0..10 {
            broker.publish("orders", ["x"]).await;
            stream.next_messages().await;
            assert!(started.elapsed() < Duration::from_secs(5), "message {number} to {id} is late");
        }
    }
}

#[tokio::test]
async fn a_standby_is_told_the_holder_and_succeeds_it() {
    let broker = TestBroker::start().await;
    let other = broker.start_another().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    for standby_at in [&broker, &other] {
        let mut holder = broker.consume("orders", "billing").await;
        let epoch = holder.attached().await.epoch;
        let name = broker.get_consumer("orders", "billing").await.holder;
        let mut standby = standby_at.consume("orders", "billing").await;
        assert_eq!(standby.standby().await, name);
        drop(holder);
        let started = Instant::now();
        assert_eq!(standby.attached().await.epoch, epoch + 1);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        drop(standby);
        until("the lease is released", async || {
            broker.get_consumer("orders", "billing").await.holder.is_empty()
        })
        .await;
    }
}

#[tokio::test]
async fn standbys_get_the_lease_in_the_order_of_their_arrival() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut holder = broker.consume("orders", "billing").await;
    holder.attached().await;
    let mut standbys = Vec::new();
    for _ in 0..3 {
        let mut standby = broker.consume("orders", "billing").await;
        standby.standby().await;
        standbys.push(standby);
    }
    drop(holder);
    for (number, mut standby) in standbys.into_iter().enumerate() {
        assert_eq!(standby.attached().await.epoch, number as i64 + 2);
    }
}

#[tokio::test]
async fn a_standby_that_disconnects_leaves_nothing_behind() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut holder = broker.consume("orders", "billing").await;
    holder.attached().await;
    let mut standby = broker.consume("orders", "billing").await;
    standby.standby().await;
    drop(standby);
    drop(holder);
    let mut next = broker.consume("orders", "billing").await;
    next.attaches().await;
    drop(next);
    broker.all_leases_are_free().await;
}

#[tokio::test]
async fn a_stream_of_a_deleted_topic_ends_not_found() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut idle = broker.consume("orders", "billing").await;
    idle.attached().await;
    let delete = proto::DeleteTopicRequest { topic: "orders".to_owned() };
    broker.topics().delete_topic(delete).await.unwrap();
    let metadata = info(&idle.ended().await, Code::NotFound, "TOPIC_NOT_FOUND");
    assert_eq!(metadata["topic"], "orders");
}

/// The refusal of a stream, by the call or in place of its first frame.
async fn refusal(broker: &TestBroker, request: proto::ConsumeRequest) -> Result<(), Status> {
    let mut stream = broker.consumers().consume(request).await?.into_inner();
    stream.message().await.map(|frame| panic!("a refusal expected, not {frame:?}"))
}

#[tokio::test]
async fn a_stream_that_is_invalid_or_of_no_consumer_is_refused() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let request = TestBroker::request;
    assert_field(refusal(&broker, request("", "billing")).await, "topic", None);
    assert_field(refusal(&broker, request("orders", "a b")).await, "consumer_id", None);
    let nobody = refusal(&broker, request("orders", "nobody")).await;
    let metadata = assert_refused(nobody, Code::NotFound, "CONSUMER_NOT_FOUND");
    assert_eq!(
        (metadata["topic"].as_str(), metadata["consumer_id"].as_str()),
        ("orders", "nobody")
    );
    let no_topic = refusal(&broker, request("nope", "billing")).await;
    assert_refused(no_topic, Code::NotFound, "TOPIC_NOT_FOUND");

    let good = request("orders", "billing");
    let unknown = proto::ConsumeRequest { commit_mode: 9, ..good.clone() };
    assert_field(refusal(&broker, unknown).await, "commit_mode", None);
    let unknown = proto::ConsumeRequest { on_busy: 9, ..good.clone() };
    assert_field(refusal(&broker, unknown).await, "on_busy", None);
    for (seconds, nanos) in [(0, 1), (61, 0), (-1, 0)] {
        let heartbeat_interval = Some(prost_types::Duration { seconds, nanos });
        let bad = proto::ConsumeRequest { heartbeat_interval, ..good.clone() };
        assert_field(refusal(&broker, bad).await, "heartbeat_interval", Some(60));
    }
    let mut holder = broker.consume("orders", "billing").await;
    holder.attached().await;
    let busy = proto::ConsumeRequest { on_busy: OnBusy::Fail.into(), ..good };
    let metadata =
        assert_refused(refusal(&broker, busy).await, Code::FailedPrecondition, "LEASE_HELD");
    assert!(metadata["holder"].starts_with("connection "), "{}", metadata["holder"]);
}

#[tokio::test]
async fn a_thousand_idle_streams_share_a_few_database_sessions() {
    const STREAMS: usize = 1_000;
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let sql = broker.sql().await;
    sql.execute(
        "insert into trunkline.consumer_topic (topic_id, consumer_id, position)
         select id, 'c-' || n, 0 from trunkline.topic, generate_series(1, $1::int) as n",
        &[&(STREAMS as i32)],
    )
    .await
    .unwrap();
    let mut streams = Vec::new();
    for number in 1..=STREAMS {
        let request = TestBroker::request("orders", &format!("c-{number}"));
        streams.push(broker.consumers().consume(request).await.unwrap().into_inner());
    }
    for stream in &mut streams {
        loop {
            let frame = crate::support::soon("a frame", stream.message()).await.unwrap().unwrap();
            if matches!(frame.event, Some(Event::CaughtUp(_))) {
                break;
            }
        }
    }
    let sessions = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name like 'trunkline%'";
    let sessions: i64 = sql.query_one(sessions, &[]).await.unwrap().get(0);
    assert!(sessions <= 9, "{sessions} sessions");
    broker.publish("orders", ["to all"]).await;
    for stream in &mut streams {
        let frame = crate::support::soon("a frame", stream.message()).await.unwrap().unwrap();
        assert!(matches!(frame.event, Some(Event::Batch(_))), "{frame:?}");
    }
}
