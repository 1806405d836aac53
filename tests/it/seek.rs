//! Seeks: the only way to move a position back, also under open streams.

use std::time::SystemTime;

use tonic::Code;
use trunkline::proto::{self, LogEdge, consume_response::Event, seek_request::Target};

use crate::support::{TestBroker, Trunkline, assert_field, assert_refused, info, soon};

#[tokio::test]
async fn a_seek_goes_to_either_end_to_an_offset_or_to_a_time() {
    let broker = TestBroker::with_five_messages().await;
    let sql = broker.sql().await;
    let second_batch: SystemTime =
        sql.query_one("select max(published_at) from trunkline.batch", &[]).await.unwrap().get(0);
    let hour = std::time::Duration::from_secs(3_600);
    for (target, expected) in [
        (Target::Edge(LogEdge::Latest.into()), 5),
        (Target::Edge(LogEdge::Earliest.into()), 0),
        (Target::Offset(3), 3),
        (Target::Offset(5), 5),
        (Target::Offset(0), 0),
        (Target::Time(second_batch.into()), 2),
        (Target::Time((second_batch + hour).into()), 5),
        (Target::Time((second_batch - hour).into()), 0),
    ] {
        assert_eq!(broker.seek("orders", "billing", target).await.unwrap(), expected);
        assert_eq!(broker.position("orders", "billing").await, expected);
    }
    broker.seek("orders", "billing", Target::Offset(4)).await.unwrap();
    assert_eq!(broker.consume("orders", "billing").await.payloads(1).await, ["e"]);
}

#[tokio::test]
async fn a_seek_moves_an_open_stream_at_once_on_any_broker() {
    let broker = TestBroker::with_five_messages().await;
    let other = broker.start_another().await;
    let mut stream = broker.consume("orders", "billing").await;
    stream.read_to_end().await;
    for (at, offset) in [(&broker, 1), (&other, 3), (&broker, 5), (&other, 0)] {
        let epoch = stream.epoch;
        at.seek("orders", "billing", Target::Offset(offset)).await.unwrap();
        let repositioned = stream.repositioned().await;
        assert_eq!((repositioned.position, repositioned.head), (offset, 5));
        assert!(repositioned.epoch > epoch);
        let (messages, _) = stream.read_to_end().await;
        let offsets: Vec<i64> = messages.iter().map(|message| message.offset).collect();
        assert_eq!(offsets, (offset..5).collect::<Vec<_>>());
    }
    assert_eq!(broker.position("orders", "billing").await, 5);
}

#[tokio::test]
async fn a_commit_from_before_a_seek_is_refused() {
    let broker = TestBroker::with_five_messages().await;
    let mut stream = broker.consume_manually("orders", "billing").await;
    stream.messages(5).await;
    let before = stream.epoch;
    broker.seek("orders", "billing", Target::Offset(1)).await.unwrap();
    let late = stream.commit_with(before, 4).await;
    assert_refused(late, Code::Aborted, "LEASE_LOST");
    assert_eq!(broker.position("orders", "billing").await, 1);
    stream.repositioned().await;
    assert_eq!(stream.payloads(4).await, ["b", "c", "d", "e"]);
    let beyond = stream.commit(6).await;
    assert_refused(beyond, Code::OutOfRange, "COMMIT_BEYOND");
    stream.commit(3).await.unwrap();
    assert_eq!(broker.position("orders", "billing").await, 3);
}

