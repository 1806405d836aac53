//! The client library's consumer, against a scripted broker.

use std::time::Duration;

use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use trunkline::{
    client::{Commit, Error, Event, Start, Stop},
    proto::{self, CommitMode, OnBusy, consume_response::Event as Frame},
};

use crate::support::{
    ScriptedBroker,
    library_consumer::{
        builder, large_frame, messages, next, next_event, offsets, open, reading, status,
        status_to_retry,
    },
    soon,
};

#[tokio::test]
async fn messages_come_one_by_one_and_can_be_committed() {
    let mut broker = ScriptedBroker::start().await;
    let mut consumer = open(&broker, Commit::Manual).await;
    let stream = broker.consume().await;
    assert_eq!(stream.request.commit_mode(), CommitMode::Manual);
    assert_eq!(stream.request.on_busy(), OnBusy::Unspecified);
    stream.attach(7, 3).await;
    stream.messages(7..9).await;
    let first = next(&mut consumer).await;
    assert_eq!((first.offset, &first.payload[..]), (7, &b"7"[..]));
    assert_eq!(next(&mut consumer).await.offset, 8);
    consumer.commit(&first);
    let commit = broker.stored_commit().await;
    assert_eq!((commit.epoch, commit.position), (3, 8));
    assert_eq!((commit.topic.as_str(), commit.consumer_id.as_str()), ("orders", "billing"));
    soon("the close", consumer.close()).await.unwrap();
    stream.client_disconnects().await;
}

#[tokio::test]
async fn a_broken_stream_is_reopened_and_no_message_comes_twice() {
    let mut broker = ScriptedBroker::start().await;
    let mut consumer = open(&broker, Commit::Manual).await;
    let mut position = 0;
    for (round, ended) in [
        Some(Status::unavailable("the broker drains")),
        Some(status(Code::Unavailable, "DATABASE_UNAVAILABLE")),
        Some(status(Code::Aborted, "LEASE_LOST")),
        Some(status(Code::Aborted, "LEASE_TAKEN_OVER")),
        Some(Status::cancelled("by a proxy")),
        Some(Status::unknown("there was no status")),
        Some(Status::internal("from a proxy")),
        Some(Status::resource_exhausted("by the transport: enhance your calm")),
        Some(status_to_retry(Code::ResourceExhausted, "TOO_MANY_STREAMS")),
        None,
    ]
    .into_iter()
    .enumerate()
    {
        let stream = broker.consume().await;
        // The broker repeats what was not committed.
        stream.attach(0, 1 + round as i64).await;
        stream.messages(0..position + 3).await;
        assert_eq!(next_event(&mut consumer).await, Event::Attached { position: 0 });
        let expected: Vec<i64> = (position..position + 3).collect();
        assert_eq!(offsets(&mut consumer).await, expected, "in round {round}");
        position += 3;
        match ended {
            Some(status) => stream.end(status).await,
            None => drop(stream),
        }
        assert!(matches!(next_event(&mut consumer).await, Event::Broken(_)), "in round {round}");
    }
}

#[tokio::test]
async fn a_permanent_error_ends_the_consumer() {
    for (code, reason) in [
        (Code::NotFound, "TOPIC_NOT_FOUND"),
        (Code::NotFound, "CONSUMER_NOT_FOUND"),
        (Code::InvalidArgument, "INVALID_FIELD"),
        (Code::PermissionDenied, "DENIED"),
        (Code::Unauthenticated, "UNKNOWN_TOKEN"),
        (Code::FailedPrecondition, "LEASE_HELD"),
        (Code::Aborted, "SOMETHING_ELSE"),
        (Code::ResourceExhausted, "TOO_MANY"),
        (Code::Internal, "INTERNAL"),
        (Code::Unimplemented, ""),
    ] {
        let (_broker, mut consumer, stream) = reading(Commit::Manual, 0..1).await;
        stream.end(status(code, reason)).await;
        assert_eq!(next(&mut consumer).await.offset, 0);
        let error = soon("the error", consumer.next()).await.unwrap().unwrap_err();
        assert_eq!((error.code(), error.reason()), (Some(code), Some(reason)));
        assert!(soon("the end", consumer.next()).await.is_none());
    }
}

#[tokio::test]
async fn a_seek_repeats_messages_and_voids_earlier_ones() {
    let mut broker = ScriptedBroker::start().await;
    let mut consumer = open(&broker, Commit::Manual).await;
    let stream = broker.consume().await;
    stream.attach(10, 1).await;
    stream.messages(10..20).await;
    let old = messages(&mut consumer).await;
    let repositioned = proto::Repositioned { position: 5, head: 20, epoch: 2 };
    stream.frame(Frame::Repositioned(repositioned)).await;
    assert_eq!(next_event(&mut consumer).await, Event::Repositioned { position: 5 });
    stream.messages(5..8).await;
    let again = messages(&mut consumer).await;
    assert_eq!(again[0].offset, 5);
    // A message from before the seek cannot be committed after it.
    consumer.commit(&old[9]);
    consumer.commit(&again[0]);
    let commit = broker.stored_commit().await;
    assert_eq!((commit.epoch, commit.position), (2, 6));
}

