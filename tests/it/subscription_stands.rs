//! How subscriptions stand: what is left to do, who works on it, and what was lost. And seeks, which begin that
//! anew.

use std::time::SystemTime;

use tonic::{Code, Status};
use trunkline::proto::{self, seek_subscription_request::Target};

use crate::support::{
    TestBroker, assert_field, info, until,
    worker::{TestWorker, Work, at_once, payloads, publish, reject, retry, with_jobs},
};

async fn seek(worker: &mut TestWorker, target: Target) -> Result<i64, Status> {
    let open = worker.open();
    let request = proto::SeekSubscriptionRequest {
        topic: open.topic,
        subscription_id: open.subscription_id,
        target: Some(target),
    };
    Ok(worker.service().seek_subscription(request).await?.into_inner().floor)
}

/// What is left, what workers have, and how many workers there are.
fn stands(subscription: &proto::Subscription) -> (i64, i64, i32) {
    let proto::Subscription { unacknowledged_messages, outstanding_messages, workers, .. } =
        subscription;
    (unacknowledged_messages.unwrap(), outstanding_messages.unwrap(), workers.unwrap())
}

fn offsets(work: &[Work]) -> Vec<i64> {
    work.iter().map(|work| work.offset).collect()
}

#[tokio::test]
async fn what_is_not_acknowledged_is_counted_wherever_it_is() {
    let (_broker, mut worker) = with_jobs(10, at_once()).await;
    let described = worker.describe().await;
    assert_eq!(stands(&described), (10, 0, 0));
    assert_eq!(described.outstanding_bytes, Some(0));
    let work = worker.receive_all(6).await;
    let described = worker.describe().await;
    assert_eq!(described.unacknowledged_messages, Some(10));
    assert_eq!(described.outstanding_messages, Some(6));
    assert!(described.outstanding_bytes.unwrap() >= 12);
    // Settled out of order, so that the floor stays.
    assert_eq!(worker.acknowledge(&work[3..5]).await, 2);
    assert_eq!(worker.settle(&work[1..2], reject("no job")).await, 1);
    assert_eq!(worker.settle(&work[2..3], retry(Some(60_000))).await, 1);
    let described = worker.describe().await;
    assert_eq!((described.floor, described.unacknowledged_messages), (0, Some(7)));
    assert_eq!((described.retried_messages, described.parked_messages), (1, 1));
    assert_eq!((described.outstanding_messages, described.lost_messages), (Some(2), Some(0)));
    assert_eq!(described.stalled_by(), proto::stalled::Limit::Unspecified);
}

#[tokio::test]
async fn the_oldest_message_is_the_one_that_waits_the_longest() {
    let (broker, mut worker) = with_jobs(1, at_once()).await;
    let work = worker.receive(1).await;
    assert_eq!(worker.settle(&work, retry(Some(60_000))).await, 1);
    publish(&broker, 2).await;
    let oldest = worker.describe().await.oldest_unacknowledged_time.unwrap();
    let statement = "select min(published_at) from trunkline.batch";
    let stored: SystemTime = broker.sql().await.query_one(statement, &[]).await.unwrap().get(0);
    assert_eq!(SystemTime::try_from(oldest).unwrap(), stored);
    let work = worker.receive_all(2).await;
    assert_eq!(worker.acknowledge(&work).await, 2);
    let oldest = worker.describe().await.oldest_unacknowledged_time.unwrap();
    assert_eq!(SystemTime::try_from(oldest).unwrap(), stored);
    assert_eq!(seek(&mut worker, Target::Edge(proto::LogEdge::Latest.into())).await.unwrap(), 3);
    let described = worker.describe().await;
    assert_eq!(described.unacknowledged_messages, Some(0));
    assert!(described.oldest_unacknowledged_time.is_none());
}

#[tokio::test]
async fn workers_are_streams_and_calls_that_wait_or_have_messages() {
    let (_broker, mut worker) = with_jobs(2, at_once()).await;
    let mut stream = worker.stream().await;
    let work = stream.works(2).await;
    let waiting = worker.stream().await;
    until("both streams count", async || stands(&worker.describe().await) == (2, 2, 2)).await;
    assert_eq!(stream.acknowledge(&work).await, 2);
    until("both streams wait", async || stands(&worker.describe().await) == (0, 0, 2)).await;
    stream.close().await;
    waiting.close().await;
    until("both streams have gone", async || stands(&worker.describe().await) == (0, 0, 0)).await;
}

#[tokio::test]
async fn a_description_begins_no_owner_and_asks_the_one_there_is() {
    let (broker, mut worker) = with_jobs(3, at_once()).await;
    let other = broker.start_another().await;
    let mut elsewhere = TestWorker::at(&other.client, "jobs", "pool");
    assert_eq!(stands(&elsewhere.describe().await), (3, 0, 0));
    let sql = broker.sql().await;
    let held = "select count(*) from trunkline.consumer_topic where holder <> ''";
    assert_eq!(sql.query_one(held, &[]).await.unwrap().get::<_, i64>(0), 0);
    let work = worker.receive_all(2).await;
    assert_eq!(worker.acknowledge(&work[1..]).await, 1);
    let described = elsewhere.describe().await;
    assert_eq!(
        (described.unacknowledged_messages, described.outstanding_messages),
        (Some(2), Some(1))
    );
    assert_eq!((described.workers, described.outstanding_bytes > Some(0)), (Some(1), true));
    let request =
        proto::ListSubscriptionsRequest { topic: "jobs".to_owned(), ..Default::default() };
    let listed = worker.service().list_subscriptions(request).await.unwrap().into_inner();
    assert_eq!(listed.subscriptions[0].unacknowledged_messages, None);
}