#[tokio::test]
async fn no_frame_from_before_a_seek_comes_after_it() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    // Much more than fits between broker and client, so that frames wait in the broker.
    let payload = "x".repeat(256 * 1024);
    for _ in 0..10 {
        broker.publish("orders", [payload.as_str(); 16]).await;
    }
    let mut stream = broker.consume_manually("orders", "billing").await;
    let mut next = 0;
    for target in [100, 20, 150] {
        let first = stream.next_messages().await;
        assert_eq!(first[0].offset, next);
        next = first.last().unwrap().offset + 1;
        broker.seek("orders", "billing", Target::Offset(target)).await.unwrap();
        // Frames in flight still arrive, in order; then the new position, and nothing else.
        loop {
            match stream.next().await {
                Event::Batch(batch) => {
                    assert_eq!(batch.messages[0].offset, next);
                    next = batch.messages.last().unwrap().offset + 1;
                }
                Event::Repositioned(repositioned) => {
                    assert_eq!(repositioned.position, target);
                    next = target;
                    break;
                }
                Event::CaughtUp(_) | Event::Heartbeat(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_standby_starts_at_the_position_of_a_seek() {
    let broker = TestBroker::with_five_messages().await;
    let mut holder = broker.consume("orders", "billing").await;
    holder.read_to_end().await;
    let mut standby = broker.consume("orders", "billing").await;
    standby.standby().await;
    broker.seek("orders", "billing", Target::Offset(2)).await.unwrap();
    holder.repositioned().await;
    holder.read_to_end().await;
    broker.seek("orders", "billing", Target::Offset(4)).await.unwrap();
    drop(holder);
    let attached = standby.attaches().await;
    // The holder may have delivered the last message before it disconnected.
    assert!([4, 5].contains(&attached.position), "{attached:?}");
}

#[tokio::test]
async fn a_seek_outside_the_log_or_of_no_consumer_is_refused() {
    let broker = TestBroker::with_five_messages().await;
    broker.trim("orders", 2).await;
    for offset in [1, 6] {
        let refused = broker.seek("orders", "billing", Target::Offset(offset)).await;
        let metadata = assert_refused(refused, Code::OutOfRange, "OFFSET_OUT_OF_RANGE");
        let named = ["offset", "first_offset", "head"].map(|name| metadata[name].as_str());
        assert_eq!(named, [offset.to_string().as_str(), "2", "5"]);
    }
    assert_eq!(broker.position("orders", "billing").await, 0);
    let seek = async |topic: &str, id: &str, target| broker.seek(topic, id, target).await;
    assert_field(seek("", "billing", Target::Offset(2)).await, "topic", None);
    assert_field(seek("orders", "", Target::Offset(2)).await, "consumer_id", None);
    assert_field(seek("orders", "billing", Target::Offset(-1)).await, "offset", None);
    assert_field(seek("orders", "billing", Target::Edge(7)).await, "edge", None);
    let no_time = Target::Time(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
    assert_field(seek("orders", "billing", no_time).await, "time", None);
    let nobody = seek("orders", "nobody", Target::Offset(2)).await;
    assert_refused(nobody, Code::NotFound, "CONSUMER_NOT_FOUND");
    let no_topic = seek("nope", "billing", Target::Offset(2)).await;
    assert_refused(no_topic, Code::NotFound, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn a_seek_without_a_target_goes_to_the_oldest_message() {
    let broker = TestBroker::with_five_messages().await;
    broker.seek("orders", "billing", Target::Offset(5)).await.unwrap();
    broker.trim("orders", 1).await;
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let request = proto::SeekRequest { topic, consumer_id, target: None };
    assert_eq!(broker.consumers().seek(request).await.unwrap().into_inner().position, 1);
}

#[tokio::test]
async fn a_stream_ends_when_its_consumer_is_unregistered() {
    let broker = TestBroker::with_five_messages().await;
    let other = broker.start_another().await;
    let mut stream = broker.consume("orders", "billing").await;
    stream.read_to_end().await;
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let request = proto::UnregisterConsumerRequest { topic, consumer_id };
    other.consumers().unregister_consumer(request).await.unwrap();
    info(&stream.ended().await, Code::NotFound, "CONSUMER_NOT_FOUND");
}

#[tokio::test]
async fn the_command_seeks_while_another_command_consumes() {
    let broker = TestBroker::with_five_messages().await;
    let on = ["--endpoint", &broker.endpoint];
    let mut reader =
        Trunkline::spawn(&[&on[..], &["consume", "orders", "--consumer", "billing"]].concat());
    for expected in ["a", "b", "c", "d", "e"] {
        let line = soon("a line", reader.stdout.next_line()).await.unwrap();
        assert_eq!(line.as_deref(), Some(expected));
    }
    let seek = ["consumer", "seek", "--topic", "orders", "billing", "--to", "3"];
    let sought = broker.run(&seek).await;
    assert_eq!(sought.code(), 0, "{sought:?}");
    assert!(sought.stdout.contains("offset 3"), "{sought:?}");
    let line = soon("a line of standard error", reader.stderr.next_line()).await.unwrap().unwrap();
    assert!(line.contains("continuing at offset 3"), "{line}");
    for expected in ["d", "e"] {
        let line = soon("a line", reader.stdout.next_line()).await.unwrap();
        assert_eq!(line.as_deref(), Some(expected));
    }
    let seek = ["consumer", "seek", "--topic", "orders", "billing", "--to", "9"];
    let refused = broker.run(&seek).await;
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(refused.stderr.contains("OFFSET_OUT_OF_RANGE"), "{refused:?}");
}

#[tokio::test]
async fn an_attached_frame_reports_the_last_seek() {
    let broker = TestBroker::with_five_messages().await;
    let mut first = broker.consume_manually("orders", "billing").await;
    let attached = first.attached().await;
    assert_eq!((attached.epoch, attached.seek_epoch), (1, 0));
    drop(first);
    let again = broker.consume_manually("orders", "billing").await.attaches().await;
    assert_eq!(again.seek_epoch, 0, "there was no seek");
    broker.seek("orders", "billing", Target::Offset(0)).await.unwrap();
    let sought = broker.consume_manually("orders", "billing").await.attaches().await;
    assert_eq!(sought.seek_epoch, again.epoch + 1, "the seek is later than the last stream");
    assert!(sought.epoch > sought.seek_epoch);
}
