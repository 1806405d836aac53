//! Subscriptions that deliver exactly once: no message is delivered while a worker may still settle an earlier
//! delivery of it, whatever becomes of workers and brokers.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;
use trunkline::proto::{self, seek_request::Target, settlement::Verdict};

use crate::support::{
    TestBroker, soon,
    worker::{TestWorker, Work, at_once, payloads, publish, retry, with_jobs},
};

fn exactly_once(ack_deadline: i64) -> proto::DeliveryPolicy {
    let ack_deadline = Some(prost_types::Duration { seconds: ack_deadline, nanos: 0 });
    proto::DeliveryPolicy { exactly_once: true, ack_deadline, ..at_once() }
}

fn extend(seconds: i64) -> Verdict {
    Verdict::Extend(proto::Extend { by: Some(prost_types::Duration { seconds, nanos: 0 }) })
}

/// The reservation that is stored: its end, and how many seconds are left.
async fn reserved(broker: &TestBroker) -> Option<(i64, f64)> {
    let reserved = "select reserved_end,
            extract(epoch from reserved_until - clock_timestamp())::float8
        from trunkline.subscription";
    let row = broker.sql().await.query_one(reserved, &[]).await.unwrap();
    Some((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<f64>>(1)?))
}

/// Takes so many messages, from whichever broker's owner there is once the lease sessions are open again.
async fn receive_from_the_next_owner(worker: &mut TestWorker, count: usize) -> Vec<Work> {
    let mut work = Vec::new();
    soon("the next owner hands messages out", async {
        while work.len() < count {
            match worker.try_receive(100, Duration::from_secs(5)).await {
                Ok(received) => work.extend(received),
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
            }
        }
    })
    .await;
    work
}

#[tokio::test]
async fn what_a_worker_has_when_its_stream_ends_stays_with_it_until_its_deadline() {
    let (_broker, mut worker) = with_jobs(2, exactly_once(2)).await;
    let started = Instant::now();
    let mut stream = worker.stream().await;
    let work = stream.works(2).await;
    assert!(work.iter().all(|work| work.attempt == 1));
    drop(stream);
    assert!(worker.receive_now(10).await.is_empty());
    // Any call can settle it.
    assert_eq!(worker.acknowledge(&work[..1]).await, 1);
    let again = worker.receive(10).await;
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!((payloads(&again), again[0].attempt), (vec!["m1"], 2));
    assert_eq!(worker.acknowledge(&work).await, 0, "its deadline has passed");
    assert_eq!(worker.acknowledge(&again).await, 1);
    assert_eq!(worker.describe().await.floor, 2);
}

#[tokio::test]
async fn what_a_worker_gives_back_is_delivered_again_at_once() {
    let (_broker, mut worker) = with_jobs(2, exactly_once(600)).await;
    let work = worker.receive_all(2).await;
    let release = Verdict::Release(proto::Release {});
    assert_eq!(worker.settle(&work[..1], release).await, 1);
    assert_eq!(worker.settle(&work[1..], retry(None)).await, 1);
    let again = worker.receive_all(2).await;
    let attempts: Vec<_> = again.iter().map(|work| (work.offset, work.attempt)).collect();
    assert_eq!(attempts, [(0, 1), (1, 2)]);
    assert_eq!(worker.acknowledge(&work).await, 0);
    assert_eq!(worker.acknowledge(&again).await, 2);
}

#[tokio::test]
async fn the_next_owner_waits_for_the_deadlines_of_the_one_before() {
    let (broker, mut worker) = with_jobs(4, exactly_once(2)).await;
    let other = broker.start_another().await;
    let started = Instant::now();
    let work = worker.receive_all(3).await;
    assert_eq!(worker.acknowledge(&work[..1]).await, 1);
    assert_eq!(worker.settle(&work[1..2], retry(Some(0))).await, 1);
    let again = worker.receive(1).await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["m1"], 2));
    // The owner loses its lease, and cannot say what workers have.
    broker.end_sessions("trunkline lease").await;
    let mut elsewhere = TestWorker::at(&other.client, "jobs", "pool");
    let mut work_again = receive_from_the_next_owner(&mut elsewhere, 3).await;
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    work_again.sort_unstable_by_key(|work| work.offset);
    assert_eq!(payloads(&work_again), ["m1", "m2", "m3"]);
    // The owner before may have delivered each of them.
    assert!(work_again.iter().all(|work| work.attempt > 1), "{work_again:?}");
    assert_eq!(elsewhere.acknowledge(&work).await, 0, "those deliveries are over");
    assert_eq!(elsewhere.acknowledge(&work_again).await, 3);
    assert_eq!(elsewhere.describe().await.floor, 4);
}

