//! Streams with a stop condition, and reads without a consumer.

use tonic::{Code, Status};
use trunkline::{
    client::{self, Commit},
    proto::{
        self, LogEdge, consume_request::Stop, consume_response::Event, read_messages_request::Start,
    },
};

use crate::support::{
    TestBroker, TestStream, Trunkline, assert_field, assert_refused, payload, soon, until,
};

async fn consume(broker: &TestBroker, stop: Stop) -> TestStream {
    let request = TestBroker::request("orders", "billing");
    broker.open(proto::ConsumeRequest { stop: Some(stop), ..request }).await
}

fn payloads(messages: &[proto::Message]) -> Vec<String> {
    messages.iter().map(payload).collect()
}

#[tokio::test]
async fn a_stream_until_caught_up_ends_after_the_last_message() {
    let broker = TestBroker::with_five_messages().await;
    let mut stream = consume(&broker, Stop::UntilCaughtUp(true)).await;
    let (messages, head) = stream.read_to_end().await;
    assert_eq!((payloads(&messages).join(""), head), ("abcde".to_owned(), 5));
    assert!(stream.read_until_it_ends().await.is_empty());
    assert_eq!(broker.position("orders", "billing").await, 5);
    // No message is left to read.
    let mut stream = consume(&broker, Stop::UntilCaughtUp(true)).await;
    assert!(stream.read_until_it_ends().await.is_empty());
}

#[tokio::test]
async fn a_stream_until_an_offset_ends_before_that_offset() {
    let broker = TestBroker::with_five_messages().await;
    let messages = consume(&broker, Stop::UntilOffset(4)).await.read_until_it_ends().await;
    assert_eq!(payloads(&messages), ["a", "b", "c", "d"]);
    assert_eq!(broker.position("orders", "billing").await, 4);
    // An offset before the position has been reached already.
    assert!(consume(&broker, Stop::UntilOffset(2)).await.read_until_it_ends().await.is_empty());
    // An offset beyond the head is waited for.
    let mut stream = consume(&broker, Stop::UntilOffset(7)).await;
    assert_eq!(stream.payloads(1).await, ["e"]);
    let Event::CaughtUp(_) = stream.next().await else { panic!("caught up expected") };
    broker.publish("orders", ["f", "g", "h"]).await;
    assert_eq!(payloads(&stream.read_until_it_ends().await), ["f", "g"]);
}

#[tokio::test]
async fn a_stream_with_a_maximum_of_messages_ends_after_them_and_frees_the_lease() {
    let broker = TestBroker::with_five_messages().await;
    let messages = consume(&broker, Stop::MaxMessages(3)).await.read_until_it_ends().await;
    assert_eq!(payloads(&messages), ["a", "b", "c"]);
    let mut stream = consume(&broker, Stop::MaxMessages(3)).await;
    // Shows that this stream has the lease before the next one asks for it.
    assert_eq!(stream.payloads(2).await, ["d", "e"]);
    let mut next = broker.consume("orders", "billing").await;
    broker.publish("orders", ["f", "g"]).await;
    assert_eq!(payloads(&stream.read_until_it_ends().await), ["f"]);
    assert_eq!(next.payloads(1).await, ["g"]);
}

#[tokio::test]
async fn an_invalid_stop_condition_is_refused() {
    let broker = TestBroker::with_five_messages().await;
    let refused = async |stop| -> Result<(), Status> {
        let request = TestBroker::request("orders", "billing");
        let request = proto::ConsumeRequest { stop: Some(stop), ..request };
        broker.consumers().consume(request).await.map(|_| ())
    };
    assert_field(refused(Stop::MaxMessages(0)).await, "max_messages", None);
    assert_field(refused(Stop::MaxMessages(-1)).await, "max_messages", None);
    assert_field(refused(Stop::UntilOffset(-1)).await, "until_offset", None);
    // `until_caught_up: false` is the same as no stop condition.
    let mut stream = consume(&broker, Stop::UntilCaughtUp(false)).await;
    stream.read_to_end().await;
    broker.publish("orders", ["f"]).await;
    assert_eq!(stream.payloads(1).await, ["f"]);
}

fn read(start: Option<Start>, max_messages: i32) -> proto::ReadMessagesRequest {
    proto::ReadMessagesRequest { topic: "orders".to_owned(), start, max_messages }
}

