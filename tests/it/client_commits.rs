//! Commits of the client library's consumer, against a scripted broker.

use std::time::Duration;

use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use trunkline::{
    client::{Commit, Error, Stop},
    proto::{self, CommitMode, consume_response::Event as Frame},
};

use crate::support::{
    ScriptedBroker,
    library_consumer::{builder, messages, next, open, reading, status},
    soon,
};

#[tokio::test]
async fn commits_are_merged_while_one_is_in_flight() {
    let (mut broker, mut consumer, _stream) = reading(Commit::Manual, 0..100).await;
    let message = next(&mut consumer).await;
    consumer.commit(&message);
    let in_flight = broker.commit().await;
    assert_eq!(in_flight.request.position, 1);
    for _ in 1..100 {
        let message = next(&mut consumer).await;
        consumer.commit(&message);
    }
    assert!(!broker.has_commit(), "one at a time");
    in_flight.answer(Ok(()));
    assert_eq!(broker.stored_commit().await.position, 100, "the newest position covers all");
    soon("the close", consumer.close()).await.unwrap();
    assert!(!broker.has_commit());
}

#[tokio::test]
async fn auto_mode_commits_a_message_when_the_next_one_is_requested() {
    let mut broker = ScriptedBroker::start().await;
    let mut consumer = open(&broker, Commit::Auto).await;
    let stream = broker.consume().await;
    assert_eq!(stream.request.commit_mode(), CommitMode::Manual, "the library commits");
    stream.attach(0, 1).await;
    stream.messages(0..3).await;
    next(&mut consumer).await;
    assert_eq!(next(&mut consumer).await.offset, 1);
    assert_eq!(broker.stored_commit().await.position, 1);
    next(&mut consumer).await;
    assert_eq!(broker.stored_commit().await.position, 2);
    // Closing the consumer commits the last message.
    let closing = tokio::spawn(consumer.close());
    assert_eq!(broker.stored_commit().await.position, 3);
    soon("the close", closing).await.unwrap().unwrap();
}

#[tokio::test]
async fn at_most_once_leaves_commits_to_the_broker() {
    let mut broker = ScriptedBroker::start().await;
    let mut consumer = open(&broker, Commit::AtMostOnce).await;
    let stream = broker.consume().await;
    assert_eq!(stream.request.commit_mode(), CommitMode::Auto);
    stream.attach(0, 1).await;
    stream.messages(0..2).await;
    let message = next(&mut consumer).await;
    consumer.commit(&message);
    drop(stream);
    // What was in flight is lost; the consumer goes on at the broker's position.
    let stream = broker.consume().await;
    stream.attach(5, 2).await;
    stream.messages(5..6).await;
    assert_eq!(next(&mut consumer).await.offset, 1);
    assert_eq!(next(&mut consumer).await.offset, 5);
    soon("the close", consumer.close()).await.unwrap();
    assert!(!broker.has_commit());
}

#[tokio::test]
async fn a_commit_that_fails_with_the_lease_is_retried_in_the_next_epoch() {
    let (mut broker, mut consumer, stream) = reading(Commit::Manual, 0..4).await;
    let last = messages(&mut consumer).await.pop().unwrap();
    consumer.commit(&last);
    let commit = broker.commit().await;
    assert_eq!((commit.request.epoch, commit.request.position), (1, 4));
    commit.answer(Err(status(Code::Aborted, "LEASE_LOST")));
    stream.end(status(Code::Aborted, "LEASE_LOST")).await;
    let stream = broker.consume().await;
    stream.attach(0, 2).await;
    // No commit exceeds what this stream has delivered.
    stream.messages(0..2).await;
    let commit = broker.stored_commit().await;
    assert_eq!((commit.epoch, commit.position), (2, 2));
    stream.messages(2..4).await;
    assert_eq!(broker.stored_commit().await.position, 4);
    soon("the close", consumer.close()).await.unwrap();
}

