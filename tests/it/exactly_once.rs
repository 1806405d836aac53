//! Publishes with sequences: a repeated one is stored once, and a gap is refused.

use std::sync::Arc;

use tokio::task::JoinSet;
use tonic::Code;
use trunkline::proto::{self, publish_stream_response::Result as Answer};

use crate::support::{
    PublishStream, TestBroker, TestDatabase, assert_field, assert_refused,
    sequenced::{duplicate_of, publish, request, sequenced, stored_at, stored_payloads, streamed},
};

#[tokio::test]
async fn a_repeated_publish_is_stored_once_and_answered_with_its_first_offset() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    assert_eq!(publish(&broker, sequenced(0, &["a", "b"])).await.unwrap(), stored_at(0));
    assert_eq!(publish(&broker, request(&["from elsewhere"])).await.unwrap(), stored_at(2));
    assert_eq!(publish(&broker, sequenced(2, &["c"])).await.unwrap(), stored_at(3));
    // The last publish, and the one before it.
    assert_eq!(publish(&broker, sequenced(2, &["c"])).await.unwrap(), duplicate_of(3));
    assert_eq!(publish(&broker, sequenced(0, &["a", "b"])).await.unwrap(), duplicate_of(0));
    assert_eq!(publish(&broker, sequenced(3, &["d"])).await.unwrap(), stored_at(4));
    assert_eq!(stored_payloads(&broker).await, ["a", "b", "from elsewhere", "c", "d"]);

    let list = proto::ListProducersRequest { topic: "orders".to_owned(), ..Default::default() };
    let listed = broker.producers().list_producers(list).await.unwrap().into_inner();
    assert_eq!(listed.producers[0].last_sequence, Some(3));
}

#[tokio::test]
async fn a_sequence_after_a_gap_or_from_long_ago_is_refused_with_the_expected_one() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let refused = publish(&broker, sequenced(1, &["b"])).await;
    let metadata = assert_refused(refused, Code::OutOfRange, "SEQUENCE_GAP");
    assert_eq!((metadata["sequence"].as_str(), metadata["expected"].as_str()), ("1", "0"));

    for sequence in 0..10 {
        publish(&broker, sequenced(sequence, &["x"])).await.unwrap();
    }
    let refused = publish(&broker, sequenced(12, &["x"])).await;
    assert_eq!(assert_refused(refused, Code::OutOfRange, "SEQUENCE_GAP")["expected"], "10");
    // The last eight publishes are remembered.
    assert_eq!(publish(&broker, sequenced(2, &["x"])).await.unwrap(), duplicate_of(2));
    let refused = publish(&broker, sequenced(1, &["x"])).await;
    let metadata = assert_refused(refused, Code::OutOfRange, "SEQUENCE_PASSED");
    assert_eq!((metadata["sequence"].as_str(), metadata["expected"].as_str()), ("1", "10"));
    assert!(!metadata.contains_key("stored_sequences"), "{metadata:?}");
    // A repetition with an additional message: some of it is stored, and some is new.
    let refused = publish(&broker, sequenced(9, &["x", "y"])).await;
    assert_refused(refused, Code::OutOfRange, "SEQUENCE_PASSED");
    assert_eq!(broker.stored().await, 10);
}