#[tokio::test]
async fn a_seek_takes_effect_while_the_consumer_is_disconnected() {
    let mut broker = ScriptedBroker::start().await;
    let mut consumer = open(&broker, Commit::Manual).await;
    let stream = broker.consume().await;
    stream.attach_after_seek(0, 5, 4).await;
    stream.messages(0..10).await;
    let old = messages(&mut consumer).await;
    assert_eq!(old.len(), 10);
    drop(stream);
    // Without a seek, messages that it has received are skipped.
    let stream = broker.consume().await;
    stream.attach_after_seek(0, 6, 4).await;
    stream.messages(0..12).await;
    assert_eq!(offsets(&mut consumer).await, [10, 11]);
    drop(stream);
    // After a seek to where it began, all messages come again.
    let stream = broker.consume().await;
    stream.attach_after_seek(0, 8, 7).await;
    stream.messages(0..12).await;
    let again = messages(&mut consumer).await;
    assert_eq!(again.len(), 12);
    // Only messages from after the seek can be committed.
    consumer.commit(&old[9]);
    consumer.commit(&again[1]);
    assert_eq!(broker.stored_commit().await.position, 2);
    drop(stream);
    // A new registration starts with new epochs.
    let stream = broker.consume().await;
    stream.attach(0, 1).await;
    stream.messages(0..3).await;
    assert_eq!(offsets(&mut consumer).await, [0, 1, 2]);
}

#[tokio::test]
async fn standby_and_gap_frames_are_reported_and_unknown_frames_skipped() {
    let mut broker = ScriptedBroker::start().await;
    let mut consumer = open(&broker, Commit::Manual).await;
    let stream = broker.consume().await;
    stream.unknown_frame().await;
    let standby = proto::Standby { holder: "another".to_owned() };
    stream.frame(Frame::Standby(standby)).await;
    assert_eq!(next_event(&mut consumer).await, Event::Standby { holder: "another".to_owned() });
    stream.attach(0, 1).await;
    stream.frame(Frame::Heartbeat(proto::Heartbeat::default())).await;
    stream.frame(Frame::Gap(proto::Gap { first_offset: 0, end_offset: 4 })).await;
    stream.messages(4..5).await;
    stream.frame(Frame::CaughtUp(proto::CaughtUp { head: 5 })).await;
    assert_eq!(next_event(&mut consumer).await, Event::Attached { position: 0 });
    assert_eq!(next_event(&mut consumer).await, Event::Gap { from: 0, to: 4 });
    assert_eq!(offsets(&mut consumer).await, [4]);
    assert_eq!(next_event(&mut consumer).await, Event::CaughtUp);
}

#[tokio::test]
async fn a_consumer_takes_over_only_once() {
    let mut broker = ScriptedBroker::start().await;
    let builder = builder(&broker, Commit::Manual).await.take_over().client_name("ann");
    let mut consumer = builder.open().await.unwrap();
    let stream = broker.consume().await;
    assert_eq!(stream.request.on_busy(), OnBusy::TakeOver);
    assert_eq!(stream.request.client_name, "ann");
    // It asks again if the stream breaks before it had the lease.
    drop(stream);
    let stream = broker.consume().await;
    assert_eq!(stream.request.on_busy(), OnBusy::TakeOver);
    stream.attach(0, 1).await;
    stream.end(status(Code::Aborted, "LEASE_TAKEN_OVER")).await;
    assert!(matches!(next_event(&mut consumer).await, Event::Broken(_)));
    assert_eq!(next_event(&mut consumer).await, Event::Attached { position: 0 });
    assert!(matches!(next_event(&mut consumer).await, Event::Broken(_)));
    let stream = broker.consume().await;
    assert_eq!(
        stream.request.on_busy(),
        OnBusy::Wait,
        "two consumers would take over from each other forever"
    );
    stream.attach(0, 2).await;
    stream.messages(0..1).await;
    assert_eq!(next(&mut consumer).await.offset, 0);
}