#[tokio::test]
async fn a_commit_is_retried_when_the_broker_is_unavailable() {
    let (mut broker, mut consumer, _stream) = reading(Commit::Manual, 0..1).await;
    let message = next(&mut consumer).await;
    consumer.commit(&message);
    broker.commit().await.answer(Err(Status::unavailable("the database is away")));
    assert_eq!(broker.stored_commit().await.position, 1);
    soon("the close", consumer.close()).await.unwrap();
}

#[tokio::test]
async fn a_commit_behind_the_stored_position_counts_as_done() {
    let (mut broker, mut consumer, _stream) = reading(Commit::Manual, 0..1).await;
    let message = next(&mut consumer).await;
    consumer.commit(&message);
    broker.commit().await.answer(Err(status(Code::OutOfRange, "COMMIT_BEHIND")));
    soon("the close", consumer.close()).await.unwrap();
}

#[tokio::test]
async fn closing_reports_a_commit_that_was_refused() {
    let (mut broker, mut consumer, _stream) = reading(Commit::Manual, 0..1).await;
    let message = next(&mut consumer).await;
    consumer.commit(&message);
    let closing = tokio::spawn(consumer.close());
    let refused = broker.commit().await;
    // Closing waits for the answer; a refusal while it closes is final.
    assert!(!closing.is_finished());
    refused.answer(Err(status(Code::NotFound, "CONSUMER_NOT_FOUND")));
    // The first commit may have been sent before the consumer was closed.
    let refusing = async {
        loop {
            broker.commit().await.answer(Err(status(Code::NotFound, "CONSUMER_NOT_FOUND")));
        }
    };
    let closed = tokio::select! {
        closed = closing => closed.unwrap(),
        () = refusing => unreachable!(),
    };
    assert_eq!(closed.unwrap_err().reason(), Some("CONSUMER_NOT_FOUND"));
}

#[tokio::test]
async fn the_lease_is_kept_until_the_last_messages_are_committed() {
    let mut broker = ScriptedBroker::start().await;
    for stop in [Stop::CaughtUp, Stop::Offset(3), Stop::Messages(3)] {
        let consumer = builder(&broker, Commit::Manual).await.stop(stop).open().await;
        let mut consumer = consumer.unwrap();
        let stream = broker.consume().await;
        assert_eq!(stream.request.stop, None, "the broker would end the stream too early");
        stream.attach(0, 1).await;
        stream.messages(0..if stop == Stop::CaughtUp { 3 } else { 5 }).await;
        stream.frame(Frame::CaughtUp(proto::CaughtUp { head: 5 })).await;
        let mut last = None;
        while let Some(message) = soon("the end", consumer.next()).await {
            last = Some(message.unwrap());
        }
        let last = last.unwrap();
        assert_eq!(last.offset, 2, "{stop:?}");
        // The stream breaks before the commit, so the consumer opens another one for it.
        stream.end(Status::unavailable("gone")).await;
        consumer.commit(&last);
        broker.commit().await.answer(Err(status(Code::Aborted, "LEASE_LOST")));
        let stream = broker.consume().await;
        stream.attach(0, 2).await;
        stream.messages(0..5).await;
        let closing = tokio::spawn(consumer.close());
        assert_eq!(broker.stored_commit().await.position, 3);
        soon("the close", closing).await.unwrap().unwrap();
        stream.client_disconnects().await;
    }
}

#[tokio::test]
async fn closing_without_a_stream_does_not_wait_for_one() {
    let (mut broker, mut consumer, stream) = reading(Commit::Manual, 0..1).await;
    let message = next(&mut consumer).await;
    consumer.commit(&message);
    let commit = broker.commit().await;
    stream.end(status(Code::NotFound, "CONSUMER_NOT_FOUND")).await;
    assert!(soon("the error", consumer.next()).await.unwrap().is_err());
    commit.answer(Err(status(Code::Aborted, "LEASE_LOST")));
    let closed = tokio::time::timeout(Duration::from_secs(2), consumer.close()).await;
    assert!(matches!(closed.unwrap(), Err(Error::Lost { .. })));
}