#[tokio::test]
async fn a_repetition_that_spans_requests_is_answered_or_told_what_is_stored() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    assert_eq!(publish(&broker, sequenced(0, &["a", "b"])).await.unwrap(), stored_at(0));
    assert_eq!(publish(&broker, sequenced(2, &["c"])).await.unwrap(), stored_at(2));
    assert_eq!(publish(&broker, request(&["from elsewhere"])).await.unwrap(), stored_at(3));
    assert_eq!(publish(&broker, sequenced(3, &["d", "e"])).await.unwrap(), stored_at(4));
    // At consecutive offsets, though stored one after the other.
    assert_eq!(publish(&broker, sequenced(0, &["a", "b", "c"])).await.unwrap(), duplicate_of(0));
    assert_eq!(publish(&broker, sequenced(1, &["b", "c"])).await.unwrap(), duplicate_of(1));

    let passed = async |sequence, payloads: &[&str]| {
        let refused = publish(&broker, sequenced(sequence, payloads)).await;
        let text = refused.as_ref().unwrap_err().message().to_owned();
        let metadata = assert_refused(refused, Code::OutOfRange, "SEQUENCE_PASSED");
        assert_eq!(metadata["expected"], "5");
        (metadata["stored_sequences"].clone(), metadata["stored_offsets"].clone(), text)
    };
    // There is no one offset behind which all of it is.
    let (sequences, offsets, text) = passed(1, &["b", "c", "d"]).await;
    assert_eq!((sequences.as_str(), offsets.as_str()), ("1-2,3-3", "1-2,4-4"));
    for told in [
        "sequences 1 to 2 are stored at offsets 1 to 2",
        "sequence 3 is stored at offset 4",
        "go on with sequence 5",
    ] {
        assert!(text.contains(told), "{text}");
    }
    // Half of it is new.
    let (sequences, offsets, _) = passed(4, &["e", "f"]).await;
    assert_eq!((sequences.as_str(), offsets.as_str()), ("4-4", "5-5"));
    assert_eq!(stored_payloads(&broker).await, ["a", "b", "c", "from elsewhere", "d", "e"]);

    // Eight stored runs are remembered: of what began before them, the rest is told.
    for sequence in 5..12 {
        publish(&broker, sequenced(sequence, &["x"])).await.unwrap();
    }
    let refused = publish(&broker, sequenced(2, &["c", "d"])).await;
    let text = refused.as_ref().unwrap_err().message().to_owned();
    let metadata = assert_refused(refused, Code::OutOfRange, "SEQUENCE_PASSED");
    assert_eq!(
        (metadata["stored_sequences"].as_str(), metadata["expected"].as_str()),
        ("3-3", "12")
    );
    for told in ["where sequence 2 is stored is no longer known", "3 is stored at offset 4"] {
        assert!(text.contains(told), "{text}");
    }
    // In a stream as well, where the next request can go on behind what is stored.
    let mut stream = PublishStream::open(&broker).await;
    stream.send(streamed(sequenced(11, &["x", "y"]))).await;
    let Answer::Refusal(refusal) = stream.answer().await else { panic!("a refusal") };
    assert_eq!(refusal.metadata["stored_offsets"], "12-12");
    let next = refusal.metadata["expected"].parse().unwrap();
    stream.send(streamed(sequenced(next, &["y"]))).await;
    assert_eq!(stream.first_offset().await, 13);
}

/// Only the numbers are compared: the proto says so.
#[tokio::test]
async fn other_messages_under_stored_sequences_are_taken_for_a_repetition() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    assert_eq!(publish(&broker, sequenced(0, &["a", "b"])).await.unwrap(), stored_at(0));
    assert_eq!(publish(&broker, sequenced(0, &["other"])).await.unwrap(), duplicate_of(0));
    assert_eq!(stored_payloads(&broker).await, ["a", "b"]);
}

#[tokio::test]
async fn sequences_outlive_brokers_and_are_shared_among_them() {
    let database = Arc::new(TestDatabase::create().await);
    let broker = TestBroker::start_on(database.clone()).await;
    let other = broker.start_another().await;
    broker.topic("orders").await;
    assert_eq!(publish(&broker, sequenced(0, &["a"])).await.unwrap(), stored_at(0));
    assert_eq!(publish(&other, sequenced(0, &["a"])).await.unwrap(), duplicate_of(0));
    assert_eq!(publish(&other, sequenced(1, &["b"])).await.unwrap(), stored_at(1));
    broker.stop().await;
    other.stop().await;
    let broker = TestBroker::start_on(database).await;
    assert_eq!(publish(&broker, sequenced(1, &["b"])).await.unwrap(), duplicate_of(1));
    assert_eq!(publish(&broker, sequenced(2, &["c"])).await.unwrap(), stored_at(2));
}

#[tokio::test]
async fn a_publish_is_stored_once_when_copies_arrive_at_the_same_time() {
    let broker = Arc::new(TestBroker::start().await);
    let other = Arc::new(broker.start_another().await);
    broker.topic("orders").await;
    for round in 0..25 {
        let mut racing = JoinSet::new();
        for racer in 0..8 {
            let broker = if racer % 2 == 0 { broker.clone() } else { other.clone() };
            racing.spawn(async move { publish(&broker, sequenced(round, &["x"])).await.unwrap() });
        }
        let answers = racing.join_all().await;
        assert!(answers.iter().all(|receipt| receipt.first_offset == round), "{answers:?}");
        assert_eq!(answers.iter().filter(|receipt| !receipt.duplicate).count(), 1, "{answers:?}");
    }
    assert_eq!(broker.stored().await, 25);
}