#[tokio::test]
async fn messages_are_read_in_pages_and_no_position_moves() {
    let broker = TestBroker::with_five_messages().await;
    let mut topics = broker.topics();
    let mut start = None;
    let mut all = Vec::new();
    for expected in [&["a", "b"][..], &["c", "d"], &["e"], &[]] {
        let page = topics.read_messages(read(start, 2)).await.unwrap().into_inner();
        assert_eq!(payloads(&page.messages), expected);
        assert_eq!((page.first_offset, page.head), (0, 5));
        all.extend(page.messages);
        assert_eq!(page.next_offset, all.len() as i64);
        start = Some(Start::Offset(page.next_offset));
    }
    assert!(all.iter().enumerate().all(|(number, message)| message.offset == number as i64));
    assert!(all.iter().all(|message| message.producer_id == "producer"));
    assert_eq!(broker.position("orders", "billing").await, 0);
    // Reading works while a stream holds the lease, also for messages that the stream has received.
    let mut stream = broker.consume("orders", "billing").await;
    stream.read_to_end().await;
    let second_batch = all[2].publish_time;
    let from = |start| {
        let mut topics = broker.topics();
        async move {
            payloads(&topics.read_messages(read(start, 0)).await.unwrap().into_inner().messages)
        }
    };
    assert_eq!(from(Some(Start::Time(second_batch.unwrap()))).await, ["c", "d", "e"]);
    assert_eq!(from(Some(Start::Edge(LogEdge::Earliest.into()))).await.len(), 5);
    assert!(from(Some(Start::Edge(LogEdge::Latest.into()))).await.is_empty());
    assert_eq!(from(Some(Start::Offset(1))).await, ["b", "c", "d", "e"]);
}

#[tokio::test]
async fn a_page_of_large_messages_fits_the_default_limit_of_clients() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let large = "x".repeat(1024 * 1024);
    for _ in 0..6 {
        broker.publish("orders", [large.as_str()]).await;
    }
    let mut topics = broker.topics().max_decoding_message_size(4 * 1024 * 1024);
    let mut count = 0;
    while count < 6 {
        let page = topics.read_messages(read(Some(Start::Offset(count)), 0)).await.unwrap();
        let page = page.into_inner();
        assert!(!page.messages.is_empty());
        count = page.next_offset;
    }
}