#[tokio::test]
async fn messages_that_are_removed_before_they_are_acknowledged_are_counted_once() {
    let (broker, mut worker) = with_jobs(10, at_once()).await;
    let work = worker.receive_all(5).await;
    assert_eq!(worker.acknowledge(&work[1..2]).await, 1);
    assert_eq!(worker.settle(&work[2..3], retry(Some(60_000))).await, 1);
    assert_eq!(worker.settle(&work[3..4], reject("no job")).await, 1);
    // Lost are 0 and 4, which the worker has, 2, which waits, and 5 and 6.
    assert_eq!(broker.trim("jobs", 7).await, 7);
    let described = worker.describe().await;
    assert_eq!((described.lost_messages, described.unacknowledged_messages), (Some(5), Some(3)));
    // The owner notices, stores that, and another one continues.
    let work = worker.receive_all(3).await;
    assert_eq!(offsets(&work), [7, 8, 9]);
    assert_eq!(worker.acknowledge(&work[..1]).await, 1);
    let described = worker.describe().await;
    assert_eq!((described.lost_messages, described.unacknowledged_messages), (Some(5), Some(2)));
    let database = broker.database.clone();
    broker.stop().await;
    let broker = TestBroker::start_on(database).await;
    let mut worker = TestWorker::at(&broker.client, "jobs", "pool");
    let work = worker.receive_all(2).await;
    assert_eq!(offsets(&work), [8, 9]);
    assert_eq!(broker.trim("jobs", 9).await, 9);
    publish(&broker, 1).await;
    let next = worker.receive_all(1).await;
    assert_eq!(offsets(&next), [10]);
    assert_eq!(worker.acknowledge(&next).await, 1);
    let described = worker.describe().await;
    assert_eq!((described.lost_messages, described.unacknowledged_messages), (Some(6), Some(1)));
    assert_eq!(seek(&mut worker, Target::Offset(9)).await.unwrap(), 9);
    let described = worker.describe().await;
    assert_eq!((described.lost_messages, described.unacknowledged_messages), (Some(0), Some(2)));
}

#[tokio::test]
async fn a_seek_delivers_everything_from_there_on_again() {
    let (_broker, mut worker) = with_jobs(8, at_once()).await;
    let work = worker.receive_all(8).await;
    assert_eq!(worker.acknowledge(&work[..6]).await, 6);
    assert_eq!(worker.settle(&work[6..7], reject("no job")).await, 1);
    assert_eq!(seek(&mut worker, Target::Offset(4)).await.unwrap(), 4);
    let again = worker.receive_all(4).await;
    assert_eq!(payloads(&again), ["m4", "m5", "m6", "m7"]);
    assert!(again.iter().all(|work| work.attempt == 1));
    // What a worker had before is not its any more.
    assert_eq!(worker.acknowledge(&work[7..]).await, 0);
    let described = worker.describe().await;
    assert_eq!((described.floor, described.parked_messages), (4, 1));
    assert_eq!(described.unacknowledged_messages, Some(4));
}

#[tokio::test]
async fn a_seek_forward_forgets_what_waits_to_be_delivered_again() {
    let (_broker, mut worker) = with_jobs(4, at_once()).await;
    let mut stream = worker.stream().await;
    let work = stream.works(4).await;
    stream.settle(1, &work[..2], retry(Some(60_000))).await;
    assert_eq!(stream.settled(1).await, 2);
    assert_eq!(seek(&mut worker, Target::Offset(3)).await.unwrap(), 3);
    // The stream stays open, and continues from there.
    let again = stream.works(1).await;
    assert_eq!((again[0].offset, again[0].attempt), (3, 1));
    assert_eq!(stream.acknowledge(&again).await, 1);
    let described = worker.describe().await;
    assert_eq!((described.floor, described.retried_messages), (4, 0));
    assert_eq!(described.unacknowledged_messages, Some(0));
}

#[tokio::test]
async fn a_seek_says_what_is_wrong_with_it() {
    let (broker, mut worker) = with_jobs(2, at_once()).await;
    broker.consumer("jobs", "billing").await;
    let refusal = seek(&mut worker, Target::Offset(3)).await.unwrap_err();
    info(&refusal, Code::OutOfRange, "OFFSET_OUT_OF_RANGE");
    assert_field(seek(&mut worker, Target::Offset(-1)).await, "offset", None);
    let of = |id: &str| TestWorker::at(&broker.client, "jobs", id);
    let refusal = seek(&mut of("billing"), Target::Offset(0)).await.unwrap_err();
    info(&refusal, Code::FailedPrecondition, "NOT_A_SUBSCRIPTION");
    let refusal = seek(&mut of("nobody"), Target::Offset(0)).await.unwrap_err();
    info(&refusal, Code::NotFound, "CONSUMER_NOT_FOUND");
}