#[tokio::test]
async fn requests_in_flight_are_checked_one_by_one_and_a_refused_one_leaves_a_gap() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.producer("orders", "another").await;
    let mut stream = PublishStream::open(&broker).await;
    let another = |sequence| proto::PublishRequest {
        producer_id: "another".to_owned(),
        ..sequenced(sequence, &["y"])
    };
    let requests = [
        sequenced(0, &["a", "b"]),
        another(0),
        sequenced(2, &["c"]),
        sequenced(2, &["c"]),
        sequenced(0, &["a", "b"]),
        sequenced(4, &["e"]),
        sequenced(3, &["d"]),
        another(1),
        sequenced(4, &["e"]),
    ];
    for request in requests {
        stream.send(streamed(request)).await;
    }
    let mut answers = Vec::new();
    for _ in 0..9 {
        answers.push(match stream.answer().await {
            Answer::Receipt(receipt) => Some((receipt.first_offset, receipt.duplicate)),
            Answer::Refusal(refusal) => {
                assert_eq!((refusal.code, refusal.reason.as_str()), (11, "SEQUENCE_GAP"));
                assert_eq!(refusal.metadata["expected"], "3");
                None
            }
        });
    }
    assert_eq!(
        answers,
        [
            Some((0, false)),
            Some((2, false)),
            Some((3, false)),
            Some((3, true)),
            Some((0, true)),
            None,
            Some((4, false)),
            Some((5, false)),
            Some((6, false))
        ]
    );
    assert_eq!(stored_payloads(&broker).await, ["a", "b", "y", "c", "d", "y", "e"]);
}

#[tokio::test]
async fn many_requests_of_one_producer_in_one_flush_are_recognised_when_repeated() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let send_all = async || {
        let mut stream = PublishStream::open(&broker).await;
        for sequence in 0..200 {
            stream.send(streamed(sequenced(sequence, &["x"]))).await;
        }
        let mut answers = Vec::new();
        for _ in 0..200 {
            match stream.answer().await {
                Answer::Receipt(receipt) => answers.push((receipt.first_offset, receipt.duplicate)),
                Answer::Refusal(refusal) => assert_eq!(refusal.reason, "SEQUENCE_PASSED"),
            }
        }
        answers
    };
    let answers = send_all().await;
    assert_eq!(answers, (0..200).map(|offset| (offset, false)).collect::<Vec<_>>());
    let answers = send_all().await;
    assert!(answers.iter().all(|(_, duplicate)| *duplicate));
    assert_eq!(answers.last(), Some(&(199, true)));
    assert_eq!(broker.stored().await, 200);
}

#[tokio::test]
async fn numbers_out_of_range_are_refused() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    assert_field(publish(&broker, sequenced(-1, &["x"])).await, "sequence", None);
    let last = i64::MAX as u64 - 10_000;
    assert_field(publish(&broker, sequenced(i64::MAX, &["x"])).await, "sequence", Some(last));
    let bad = proto::PublishRequest { expected_head: Some(-1), ..request(&["x"]) };
    assert_field(publish(&broker, bad).await, "expected_head", None);
    let bad = proto::PublishRequest { producer_epoch: -1, ..request(&["x"]) };
    assert_field(publish(&broker, bad).await, "producer_epoch", None);
    assert_eq!(broker.stored().await, 0);
}

#[tokio::test]
async fn requests_of_many_producers_in_one_flush_are_recognised_when_repeated() {
    const PRODUCERS: usize = 40;
    const REQUESTS: usize = 10;
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    for number in 0..PRODUCERS {
        broker.producer("orders", &format!("p-{number}")).await;
    }
    // The first round is stored, the second is recognised, except for requests too far back.
    let mut first_offsets = std::collections::HashMap::new();
    for duplicate in [false, true] {
        let mut stream = PublishStream::open(&broker).await;
        let requests = stream.requests.clone();
        let oldest = if duplicate { REQUESTS - 8 } else { 0 };
        let rounds = move || {
            (oldest..REQUESTS)
                .flat_map(|number| (0..PRODUCERS).map(move |producer| (number, producer)))
        };
        let sending = tokio::spawn(async move {
            for (number, producer) in rounds() {
                let request = proto::PublishRequest {
                    producer_id: format!("p-{producer}"),
                    ..sequenced(number as i64 * 2, &["x", "y"])
                };
                requests.send(streamed(request)).await.unwrap();
            }
        });
        for (number, producer) in rounds() {
            let Answer::Receipt(receipt) = stream.answer().await else {
                panic!("a receipt expected")
            };
            let request = format!("request {number} of p-{producer}");
            assert_eq!(receipt.duplicate, duplicate, "{request}");
            let first = *first_offsets.entry((number, producer)).or_insert(receipt.first_offset);
            assert_eq!(receipt.first_offset, first, "{request}");
        }
        sending.await.unwrap();
    }
    assert_eq!(stored_payloads(&broker).await.len(), PRODUCERS * REQUESTS * 2);
}
