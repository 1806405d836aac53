//! Messages that are not delivered any more: listed, delivered again, or forgotten.

use tonic::Code;
use trunkline::proto;

use crate::support::{
    TestBroker, assert_field, info,
    worker::{TestWorker, at_once, payloads, publish, reject, with_jobs},
};

/// A broker with a subscription of which so many messages are parked.
async fn with_parked(count: usize) -> (TestBroker, TestWorker) {
    let (broker, mut worker) = with_jobs(count, at_once()).await;
    let work = worker.receive_all(count).await;
    for part in work.chunks(1_000) {
        assert_eq!(worker.settle(part, reject("no order")).await, part.len() as i32);
    }
    (broker, worker)
}

async fn list(worker: &mut TestWorker, page_size: i32) -> Vec<proto::ParkedMessage> {
    let (open, mut all, mut page_token) = (worker.open(), Vec::new(), String::new());
    loop {
        let request = proto::ListParkedRequest {
            topic: open.topic.clone(),
            subscription_id: open.subscription_id.clone(),
            page_size,
            page_token,
        };
        let page = worker.service().list_parked(request).await.unwrap().into_inner();
        assert!(page.messages.len() <= page_size as usize);
        all.extend(page.messages);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

fn offsets(messages: &[proto::ParkedMessage]) -> Vec<i64> {
    messages.iter().map(|message| message.offset).collect()
}

fn replay(
    worker: &TestWorker,
    offsets: &[i64],
    ranges: &[(i64, i64)],
) -> proto::ReplayParkedRequest {
    let open = worker.open();
    let range = |(first_offset, end_offset)| proto::OffsetRange { first_offset, end_offset };
    proto::ReplayParkedRequest {
        topic: open.topic,
        subscription_id: open.subscription_id,
        offsets: offsets.to_vec(),
        ranges: ranges.iter().copied().map(range).collect(),
    }
}

fn discard(worker: &TestWorker, offsets: &[i64]) -> proto::DiscardParkedRequest {
    let open = worker.open();
    proto::DiscardParkedRequest {
        topic: open.topic,
        subscription_id: open.subscription_id,
        offsets: offsets.to_vec(),
        ranges: Vec::new(),
    }
}

#[tokio::test]
async fn parked_messages_are_listed_with_their_reasons() {
    let (_broker, mut worker) = with_parked(7).await;
    let listed = list(&mut worker, 3).await;
    assert_eq!(offsets(&listed), [0, 1, 2, 3, 4, 5, 6]);
    assert!(listed.iter().all(|it| it.attempts == 1 && it.reason == "no order"));
    assert!(listed[0].park_time.is_some());
}

#[tokio::test]
async fn a_parked_message_is_delivered_again_as_if_for_the_first_time() {
    let (broker, mut worker) = with_parked(6).await;
    let request = replay(&worker, &[1, 40], &[(3, 5)]);
    let replayed = worker.service().replay_parked(request.clone()).await.unwrap().into_inner();
    assert_eq!((replayed.replayed, replayed.has_more), (3, false));
    let again = worker.service().replay_parked(request).await.unwrap().into_inner();
    assert_eq!(again.replayed, 0);
    assert_eq!(offsets(&list(&mut worker, 10).await), [0, 2, 5]);
    // Also if the broker ends before.
    let database = broker.database.clone();
    broker.stop().await;
    let broker = TestBroker::start_on(database).await;
    let mut worker = TestWorker::at(&broker.client, "jobs", "pool");
    let work = worker.receive(10).await;
    assert_eq!(payloads(&work), ["m1", "m3", "m4"]);
    assert!(work.iter().all(|work| work.attempt == 1));
    assert_eq!(worker.acknowledge(&work).await, 3);
    let described = worker.describe().await;
    assert_eq!((described.retried_messages, described.parked_messages), (0, 3));
}

#[tokio::test]
async fn a_message_that_is_replayed_after_a_seek_back_is_delivered_once() {
    let (broker, mut worker) = with_parked(3).await;
    broker.seek("jobs", "pool", proto::seek_request::Target::Offset(0)).await.unwrap();
    let request = replay(&worker, &[2], &[]);
    assert_eq!(worker.service().replay_parked(request).await.unwrap().into_inner().replayed, 1);
    let work = worker.receive_all(3).await;
    let mut offsets: Vec<i64> = work.iter().map(|work| work.offset).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, [0, 1, 2]);
    assert!(work.iter().all(|work| work.attempt == 1));
    assert!(worker.receive_now(10).await.is_empty());
    assert_eq!(worker.acknowledge(&work).await, 3);
    assert_eq!(worker.describe().await.floor, 3);
}

#[tokio::test]
async fn a_parked_message_can_be_forgotten() {
    let (_broker, mut worker) = with_parked(4).await;
    let request = discard(&worker, &[2]);
    let discarded = worker.service().discard_parked(request).await.unwrap().into_inner();
    assert_eq!((discarded.discarded, discarded.has_more), (1, false));
    assert_eq!(offsets(&list(&mut worker, 10).await), [0, 1, 3]);
    let request = discard(&worker, &[]);
    let discarded = worker.service().discard_parked(request).await.unwrap().into_inner();
    assert_eq!(discarded.discarded, 3);
    assert_eq!(worker.describe().await.parked_messages, 0);
    assert!(worker.receive_now(10).await.is_empty());
}

#[tokio::test]
async fn many_parked_messages_take_several_calls() {
    let (broker, mut worker) = with_parked(10_000).await;
    publish(&broker, 1).await;
    let work = worker.receive(1).await;
    assert_eq!(worker.settle(&work, reject("too many")).await, 1);
    let request = replay(&worker, &[], &[]);
    let replayed = worker.service().replay_parked(request.clone()).await.unwrap().into_inner();
    assert_eq!((replayed.replayed, replayed.has_more), (10_000, true));
    let request = discard(&worker, &[]);
    let discarded = worker.service().discard_parked(request).await.unwrap().into_inner();
    assert_eq!((discarded.discarded, discarded.has_more), (1, false));
    let work = worker.receive_all(10_000).await;
    assert!(work.iter().all(|work| work.attempt == 1));
}

#[tokio::test]
async fn parked_messages_that_retention_removes_are_forgotten() {
    let (broker, mut worker) = with_parked(4).await;
    assert_eq!(broker.trim("jobs", 3).await, 3);
    assert_eq!(offsets(&list(&mut worker, 10).await), [3]);
    assert_eq!(worker.describe().await.parked_messages, 1);
    let request = replay(&worker, &[], &[]);
    let replayed = worker.service().replay_parked(request).await.unwrap().into_inner();
    assert_eq!(replayed.replayed, 1);
    let sql = broker.sql().await;
    let count = "select count(*) from trunkline.subscription_message where parked_at is not null";
    crate::support::until("their rows are deleted", async || {
        sql.query_one(count, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
}

#[tokio::test]
async fn a_call_for_parked_messages_says_what_is_wrong_with_it() {
    let (broker, mut worker) = with_parked(1).await;
    broker.consumer("jobs", "billing").await;
    let request = replay(&worker, &[-1], &[]);
    assert_field(worker.service().replay_parked(request).await, "offsets", None);
    let request = replay(&worker, &[], &[(2, 2)]);
    assert_field(worker.service().replay_parked(request).await, "ranges.end_offset", None);
    let request = discard(&worker, &[3; 10_001]);
    assert_field(worker.service().discard_parked(request).await, "offsets", Some(10_000));
    let list = |id: &str, page_token: &str| proto::ListParkedRequest {
        topic: "jobs".to_owned(),
        subscription_id: id.to_owned(),
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    assert_field(worker.service().list_parked(list("pool", "?")).await, "page_token", None);
    let refusal = worker.service().list_parked(list("billing", "")).await.unwrap_err();
    info(&refusal, Code::FailedPrecondition, "NOT_A_SUBSCRIPTION");
    let refusal = worker.service().list_parked(list("nobody", "")).await.unwrap_err();
    info(&refusal, Code::NotFound, "CONSUMER_NOT_FOUND");
}
