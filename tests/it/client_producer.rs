//! The client library's producer, against a scripted broker.

use std::{sync::atomic::Ordering, time::Duration};

use tonic::{Code, Status};
use trunkline::{
    client::{Client, Error, Producer, ProducerBuilder},
    proto::{self, NewMessage},
};

use crate::support::{ScriptedBroker, soon};

async fn builder(broker: &ScriptedBroker) -> ProducerBuilder {
    Client::connect(&broker.endpoint).await.unwrap().producer("orders", "shop")
}

async fn open(broker: &ScriptedBroker) -> Producer {
    builder(broker).await.open().await.unwrap()
}

/// A producer that sends each message in its own request.
async fn open_with_single_messages(broker: &ScriptedBroker) -> Producer {
    builder(broker).await.max_batch_messages(1).open().await.unwrap()
}

#[track_caller]
fn refusal(error: &Error) -> (Code, &str) {
    match error {
        Error::Refused(refusal) => (refusal.code, &refusal.reason),
        other => panic!("a refusal expected, not {other:?}"),
    }
}

#[tokio::test]
async fn a_message_gets_the_next_sequence_and_its_offset() {
    let mut broker = ScriptedBroker::start().await;
    *broker.state.producer.lock().unwrap() =
        Some(proto::Producer { epoch: 4, next_sequence: 7, ..Default::default() });
    let producer = open(&broker).await;
    assert_eq!(producer.first_sequence(), 7);
    let publishing = tokio::spawn(async move {
        let message = NewMessage::new("payload").with_key("key").with_header("name", "value");
        producer.publish(message).await
    });
    let mut stream = broker.publish_stream().await;
    let request = stream.request().await;
    assert_eq!((request.topic.as_str(), request.producer_id.as_str()), ("orders", "shop"));
    assert_eq!(
        (request.sequence, request.producer_epoch),
        (Some(7), 5),
        "opening a producer fences"
    );
    assert_eq!(request.messages[0].headers["name"], "value");
    stream.receipt(40, false).await;
    assert_eq!(soon("the offset", publishing).await.unwrap(), Ok(40));
}

#[tokio::test]
async fn messages_are_batched_while_a_request_is_in_flight() {
    let mut broker = ScriptedBroker::start().await;
    let producer = builder(&broker).await.linger(Duration::from_secs(60)).open().await.unwrap();
    let first = producer.send("0").await.unwrap();
    let mut stream = broker.publish_stream().await;
    assert_eq!(stream.payloads().await, (0, vec!["0".to_owned()]));
    // They linger while the first request is in flight, and share a request once it is answered.
    let mut sent = Vec::new();
    for number in 1..=5 {
        sent.push(producer.send(number.to_string()).await.unwrap());
    }
    assert_eq!(first.try_offset(), None);
    stream.receipt(100, false).await;
    assert_eq!(soon("the first offset", first.offset()).await, Ok(100));
    let (sequence, payloads) = stream.payloads().await;
    assert_eq!((sequence, payloads.join("").as_str()), (1, "12345"));
    stream.receipt(200, false).await;
    for (index, sent) in sent.iter().enumerate() {
        assert_eq!(soon("an offset", sent.offset()).await, Ok(200 + index as i64));
    }
}

