//! Take-overs of leases, and their effect on holders and standbys.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tonic::Code;
use trunkline::proto::{self, OnBusy, consume_response::Event};

use crate::support::{TestBroker, assert_field, assert_refused, info, until};

async fn with_consumer() -> TestBroker {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker
}

#[tokio::test]
async fn a_take_over_ends_the_holder_within_a_second_on_any_broker() {
    let broker = with_consumer().await;
    let other = broker.start_another().await;
    broker.publish("orders", ["a", "b"]).await;
    // The fastest of several, as a busy machine may be slow once.
    let mut fastest = [Duration::MAX; 2];
    for round in 0..6 {
        let taking_broker = [&broker, &other][round % 2];
        let mut holder = broker.consume_manually("orders", "billing").await;
        holder.messages(2).await;
        let name = format!("taker {round}");
        let started = Instant::now();
        let mut taker = taking_broker.take_over("orders", "billing", &name).await;
        let metadata = info(&holder.ended().await, Code::Aborted, "LEASE_TAKEN_OVER");
        fastest[round % 2] = fastest[round % 2].min(started.elapsed());
        assert_eq!(
            (metadata["holder"].as_str(), metadata["topic"].as_str()),
            (name.as_str(), "orders")
        );
        let attached = taker.attaches().await;
        assert!(attached.epoch > holder.epoch && attached.position == 0, "{attached:?}");
        assert_eq!(broker.get_consumer("orders", "billing").await.holder, name);
        // A late commit is refused by every broker.
        assert_refused(holder.commit(1).await, Code::Aborted, "LEASE_LOST");
        let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
        let late = proto::CommitRequest { topic, consumer_id, epoch: holder.epoch, position: 1 };
        assert_refused(other.consumers().commit(late).await, Code::Aborted, "LEASE_LOST");
        assert_eq!(broker.position("orders", "billing").await, 0);
        assert_eq!(taker.payloads(2).await, ["a", "b"]);
        drop(taker);
        until("the lease is released", async || {
            broker.get_consumer("orders", "billing").await.holder.is_empty()
        })
        .await;
    }
    assert!(fastest.iter().all(|took| *took < Duration::from_secs(1)), "{fastest:?}");
}

#[tokio::test]
async fn taking_over_a_free_lease_does_not_wait() {
    let broker = with_consumer().await;
    let mut taker = broker.take_over("orders", "billing", "").await;
    assert_eq!(taker.attached().await.epoch, 1);
}

#[tokio::test]
async fn a_client_name_is_shown_wherever_a_holder_is() {
    let broker = with_consumer().await;
    let other = broker.start_another().await;
    let named = proto::ConsumeRequest {
        client_name: "shipper-7".to_owned(),
        ..TestBroker::request("orders", "billing")
    };
    let mut holder = broker.open(named.clone()).await;
    holder.attached().await;
    for broker in [&broker, &other] {
        assert_eq!(broker.get_consumer("orders", "billing").await.holder, "shipper-7");
        assert_eq!(broker.consume("orders", "billing").await.standby().await, "shipper-7");
        let pulled = broker.pull("orders", "billing", 1).await;
        let metadata = assert_refused(pulled, Code::FailedPrecondition, "LEASE_HELD");
        assert_eq!(metadata["holder"], "shipper-7");
    }
    for (name, limit) in [("x".repeat(256), Some(255)), ("a\nb".to_owned(), None)] {
        let bad = proto::ConsumeRequest { client_name: name, ..named.clone() };
        assert_field(broker.consumers().consume(bad).await, "client_name", limit);
    }
}

#[tokio::test]
async fn a_take_over_goes_before_all_standbys() {
    let broker = with_consumer().await;
    let other = broker.start_another().await;
    let mut holder = broker.consume("orders", "billing").await;
    holder.attached().await;
    let mut here = broker.consume("orders", "billing").await;
    here.standby().await;
    let mut there = other.consume("orders", "billing").await;
    there.standby().await;
    // A standby that is first in its broker's queue gives way.
    let mut taker = other.take_over("orders", "billing", "taker").await;
    taker.attaches().await;
    info(&holder.ended().await, Code::Aborted, "LEASE_TAKEN_OVER");
    broker.publish("orders", ["a"]).await;
    assert_eq!(taker.payloads(1).await, ["a"]);
    assert_eq!(broker.get_consumer("orders", "billing").await.holder, "taker");
    taker.commit(1).await.unwrap();
    // When the taker disconnects, the standbys are next.
    drop(taker);
    let first = tokio::select! {
        attached = here.attaches() => attached,
        attached = there.attaches() => attached,
    };
    assert_eq!(first.position, 1);
}