#[tokio::test]
async fn a_consumer_ends_at_its_stop_condition() {
    use proto::consume_request::Stop as ProtoStop;

    let mut broker = ScriptedBroker::start().await;
    for (stop, requested) in [
        (Stop::CaughtUp, ProtoStop::UntilCaughtUp(true)),
        (Stop::Offset(2), ProtoStop::UntilOffset(2)),
        (Stop::Messages(2), ProtoStop::MaxMessages(2)),
    ] {
        let consumer = builder(&broker, Commit::AtMostOnce).await.stop(stop).open().await;
        let consumer = consumer.unwrap();
        let stream = broker.consume().await;
        assert_eq!(stream.request.stop, Some(requested));
        stream.attach(0, 1).await;
        stream.messages(0..2).await;
        drop(stream);
        let received = soon("the end", consumer.map(Result::unwrap).collect::<Vec<_>>()).await;
        assert_eq!(received.len(), 2, "{stop:?}");
    }
    // After a break it requests only the rest, as nothing is repeated in this mode.
    let consumer = builder(&broker, Commit::AtMostOnce).await.stop(Stop::Messages(5)).open().await;
    let mut consumer = consumer.unwrap();
    let stream = broker.consume().await;
    stream.attach(0, 1).await;
    stream.messages(0..2).await;
    next(&mut consumer).await;
    stream.end(Status::unavailable("gone")).await;
    let stream = broker.consume().await;
    assert_eq!(stream.request.stop, Some(ProtoStop::MaxMessages(3)));
    let none = builder(&broker, Commit::Manual).await.stop(Stop::Messages(0)).open().await;
    assert!(soon("the end", none.unwrap().next()).await.is_none());
}

#[tokio::test]
async fn a_heartbeat_interval_that_no_broker_accepts_is_refused() {
    let broker = ScriptedBroker::start().await;
    for interval in [Duration::ZERO, Duration::from_millis(99), Duration::MAX] {
        let consumer = builder(&broker, Commit::Auto).await.heartbeat_interval(interval);
        let error = consumer.open().await.unwrap_err();
        assert_eq!(error.to_string(), "heartbeat_interval must be 100 ms to 60 s");
    }
}

#[tokio::test]
async fn a_silent_stream_is_reopened() {
    let mut broker = ScriptedBroker::start().await;
    let interval = Duration::from_millis(100);
    let mut consumer =
        builder(&broker, Commit::Manual).await.heartbeat_interval(interval).open().await.unwrap();
    let stream = broker.consume().await;
    assert_eq!(stream.request.heartbeat_interval, Some(interval.try_into().unwrap()));
    stream.attach(0, 1).await;
    assert_eq!(next_event(&mut consumer).await, Event::Attached { position: 0 });
    let broken = next_event(&mut consumer).await;
    assert!(matches!(&broken, Event::Broken(Error::Lost { .. })), "{broken:?}");
    let next_stream = broker.consume().await;
    stream.client_disconnects().await;
    next_stream.attach(0, 2).await;
    // On a slow machine this stream may count as silent, too, and be reopened once more.
    while next_event(&mut consumer).await != (Event::Attached { position: 0 }) {
        broker.consume().await.attach(0, 3).await;
    }
}

#[tokio::test]
async fn a_consumer_that_does_not_read_applies_back_pressure() {
    let mut broker = ScriptedBroker::start().await;
    let mut consumer = open(&broker, Commit::AtMostOnce).await;
    let stream = broker.consume().await;
    stream.attach(0, 1).await;
    let sending = tokio::spawn(async move {
        for offset in 0..100 {
            stream.frame(large_frame(offset)).await;
        }
        stream
    });
    assert_eq!(next(&mut consumer).await.offset, 0);
    // As it reads on, all messages come.
    for offset in 1..100 {
        assert!(
            offset > 60 || !sending.is_finished(),
            "everything was sent when only {offset} were read"
        );
        assert_eq!(next(&mut consumer).await.offset, offset);
    }
    soon("all is sent", sending).await.unwrap();
}

#[tokio::test]
async fn registering_an_existing_consumer_succeeds() {
    let mut broker = ScriptedBroker::start().await;
    let consumer = builder(&broker, Commit::Manual).await.register_at(Start::Offset(7));
    let _consumer = consumer.open().await.unwrap();
    broker.consume().await;
}

#[tokio::test]
async fn a_consumer_at_its_stop_condition_reads_no_further() {
    let mut broker = ScriptedBroker::start().await;
    let consumer = builder(&broker, Commit::Manual).await.stop(Stop::Messages(1)).open().await;
    let mut consumer = consumer.unwrap();
    let stream = broker.consume().await;
    stream.attach(0, 1).await;
    let sending = tokio::spawn(async move {
        for offset in 0..100 {
            stream.frame(large_frame(offset)).await;
        }
    });
    assert_eq!(next(&mut consumer).await.offset, 0);
    assert!(soon("the end", consumer.next()).await.is_none());
    let all = tokio::time::timeout(Duration::from_millis(500), sending).await;
    assert!(all.is_err(), "it read beyond its stop condition");
    soon("the close", consumer.close()).await.unwrap();
}