#[tokio::test]
async fn a_read_outside_the_log_or_of_no_topic_is_refused() {
    let broker = TestBroker::with_five_messages().await;
    broker.trim("orders", 2).await;
    let mut topics = broker.topics();
    for offset in [1, 6] {
        let refused = topics.read_messages(read(Some(Start::Offset(offset)), 1)).await;
        let metadata = assert_refused(refused, Code::OutOfRange, "OFFSET_OUT_OF_RANGE");
        assert_eq!((metadata["first_offset"].as_str(), metadata["head"].as_str()), ("2", "5"));
    }
    let earliest = topics.read_messages(read(None, 1)).await.unwrap().into_inner();
    assert_eq!((payloads(&earliest.messages).join(""), earliest.next_offset), ("c".to_owned(), 3));
    assert_field(topics.read_messages(read(None, -1)).await, "max_messages", None);
    let negative = topics.read_messages(read(Some(Start::Offset(-1)), 1)).await;
    assert_field(negative, "offset", None);
    let unknown = topics.read_messages(read(Some(Start::Edge(9)), 1)).await;
    assert_field(unknown, "edge", None);
    let bad_name = proto::ReadMessagesRequest { topic: "a b".to_owned(), ..read(None, 1) };
    assert_field(topics.read_messages(bad_name).await, "topic", None);
    let no_topic = proto::ReadMessagesRequest { topic: "nope".to_owned(), ..read(None, 1) };
    assert_refused(topics.read_messages(no_topic).await, Code::NotFound, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn the_command_stops_where_it_is_told_to_and_reads_without_a_consumer() {
    let broker = TestBroker::with_five_messages().await;
    let run = async |arguments: &[&str]| broker.run(arguments).await;
    let consume = ["consume", "orders", "--consumer", "billing"];
    let ended = run(&[&consume[..], &["--until-offset", "2"]].concat()).await;
    assert_eq!((ended.code(), ended.stdout.as_str()), (0, "a\nb\n"), "{ended:?}");
    let ended = run(&[&consume[..], &["-n", "1"]].concat()).await;
    assert_eq!((ended.code(), ended.stdout.as_str()), (0, "c\n"), "{ended:?}");
    let peeked = run(&["topic", "read", "orders", "--from", "1", "-n", "3"]).await;
    assert_eq!((peeked.code(), peeked.stdout.as_str()), (0, "b\nc\nd\n"), "{peeked:?}");
    assert_eq!(broker.position("orders", "billing").await, 3);
    let both = run(&[&consume[..], &["-n", "1", "--until-offset", "9"]].concat()).await;
    assert_eq!(both.code(), 2, "{both:?}");

    // A command that takes over ends the one that held the lease, which says so.
    let mut holder = Trunkline::spawn(
        &[&["--endpoint", &broker.endpoint], &consume[..], &["--client-name", "first"]].concat(),
    );
    for expected in ["d", "e"] {
        let line = soon("a line", holder.stdout.next_line()).await.unwrap();
        assert_eq!(line.as_deref(), Some(expected));
    }
    broker.publish("orders", ["f"]).await;
    let line = soon("a line", holder.stdout.next_line()).await.unwrap();
    assert_eq!(line.as_deref(), Some("f"));
    let taken =
        run(&[&consume[..], &["--take-over", "--client-name", "second", "--until-caught-up"]]
            .concat())
        .await;
    assert_eq!(taken.code(), 0, "{taken:?}");
    let error = soon("the error", holder.stderr.next_line()).await.unwrap().unwrap();
    assert!(
        error.contains("taken over by second") && error.contains("LEASE_TAKEN_OVER"),
        "{error}"
    );
    assert_eq!(holder.wait().await.code(), Some(3));
}

#[tokio::test]
async fn a_stream_until_caught_up_ends_although_its_last_messages_are_not_committed() {
    let broker = TestBroker::with_five_messages().await;
    for max_in_flight in [5, 6] {
        let mut stream = broker
            .open(proto::ConsumeRequest {
                commit_mode: proto::CommitMode::Manual.into(),
                max_in_flight,
                stop: Some(Stop::UntilCaughtUp(true)),
                ..TestBroker::request("orders", "billing")
            })
            .await;
        assert_eq!(stream.read_until_it_ends().await.len(), 5);
    }
    // With a smaller limit it ends once a commit made room for the rest.
    let mut stream = broker
        .open(proto::ConsumeRequest {
            commit_mode: proto::CommitMode::Manual.into(),
            max_in_flight: 3,
            stop: Some(Stop::UntilCaughtUp(true)),
            ..TestBroker::request("orders", "billing")
        })
        .await;
    assert_eq!(stream.messages(3).await.len(), 3);
    stream.commit(2).await.unwrap();
    assert_eq!(payloads(&stream.read_until_it_ends().await), ["d", "e"]);
}

#[tokio::test]
async fn messages_that_a_seek_discarded_do_not_count_towards_the_maximum() {
    const COUNT: usize = 150;
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    // Much more than fits between broker and client, so that frames wait in the broker.
    let payload = "x".repeat(256 * 1024);
    for _ in 0..10 {
        broker.publish("orders", [payload.as_str(); 16]).await;
    }
    let mut stream = consume(&broker, Stop::MaxMessages(COUNT as i64)).await;
    let before = stream.next_messages().await.len();
    let target = proto::seek_request::Target::Offset(0);
    broker.seek("orders", "billing", target).await.unwrap();
    assert_eq!(before + stream.read_until_it_ends().await.len(), COUNT);
}

#[tokio::test]
async fn a_consumer_with_a_maximum_of_messages_gets_them_all_although_its_stream_breaks() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["x"; 40]).await;
    let consumer = broker.client.consumer("orders", "billing", Commit::Manual);
    let mut consumer = consumer.stop(client::Stop::Messages(100)).open().await.unwrap();
    let mut offsets = Vec::new();
    while let Some(event) = soon("an event", consumer.next_event()).await {
        let client::Event::Messages(messages) = event.unwrap() else { continue };
        offsets.extend(messages.iter().map(|message| message.offset));
        if offsets.len() == 40 {
            // The other 30 will come again.
            consumer.commit(&messages[9]);
            until("the commit arrives", async || broker.position("orders", "billing").await == 10)
                .await;
            broker.end_sessions("trunkline lease").await;
            broker.publish("orders", ["y"; 100]).await;
        }
    }
    assert_eq!(offsets, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_lease_is_free_once_a_stream_has_ended() {
    let broker = TestBroker::with_five_messages().await;
    for _ in 0..30 {
        let mut stream = broker
            .open(proto::ConsumeRequest {
                on_busy: proto::OnBusy::Fail.into(),
                stop: Some(Stop::UntilCaughtUp(true)),
                ..TestBroker::request("orders", "billing")
            })
            .await;
        // If the lease were not free, the stream would end with an error.
        stream.read_until_it_ends().await;
    }
}