#[tokio::test]
async fn a_broker_that_stops_keeps_the_next_owner_from_nothing_that_no_worker_has() {
    let (broker, mut worker) = with_jobs(3, exactly_once(600)).await;
    let work = worker.receive_all(2).await;
    assert_eq!(worker.acknowledge(&work[..1]).await, 1);
    let (end, left) = reserved(&broker).await.unwrap();
    assert!(end > 1_000 && left > 600.0, "{end} {left}");
    let database = broker.database.clone();
    broker.stop().await;
    let broker = TestBroker::start_on(database).await;
    assert_eq!(reserved(&broker).await.unwrap().0, 2);
    let mut worker = TestWorker::at(&broker.client, "jobs", "pool");
    publish(&broker, 1).await;
    let new = worker.receive_all(2).await;
    let attempts: Vec<_> = new.iter().map(|work| (work.offset, work.attempt)).collect();
    assert_eq!(attempts, [(2, 1), (3, 1)]);
    assert!(worker.receive_now(10).await.is_empty(), "a worker may still be at m1");
    assert_eq!(worker.acknowledge(&new).await, 2);
}

#[tokio::test]
async fn after_a_seek_messages_wait_until_no_worker_has_them() {
    let (broker, mut worker) = with_jobs(2, exactly_once(2)).await;
    let started = Instant::now();
    let work = worker.receive_all(2).await;
    assert_eq!(worker.acknowledge(&work[..1]).await, 1);
    assert_eq!(broker.seek("jobs", "pool", Target::Offset(0)).await.unwrap(), 0);
    let again = receive_from_the_next_owner(&mut worker, 2).await;
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(payloads(&again), ["m0", "m1"]);
    assert_eq!(worker.acknowledge(&work).await, 0, "those deliveries are over");
    assert_eq!(worker.acknowledge(&again).await, 2);
}

#[tokio::test]
async fn an_extended_deadline_is_reserved_before_it_is_confirmed() {
    let (broker, mut worker) = with_jobs(1, exactly_once(1)).await;
    let work = worker.receive(1).await;
    let (_, left) = reserved(&broker).await.unwrap();
    assert!(left < 10.0, "{left}");
    assert_eq!(worker.settle(&work, extend(600)).await, 1);
    let (_, left) = reserved(&broker).await.unwrap();
    assert!(left > 590.0, "{left}");
    assert_eq!(worker.acknowledge(&work).await, 1);
}

#[tokio::test]
async fn it_can_be_switched_on_while_workers_work_and_costs_nothing_before() {
    let policy = proto::DeliveryPolicy { exactly_once: false, ..exactly_once(2) };
    let (broker, mut worker) = with_jobs(2, policy).await;
    let started = Instant::now();
    let work = worker.receive_all(2).await;
    assert_eq!(worker.acknowledge(&work[..1]).await, 1);
    assert_eq!(reserved(&broker).await, None);
    let updated = worker.update(exactly_once(2), &["exactly_once"]).await.unwrap();
    assert!(updated.policy.unwrap().exactly_once);
    let (end, left) = reserved(&broker).await.unwrap();
    assert!(end >= 2 && left > 0.0, "{end} {left}");
    broker.end_sessions("trunkline lease").await;
    let again = receive_from_the_next_owner(&mut worker, 1).await;
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!((payloads(&again), again[0].attempt), (vec!["m1"], 2));
    assert_eq!(worker.acknowledge(&again).await, 1);
}

#[tokio::test]
async fn many_messages_take_few_reservations() {
    let (broker, mut worker) = with_jobs(30_000, exactly_once(60)).await;
    let (mut work, mut ends) = (Vec::new(), vec![0]);
    while work.len() < 30_000 {
        work.extend(worker.receive(1_000).await);
        let (end, _) = reserved(&broker).await.unwrap();
        assert!(end >= work.len() as i64, "{end}");
        if ends.last() != Some(&end) {
            ends.push(end);
        }
    }
    assert!((3..=9).contains(&ends.len()), "{ends:?}");
    for part in work.chunks(4_000) {
        assert_eq!(worker.acknowledge(part).await, part.len() as i32);
    }
    assert_eq!(worker.describe().await.floor, 30_000);
}
