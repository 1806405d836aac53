//! The library's consumer, against a server that answers what the test says.

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
        builder, event, large_frame, messages, next, offsets, open, reading, status,
    },
    soon,
};

#[tokio::test]
async fn messages_come_one_by_one_and_what_is_dealt_with_is_committed() {
    let mut broker = ScriptedBroker::start().await;
    let mut consumer = open(&broker, Commit::Manual).await;
    let stream = broker.consume().await;
    assert_eq!(stream.request.commit_mode(), CommitMode::Manual);
    assert_eq!(stream.request.on_busy(), OnBusy::Unspecified);
    stream.attach(7, 3).await;
    stream.batch(7..9).await;
    let first = next(&mut consumer).await;
    assert_eq!((first.offset, &first.payload[..]), (7, &b"7"[..]));
    assert_eq!(next(&mut consumer).await.offset, 8);
    consumer.commit(&first);
    let commit = broker.stored_commit().await;
    assert_eq!((commit.epoch, commit.position), (3, 8));
    assert_eq!((commit.topic.as_str(), commit.consumer_id.as_str()), ("orders", "billing"));
    soon("the close", consumer.close()).await.unwrap();
    stream.hung_up().await;
}

#[tokio::test]
async fn a_stream_that_breaks_is_opened_again_and_nothing_comes_twice() {
    let mut broker = ScriptedBroker::start().await;
    let mut consumer = open(&broker, Commit::Manual).await;
    let mut position = 0;
    for (round, ended) in [
        Some(Status::unavailable("it drains")),
        Some(status(Code::Unavailable, "DATABASE_UNAVAILABLE")),
        Some(status(Code::Aborted, "LEASE_LOST")),
        Some(status(Code::Aborted, "LEASE_TAKEN_OVER")),
        Some(Status::cancelled("by something in between")),
        Some(Status::unknown("there was no status")),
        Some(Status::internal("a proxy's")),
        None,
    ]
    .into_iter()
    .enumerate()
    {
        let stream = broker.consume().await;
        // What was not committed comes again.
        stream.attach(0, 1 + round as i64).await;
        stream.batch(0..position + 3).await;
        assert_eq!(event(&mut consumer).await, Event::Attached { position: 0 });
        let expected: Vec<i64> = (position..position + 3).collect();
        assert_eq!(offsets(&mut consumer).await, expected, "in round {round}");
        position += 3;
        match ended {
            Some(status) => stream.end(status).await,
            None => drop(stream),
        }
        assert!(matches!(event(&mut consumer).await, Event::Broken(_)), "in round {round}");
    }
}