#[tokio::test]
async fn a_full_batch_does_not_linger() {
    let mut broker = ScriptedBroker::start().await;
    let producer = builder(&broker).await.linger(Duration::from_secs(60)).max_batch_messages(2);
    let producer = producer.max_batch_bytes(10).open().await.unwrap();
    producer.send("first").await.unwrap();
    let mut stream = broker.publish_stream().await;
    assert_eq!(stream.payloads().await.1, ["first"]);
    // A batch is full with two messages, with 10 bytes, or with one message larger than that.
    for payload in ["a", "b", "c", "123456789", "12", "more than ten bytes", "d", "e"] {
        producer.send(payload).await.unwrap();
    }
    for expected in [&["a", "b"][..], &["c", "123456789"], &["12"], &["more than ten bytes"]] {
        assert_eq!(stream.payloads().await.1, expected);
    }
    // The last messages wait for a flush.
    let flushing = tokio::spawn(async move { producer.flush().await });
    assert_eq!(stream.payloads().await.1, ["d", "e"]);
    for offset in 0..6 {
        stream.receipt(offset, false).await;
    }
    assert_eq!(soon("the flush", flushing).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_refusal_ends_the_producer_and_everything_that_waits() {
    for code in [
        Code::NotFound,
        Code::PermissionDenied,
        Code::Unauthenticated,
        Code::FailedPrecondition,
        Code::OutOfRange,
        Code::InvalidArgument,
        Code::ResourceExhausted,
        Code::Internal,
    ] {
        let mut broker = ScriptedBroker::start().await;
        let producer = open_with_single_messages(&broker).await;
        let first = producer.send("first").await.unwrap();
        let second = producer.send("second").await.unwrap();
        let mut stream = broker.publish_stream().await;
        stream.request().await;
        stream.refuse(code, "SOME_REASON").await;
        for sent in [first, second] {
            let error = soon("the error", sent.offset()).await.unwrap_err();
            assert_eq!(refusal(&error), (code, "SOME_REASON"));
            assert_eq!(error.to_string(), "refused as SOME_REASON (SOME_REASON)");
            assert_eq!((error.code(), error.reason()), (Some(code), Some("SOME_REASON")));
        }
        let later = producer.publish("later").await.unwrap_err();
        assert_eq!(refusal(&later), (code, "SOME_REASON"), "later messages fail the same way");
        // Each flush reports it.
        assert_eq!(refusal(&producer.flush().await.unwrap_err()), (code, "SOME_REASON"));
        assert_eq!(refusal(&producer.close().await.unwrap_err()), (code, "SOME_REASON"));
    }
}

#[tokio::test]
async fn unanswered_requests_are_resent_with_their_original_sequences() {
    let mut broker = ScriptedBroker::start().await;
    let producer = open_with_single_messages(&broker).await;
    let mut sent = Vec::new();
    for payload in ["a", "b", "c"] {
        sent.push(producer.send(payload).await.unwrap());
    }
    let mut stream = broker.publish_stream().await;
    for _ in 0..3 {
        stream.request().await;
    }
    stream.receipt(0, false).await;
    assert_eq!(soon("an offset", sent[0].offset()).await, Ok(0));
    // The broker disconnects without a status, or refuses for a reason that may pass.
    drop(stream);
    let mut stream = broker.publish_stream().await;
    for refused in ["DATABASE_UNAVAILABLE", "OUTCOME_UNKNOWN", "TOPIC_BUSY", "DRAINING"] {
        assert_eq!(stream.payloads().await, (1, vec!["b".to_owned()]), "{refused}");
        assert_eq!(stream.payloads().await, (2, vec!["c".to_owned()]), "{refused}");
        stream.refuse(Code::Unavailable, refused).await;
        stream = broker.publish_stream().await;
    }
    stream.refuse_for(Duration::from_millis(10), Code::ResourceExhausted, "RATE_EXCEEDED").await;
    let stream = broker.publish_stream().await;
    stream.end(Status::unavailable("the broker drains")).await;
    let mut stream = broker.publish_stream().await;
    // What was stored before the break is answered as a duplicate.
    stream.receipt(1, true).await;
    stream.receipt(2, false).await;
    assert_eq!(stream.payloads().await, (1, vec!["b".to_owned()]));
    for (offset, sent) in sent.iter().enumerate() {
        assert_eq!(soon("an offset", sent.offset()).await, Ok(offset as i64));
    }
    let later = producer.send("d").await.unwrap();
    assert_eq!(stream.payloads().await, (2, vec!["c".to_owned()]));
    assert_eq!(stream.payloads().await, (3, vec!["d".to_owned()]));
    stream.receipt(3, false).await;
    assert_eq!(soon("an offset", later.offset()).await, Ok(3));
}

#[tokio::test]
async fn a_producer_gives_up_an_unreachable_broker_and_the_outcome_is_unknown() {
    let mut broker = ScriptedBroker::start().await;
    let retry_for = Duration::from_millis(300);
    let producer = builder(&broker).await.retry_for(retry_for).open().await.unwrap();
    let sent = producer.send("a").await.unwrap();
    broker.publish_stream().await.request().await;
    drop(broker);
    let lost = soon("the error", sent.offset()).await.unwrap_err();
    assert!(matches!(lost, Error::Lost { .. }), "{lost:?}");
    assert_eq!(producer.publish("b").await, Err(lost.clone()));
    assert_eq!(producer.close().await, Err(lost));
}

#[tokio::test]
async fn at_most_eight_requests_are_in_flight_and_the_buffer_is_bounded() {
    const BUFFER: usize = 2 * 1024 * 1024;
    const MESSAGE: usize = 64 * 1024 - 100;
    let mut broker = ScriptedBroker::start().await;
    let producer = builder(&broker).await.max_batch_messages(1).max_buffered_bytes(BUFFER);
    let producer = producer.open().await.unwrap();
    let payload = vec![b'x'; MESSAGE];
    for _ in 0..BUFFER / (MESSAGE + 100) {
        producer.send(payload.clone()).await.unwrap();
    }
    // The buffer is full: the next message waits for an answer.
    let mut waiting = Box::pin(producer.send(payload.clone()));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    let mut stream = broker.publish_stream().await;
    for sequence in 0..8 {
        assert_eq!(stream.request().await.sequence, Some(sequence));
    }
    assert!(futures_util::poll!(&mut waiting).is_pending());
    let ninth = stream.request();
    let ninth = tokio::time::timeout(Duration::from_millis(100), ninth).await;
    assert!(ninth.is_err(), "a ninth request was sent before the first was answered");
    stream.receipt(0, false).await;
    soon("room in the buffer", waiting).await.unwrap();
    assert_eq!(
        stream.request().await.sequence,
        Some(8),
        "an answer makes room for one more request"
    );
}

#[tokio::test]
async fn an_unknown_answer_ends_the_producer() {
    let mut broker = ScriptedBroker::start().await;
    let producer = open(&broker).await;
    let sent = producer.send("a").await.unwrap();
    let mut stream = broker.publish_stream().await;
    stream.request().await;
    stream.answer(None).await;
    assert_eq!(refusal(&sent.offset().await.unwrap_err()), (Code::Internal, ""));
}

#[tokio::test]
async fn a_stream_with_a_permanent_error_ends_the_producer_with_its_status() {
    let mut broker = ScriptedBroker::start().await;
    let producer = open(&broker).await;
    let sent = producer.send("a").await.unwrap();
    let mut stream = broker.publish_stream().await;
    stream.request().await;
    stream.end(Status::unimplemented("what is a publish?")).await;
    let error = soon("the error", sent.offset()).await.unwrap_err();
    assert_eq!(error.to_string(), "what is a publish? (Unimplemented)");
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_locally_and_delays_no_other() {
    let mut broker = ScriptedBroker::start().await;
    let producer = open(&broker).await;
    let large = producer.publish(vec![0; 1024 * 1024 + 1]).await.unwrap_err();
    assert_eq!(large.to_string(), "the message of 1048577 bytes is over the limit of 1048576");
    let good = producer.send("good").await.unwrap();
    let mut stream = broker.publish_stream().await;
    assert_eq!(stream.payloads().await, (0, vec!["good".to_owned()]));
    stream.receipt(0, false).await;
    assert_eq!(soon("an offset", good.offset()).await, Ok(0));
    assert_eq!(producer.close().await, Ok(()));
}

#[tokio::test]
async fn options_out_of_range_are_refused() {
    let broker = ScriptedBroker::start().await;
    let error = async |builder: ProducerBuilder| builder.open().await.unwrap_err().to_string();
    let new = builder(&broker).await;
    for messages in [0, 10_001] {
        let error = error(new.clone().max_batch_messages(messages)).await;
        assert_eq!(error, "max_batch_messages must be 1 to 10,000");
    }
    for bytes in [0, 8 * 1024 * 1024 + 1] {
        let error = error(new.clone().max_batch_bytes(bytes)).await;
        assert_eq!(error, "max_batch_bytes must be 1 B to 8 MiB");
    }
    let error = error(new.clone().max_buffered_bytes(1024)).await;
    assert_eq!(error, "max_buffered_bytes must be 2 MiB to 1 GiB");
}

#[tokio::test]
async fn a_producer_is_registered_only_on_request() {
    let broker = ScriptedBroker::start().await;
    *broker.state.producer.lock().unwrap() = None;
    let error = builder(&broker).await.open().await.unwrap_err();
    assert_eq!(error.code(), Some(Code::NotFound));
    assert_eq!(broker.state.registered.load(Ordering::Acquire), 0);
    builder(&broker).await.register().open().await.unwrap();
    assert_eq!(broker.state.registered.load(Ordering::Acquire), 1);
}

#[tokio::test]
async fn a_message_that_was_never_sent_is_given_up_as_well() {
    let broker = ScriptedBroker::start().await;
    // Longer than the longest pause between two attempts.
    let retry_for = Duration::from_secs(6);
    let producer = builder(&broker).await.retry_for(retry_for).open().await.unwrap();
    drop(broker);
    let lost = soon("the error", producer.publish("a")).await.unwrap_err();
    assert!(matches!(lost, Error::Lost { .. }), "{lost:?}");
}

#[tokio::test]
async fn a_producer_gives_up_a_broker_that_keeps_refusing_temporarily() {
    let mut broker = ScriptedBroker::start().await;
    let retry_for = Duration::from_secs(6);
    let producer = builder(&broker).await.retry_for(retry_for).open().await.unwrap();
    let sent = producer.send("a").await.unwrap();
    let refusing = async {
        loop {
            let mut stream = broker.publish_stream().await;
            stream.request().await;
            stream.refuse(Code::Unavailable, "DATABASE_UNAVAILABLE").await;
        }
    };
    let lost = tokio::select! {
        lost = soon("the error", sent.offset()) => lost.unwrap_err(),
        () = refusing => unreachable!(),
    };
    assert_eq!(lost.to_string(), "refused as DATABASE_UNAVAILABLE");
}

#[tokio::test]
async fn waiting_for_a_message_fails_when_its_producer_is_dropped() {
    let mut broker = ScriptedBroker::start().await;
    let producer = builder(&broker).await.linger(Duration::from_secs(60)).open().await.unwrap();
    let sent = producer.send("sent").await.unwrap();
    broker.publish_stream().await.request().await;
    let waiting = producer.send("waiting").await.unwrap();
    drop(producer);
    let unknown = soon("the error", sent.offset()).await.unwrap_err();
    assert!(matches!(unknown, Error::Lost { .. }), "{unknown:?}");
    assert_eq!(soon("the error", waiting.offset()).await, Err(Error::Closed));
}

#[tokio::test]
async fn idle_time_does_not_count_towards_the_retry_time() {
    let mut broker = ScriptedBroker::start().await;
    let retry_for = Duration::from_millis(500);
    let producer = builder(&broker).await.retry_for(retry_for).open().await.unwrap();
    let first = producer.send("a").await.unwrap();
    let mut stream = broker.publish_stream().await;
    stream.request().await;
    stream.receipt(0, false).await;
    assert_eq!(soon("an offset", first.offset()).await, Ok(0));
    // Idle for longer than the producer retries.
    let idle = tokio::time::timeout(2 * retry_for, stream.request()).await;
    assert!(idle.is_err(), "there is nothing to send");
    stream.end(Status::unavailable("the broker drains")).await;
    let second = producer.send("b").await.unwrap();
    let mut stream = broker.publish_stream().await;
    assert_eq!(stream.payloads().await, (1, vec!["b".to_owned()]));
    stream.receipt(1, false).await;
    assert_eq!(soon("an offset", second.offset()).await, Ok(1));
}