#[tokio::test]
async fn if_many_streams_take_over_at_once_one_has_the_lease_in_the_end() {
    const STREAMS: usize = 8;
    let broker = Arc::new(with_consumer().await);
    let other = Arc::new(broker.start_another().await);
    let mut streams = JoinSet::new();
    for number in 0..STREAMS {
        let broker = if number % 2 == 0 { broker.clone() } else { other.clone() };
        streams.spawn(async move {
            let name = format!("taker {number}");
            let mut stream = broker.take_over("orders", "billing", &name).await;
            loop {
                match stream.try_next().await {
                    Ok(Event::Batch(batch)) => return Ok((name, batch.messages.len())),
                    Ok(_) => {}
                    Err(status) => return Err(status),
                }
            }
        });
    }
    for _ in 1..STREAMS {
        let ended = streams.join_next().await.unwrap().unwrap();
        info(&ended.unwrap_err(), Code::Aborted, "LEASE_TAKEN_OVER");
    }
    broker.publish("orders", ["a"]).await;
    let (last, count) = streams.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(count, 1);
    assert!(last.starts_with("taker"));
}

#[tokio::test]
async fn in_auto_mode_no_message_comes_twice_across_take_overs() {
    const MESSAGES: usize = 3_000;
    let broker = Arc::new(with_consumer().await);
    let other = broker.start_another().await;
    let publisher = broker.clone();
    let publishing = tokio::spawn(async move {
        for _ in 0..MESSAGES / 10 {
            publisher.publish("orders", ["x"; 10]).await;
        }
    });
    let take_over = || proto::ConsumeRequest {
        on_busy: OnBusy::TakeOver.into(),
        ..TestBroker::request("orders", "billing")
    };
    let mut offsets = Vec::new();
    let mut stream = broker.open(take_over()).await;
    for at in [&other, &broker, &other, &broker] {
        offsets.extend(stream.messages(200).await.iter().map(|message| message.offset));
        let mut next = at.open(take_over()).await;
        // Frames in flight still arrive before the stream ends.
        loop {
            match stream.try_next().await {
                Ok(Event::Batch(batch)) => {
                    offsets.extend(batch.messages.iter().map(|message| message.offset));
                }
                Ok(_) => {}
                Err(status) => {
                    info(&status, Code::Aborted, "LEASE_TAKEN_OVER");
                    break;
                }
            }
        }
        next.attaches().await;
        stream = next;
    }
    while offsets.last() != Some(&(MESSAGES as i64 - 1)) {
        offsets.extend(stream.next_messages().await.iter().map(|message| message.offset));
    }
    publishing.await.unwrap();
    assert!(offsets.is_sorted_by(|one, next| one < next), "a message came twice");
}

#[tokio::test]
async fn an_abandoned_take_over_leaves_nothing_behind() {
    let broker = with_consumer().await;
    // No broker holds this lock, so no claim can end it.
    let sql = broker.sql().await;
    let lock = "select pg_advisory_lock(topic_id, id) from trunkline.consumer_topic";
    sql.batch_execute(lock).await.unwrap();
    let mut taker = broker.take_over("orders", "billing", "taker").await;
    taker.standby().await;
    let claims = "select count(*) from trunkline.consumer_topic where claimed_by is not null";
    let claimed = async |count: i64| -> bool {
        sql.query_one(claims, &[]).await.unwrap().get::<_, i64>(0) == count
    };
    until("the lease is claimed", async || claimed(1).await).await;
    drop(taker);
    until("the claim is withdrawn", async || claimed(0).await).await;
    sql.batch_execute("select pg_advisory_unlock_all()").await.unwrap();
    broker.consume("orders", "billing").await.attaches().await;
}

#[tokio::test]
async fn the_claim_of_a_dead_broker_is_void_after_five_seconds() {
    let broker = with_consumer().await;
    let sql = broker.sql().await;
    sql.batch_execute(
        "update trunkline.consumer_topic
         set claimed_by = 'token', claimant = 'one that died', claimed_at = now() - interval '4 s'",
    )
    .await
    .unwrap();
    let mut stream = broker.consume("orders", "billing").await;
    stream.standby().await;
    stream.attaches().await;
    assert!(!broker.get_consumer("orders", "billing").await.holder.contains("died"));
}

#[tokio::test]
async fn a_holder_ends_even_if_it_learns_late_of_an_abandoned_take_over() {
    let broker = with_consumer().await;
    broker.publish("orders", ["a", "b"]).await;
    let mut holder = broker.consume_manually("orders", "billing").await;
    holder.messages(2).await;
    let sql = broker.sql().await;
    sql.batch_execute(
        "update trunkline.consumer_topic
         set epoch = epoch + 1, claim_epoch = epoch + 1, claimant = 'one that left'",
    )
    .await
    .unwrap();
    // Going on as after a seek would deliver the client's messages again.
    let metadata = info(&holder.ended().await, Code::Aborted, "LEASE_TAKEN_OVER");
    assert_eq!(metadata["holder"], "one that left");
    let mut next = broker.consume_manually("orders", "billing").await;
    assert_eq!(next.payloads(2).await, ["a", "b"]);
    next.commit(2).await.unwrap();
}