#[tokio::test]
async fn an_error_without_remedy_is_the_last_thing_there_is() {
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
async fn a_seek_brings_messages_again_and_voids_what_was_before() {
    let mut broker = ScriptedBroker::start().await;
    let mut consumer = open(&broker, Commit::Manual).await;
    let stream = broker.consume().await;
    stream.attach(10, 1).await;
    stream.batch(10..20).await;
    let old = messages(&mut consumer).await;
    let repositioned = proto::Repositioned { position: 5, head: 20, epoch: 2 };
    stream.frame(Frame::Repositioned(repositioned)).await;
    assert_eq!(event(&mut consumer).await, Event::Repositioned { position: 5 });
    stream.batch(5..8).await;
    let again = messages(&mut consumer).await;
    assert_eq!(again[0].offset, 5);
    // Dealing with what came before the seek moves nothing after it.
    consumer.commit(&old[9]);
    consumer.commit(&again[0]);
    let commit = broker.stored_commit().await;
    assert_eq!((commit.epoch, commit.position), (2, 6));
}

#[tokio::test]
async fn a_seek_while_the_consumer_was_away_is_followed() {
    let mut broker = ScriptedBroker::start().await;
    let mut consumer = open(&broker, Commit::Manual).await;
    let stream = broker.consume().await;
    stream.attach_after_seek(0, 5, 4).await;
    stream.batch(0..10).await;
    let old = messages(&mut consumer).await;
    assert_eq!(old.len(), 10);
    drop(stream);
    // Nobody sought: what it has had is passed over.
    let stream = broker.consume().await;
    stream.attach_after_seek(0, 6, 4).await;
    stream.batch(0..12).await;
    assert_eq!(offsets(&mut consumer).await, [10, 11]);
    drop(stream);
    // Somebody sought, to where it had begun: all comes again.
    let stream = broker.consume().await;
    stream.attach_after_seek(0, 8, 7).await;
    stream.batch(0..12).await;
    let again = messages(&mut consumer).await;
    assert_eq!(again.len(), 12);
    // What came before the seek commits nothing; what came after it does.
    consumer.commit(&old[9]);
    consumer.commit(&again[1]);
    assert_eq!(broker.stored_commit().await.position, 2);
    drop(stream);
    // A registration that was made anew begins to count anew.
    let stream = broker.consume().await;
    stream.attach(0, 1).await;
    stream.batch(0..3).await;
    assert_eq!(offsets(&mut consumer).await, [0, 1, 2]);
}

#[tokio::test]
async fn standbys_gaps_and_frames_that_are_not_known_are_told_or_passed_over() {
    let mut broker = ScriptedBroker::start().await;
    let mut consumer = open(&broker, Commit::Manual).await;
    let stream = broker.consume().await;
    stream.unknown().await;
    let standby = proto::Standby { holder: "another".to_owned() };
    stream.frame(Frame::Standby(standby)).await;
    assert_eq!(event(&mut consumer).await, Event::Standby { holder: "another".to_owned() });
    stream.attach(0, 1).await;
    stream.frame(Frame::Heartbeat(proto::Heartbeat::default())).await;
    stream.frame(Frame::Gap(proto::Gap { first_offset: 0, end_offset: 4 })).await;
    stream.batch(4..5).await;
    stream.frame(Frame::CaughtUp(proto::CaughtUp { head: 5 })).await;
    assert_eq!(event(&mut consumer).await, Event::Attached { position: 0 });
    assert_eq!(event(&mut consumer).await, Event::Gap { from: 0, to: 4 });
    assert_eq!(offsets(&mut consumer).await, [4]);
    assert_eq!(event(&mut consumer).await, Event::CaughtUp);
}

#[tokio::test]
async fn a_take_over_is_asked_for_once() {
    let mut broker = ScriptedBroker::start().await;
    let builder = builder(&broker, Commit::Manual).await.take_over().client_name("ann");
    let mut consumer = builder.open().await.unwrap();
    let stream = broker.consume().await;
    assert_eq!(stream.request.on_busy(), OnBusy::TakeOver);
    assert_eq!(stream.request.client_name, "ann");
    // A break before it had the lease changes nothing about that.
    drop(stream);
    let stream = broker.consume().await;
    assert_eq!(stream.request.on_busy(), OnBusy::TakeOver);
    stream.attach(0, 1).await;
    stream.end(status(Code::Aborted, "LEASE_TAKEN_OVER")).await;
    assert!(matches!(event(&mut consumer).await, Event::Broken(_)));
    assert_eq!(event(&mut consumer).await, Event::Attached { position: 0 });
    assert!(matches!(event(&mut consumer).await, Event::Broken(_)));
    let stream = broker.consume().await;
    assert_eq!(stream.request.on_busy(), OnBusy::Wait, "or two of them would never stop");
    stream.attach(0, 2).await;
    stream.batch(0..1).await;
    assert_eq!(next(&mut consumer).await.offset, 0);
}

#[tokio::test]
async fn it_ends_when_what_was_asked_for_has_been_had() {
    use proto::consume_request::Stop as ProtoStop;

    let mut broker = ScriptedBroker::start().await;
    for (stop, asked) in [
        (Stop::CaughtUp, ProtoStop::UntilCaughtUp(true)),
        (Stop::Offset(2), ProtoStop::UntilOffset(2)),
        (Stop::Messages(2), ProtoStop::MaxMessages(2)),
    ] {
        let consumer = builder(&broker, Commit::AtMostOnce).await.stop(stop).open().await;
        let consumer = consumer.unwrap();
        let stream = broker.consume().await;
        assert_eq!(stream.request.stop, Some(asked));
        stream.attach(0, 1).await;
        stream.batch(0..2).await;
        drop(stream);
        let had = soon("the end", consumer.map(Result::unwrap).collect::<Vec<_>>()).await;
        assert_eq!(had.len(), 2, "{stop:?}");
    }
    // Of what was asked for, the rest is asked for after a break: nothing is repeated here.
    let consumer = builder(&broker, Commit::AtMostOnce).await.stop(Stop::Messages(5)).open().await;
    let mut consumer = consumer.unwrap();
    let stream = broker.consume().await;
    stream.attach(0, 1).await;
    stream.batch(0..2).await;
    next(&mut consumer).await;
    stream.end(Status::unavailable("gone")).await;
    let stream = broker.consume().await;
    assert_eq!(stream.request.stop, Some(ProtoStop::MaxMessages(3)));
    let none = builder(&broker, Commit::Manual).await.stop(Stop::Messages(0)).open().await;
    assert!(soon("the end", none.unwrap().next()).await.is_none());
}

#[tokio::test]
async fn a_heartbeat_interval_that_no_broker_would_take_is_refused() {
    let broker = ScriptedBroker::start().await;
    for interval in [Duration::ZERO, Duration::from_millis(99), Duration::MAX] {
        let consumer = builder(&broker, Commit::Auto).await.heartbeat_interval(interval);
        let error = consumer.open().await.unwrap_err();
        assert_eq!(error.to_string(), "heartbeat_interval must be 100 ms to 60 s");
    }
}

#[tokio::test]
async fn a_silent_stream_is_opened_again() {
    let mut broker = ScriptedBroker::start().await;
    let beat = Duration::from_millis(100);
    let mut consumer =
        builder(&broker, Commit::Manual).await.heartbeat_interval(beat).open().await.unwrap();
    let stream = broker.consume().await;
    assert_eq!(stream.request.heartbeat_interval, Some(beat.try_into().unwrap()));
    stream.attach(0, 1).await;
    assert_eq!(event(&mut consumer).await, Event::Attached { position: 0 });
    let broken = event(&mut consumer).await;
    assert!(matches!(&broken, Event::Broken(Error::Lost { .. })), "{broken:?}");
    let next_stream = broker.consume().await;
    stream.hung_up().await;
    next_stream.attach(0, 2).await;
    // On a slow machine it may have been silent for too long by now, and come back once more.
    while event(&mut consumer).await != (Event::Attached { position: 0 }) {
        broker.consume().await.attach(0, 3).await;
    }
}

#[tokio::test]
async fn a_consumer_that_does_not_read_holds_its_own_broker_back() {
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
    // Reading on, all of them come.
    for offset in 1..100 {
        assert!(offset > 60 || !sending.is_finished(), "it sent all with {offset} read");
        assert_eq!(next(&mut consumer).await.offset, offset);
    }
    soon("all is sent", sending).await.unwrap();
}

#[tokio::test]
async fn registering_a_consumer_that_is_registered_changes_nothing() {
    let mut broker = ScriptedBroker::start().await;
    let consumer = builder(&broker, Commit::Manual).await.register_at(Start::Offset(7));
    let _consumer = consumer.open().await.unwrap();
    broker.consume().await;
}

#[tokio::test]
async fn a_consumer_that_has_all_it_asked_for_reads_no_more() {
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
    assert!(all.is_err(), "it reads what nobody asked for");
    soon("the close", consumer.close()).await.unwrap();
}
