//! Consumers whose next messages were removed.

use tonic::Code;
use trunkline::proto::{self, CommitMode, consume_response::Event};

use crate::support::{TestBroker, assert_refused, until};

#[tokio::test]
async fn registering_and_seeking_wait_for_a_concurrent_trim_and_respect_it() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    broker.consumer("orders", "seeking").await;
    // As retention does it, but slower.
    let mut sql = broker.sql().await;
    let trimming = sql.transaction().await.unwrap();
    let lock = "select from trunkline.topic_head for update";
    trimming.query(lock, &[]).await.unwrap();
    let (topic, consumer_id) = ("orders".to_owned(), "new".to_owned());
    let register = proto::RegisterConsumerRequest { topic, consumer_id, ..Default::default() };
    let mut consumers = broker.consumers();
    let registering = tokio::spawn(async move { consumers.register_consumer(register).await });
    let (topic, consumer_id) = ("orders".to_owned(), "seeking".to_owned());
    let target = Some(proto::seek_request::Target::Offset(1));
    let seek = proto::SeekRequest { topic, consumer_id, target };
    let mut consumers = broker.consumers();
    let seeking = tokio::spawn(async move { consumers.seek(seek).await });
    until("both calls wait", async || broker.waiting_for_locks().await == 2).await;
    trimming.batch_execute("update trunkline.topic_head set first_offset = 2").await.unwrap();
    trimming.commit().await.unwrap();
    let registered = registering.await.unwrap().unwrap().into_inner().consumer.unwrap();
    assert_eq!(registered.position, 2);
    assert_refused(seeking.await.unwrap(), Code::OutOfRange, "OFFSET_OUT_OF_RANGE");
    assert_eq!(broker.position("orders", "seeking").await, 0);
}

#[tokio::test]
async fn a_consumer_below_the_log_start_is_told_the_gap_and_continues_after_it() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    for id in ["auto", "manual", "puller"] {
        broker.consumer("orders", id).await;
    }
    broker.publish("orders", ["a", "b", "c", "d"]).await;
    broker.trim("orders", 3).await;
    assert_eq!(broker.get_consumer("orders", "auto").await.lag, 1);

    let mut auto = broker.consume("orders", "auto").await;
    assert_eq!(auto.attached().await.position, 0);
    assert_eq!(auto.gap().await, (0, 3));
    assert_eq!(auto.payloads(1).await, ["d"]);
    assert_eq!(broker.position("orders", "auto").await, 4);

    let mut manual = broker.consume_manually("orders", "manual").await;
    manual.attached().await;
    assert_eq!(manual.gap().await, (0, 3));
    assert_eq!(manual.payloads(1).await, ["d"]);
    assert_eq!(broker.position("orders", "manual").await, 0);
    // Removed messages may be committed like delivered ones.
    manual.commit(3).await.unwrap();
    manual.commit(4).await.unwrap();

    let pulled = broker.pull("orders", "puller", 10).await.unwrap();
    assert_eq!(pulled.gap, Some(proto::Gap { first_offset: 0, end_offset: 3 }));
    assert_eq!((pulled.position, pulled.messages.len()), (4, 1));
}

#[tokio::test]
async fn a_gap_up_to_the_head_moves_the_consumer_to_the_head() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    for id in ["auto", "puller"] {
        broker.consumer("orders", id).await;
    }
    broker.publish("orders", ["a", "b"]).await;
    broker.trim("orders", 2).await;
    let mut auto = broker.consume("orders", "auto").await;
    auto.attached().await;
    assert_eq!(auto.gap().await, (0, 2));
    let Event::CaughtUp(caught_up) = auto.next().await else { panic!("caught up expected") };
    assert_eq!(caught_up.head, 2);
    assert_eq!(broker.position("orders", "auto").await, 2);
    broker.publish("orders", ["c"]).await;
    assert_eq!(auto.payloads(1).await, ["c"]);
    let pulled = broker.pull("orders", "puller", 10).await.unwrap();
    assert_eq!(
        (pulled.gap, pulled.position),
        (Some(proto::Gap { first_offset: 0, end_offset: 2 }), 3)
    );
}

#[tokio::test]
async fn a_stream_that_retention_overtakes_gets_a_gap_on_any_broker() {
    let broker = TestBroker::start().await;
    let other = broker.start_another().await;
    broker.topic("orders").await;
    broker.consumer("orders", "slow").await;
    let mut stream = other
        .open(proto::ConsumeRequest {
            commit_mode: CommitMode::Manual.into(),
            max_in_flight: 1,
            ..TestBroker::request("orders", "slow")
        })
        .await;
    stream.attached().await;
    for payload in ["a", "b", "c", "d", "e"] {
        broker.publish("orders", [payload]).await;
    }
    assert_eq!(stream.payloads(1).await, ["a"]);
    broker.trim("orders", 3).await;
    // The other broker learns it from its poll.
    until("the other broker knows the log start", async || {
        let request =
            proto::ReadMessagesRequest { topic: "orders".to_owned(), ..Default::default() };
        let page = other.topics().read_messages(request).await.unwrap().into_inner();
        page.first_offset == 3
    })
    .await;
    stream.commit(1).await.unwrap();
    // The stream may have read ahead before the trim; what follows is in order, without repeats.
    let mut next = 1;
    while next < 5 {
        match stream.next().await {
            Event::Batch(batch) => {
                assert_eq!(batch.messages[0].offset, next);
                next += batch.messages.len() as i64;
                stream.commit(next).await.unwrap();
            }
            Event::Gap(gap) => {
                assert_eq!((gap.first_offset, gap.end_offset), (next, 3));
                next = gap.end_offset;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn the_command_reports_a_gap_and_continues() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    broker.trim("orders", 2).await;
    let consume = ["consume", "orders", "--consumer", "billing", "--until-caught-up"];
    let read = broker.run(&consume).await;
    assert_eq!((read.code(), read.stdout.as_str()), (0, "c\n"), "{read:?}");
    assert!(read.stderr.contains("offsets 0 to 1 are no longer kept"), "{read:?}");
    assert_eq!(broker.position("orders", "billing").await, 3);
}
