//! The client library's worker, against a real broker.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use trunkline::{
    client::{Client, Error, Job, Start, Verdict, WorkerBuilder, WorkerEvent, WorkerNotice},
    proto::{self, DeliveryPolicy, settlement::Verdict as ProtoVerdict},
};

use crate::support::{
    TestBroker, soon, until,
    worker::{TestWorker, at_once, payloads, publish, retry, with_jobs},
};

fn pool(broker: &TestBroker) -> WorkerBuilder {
    broker.client.worker("jobs", "pool")
}

/// A policy with a deadline of two seconds, that delivers messages again at once. A worker extends after one.
fn two_seconds() -> DeliveryPolicy {
    let ack_deadline = Some(prost_types::Duration { seconds: 2, nanos: 0 });
    DeliveryPolicy { ack_deadline, ..at_once() }
}

/// What handlers were given: payloads and attempts.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(String, u32)>>>);

impl Seen {
    fn add(&self, job: &Job) {
        let payload = String::from_utf8(job.payload.to_vec()).unwrap();
        self.0.lock().unwrap().push((payload, job.attempt()));
    }

    fn sorted(&self) -> Vec<(String, u32)> {
        let mut seen = self.0.lock().unwrap().clone();
        seen.sort();
        seen
    }

    fn distinct(&self) -> usize {
        let mut seen = self.sorted();
        seen.dedup_by(|one, other| one.0 == other.0);
        seen.len()
    }
}

fn attempts(payload: &str, attempts: std::ops::RangeInclusive<u32>) -> Vec<(String, u32)> {
    attempts.map(|attempt| (payload.to_owned(), attempt)).collect()
}

#[tokio::test]
async fn every_message_is_handled_once_by_no_more_than_so_many_handlers() {
    let (broker, mut described) = with_jobs(500, DeliveryPolicy::default()).await;
    let (seen, running, most) =
        (Seen::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (seen, most) = (seen.clone(), most.clone());
        move |job: Job| {
            let (seen, running, most) = (seen.clone(), running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                seen.add(&job);
                running.fetch_sub(1, Ordering::SeqCst);
            }
        }
    };
    let worker = pool(&broker).concurrency(8).until_caught_up().open().await.unwrap();
    soon("the worker ends", worker.run(handler)).await.unwrap();
    let mut expected: Vec<_> = (0..500).map(|number| (format!("m{number}"), 1)).collect();
    expected.sort();
    assert_eq!(seen.sorted(), expected);
    assert!((2..=8).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    assert_eq!(described.describe().await.floor, 500);
}

#[tokio::test]
async fn a_message_whose_handler_fails_or_panics_is_delivered_again() {
    let (broker, mut described) = with_jobs(1, at_once()).await;
    let seen = Seen::default();
    let handler = {
        let seen = seen.clone();
        move |job: Job| {
            seen.add(&job);
            async move {
                match job.attempt() {
                    1 => Err("not yet"),
                    2 => panic!("not yet either"),
                    3 => Ok(Verdict::retry_after(Duration::ZERO)),
                    _ => Ok(Verdict::Acknowledge),
                }
            }
        }
    };
    let worker = pool(&broker).max_messages(4).open().await.unwrap();
    soon("the worker ends", worker.run(handler)).await.unwrap();
    assert_eq!(seen.sorted(), attempts("m0", 1..=4));
    let described = described.describe().await;
    assert_eq!((described.floor, described.retried_messages), (1, 0));
}

#[tokio::test]
async fn a_message_that_a_handler_rejects_is_parked_with_the_reason() {
    let (broker, mut described) = with_jobs(2, at_once()).await;
    let handler = |job: Job| async move {
        match job.offset {
            0 => Verdict::reject("not an order"),
            _ => Verdict::Acknowledge,
        }
    };
    let worker = pool(&broker).until_caught_up().open().await.unwrap();
    soon("the worker ends", worker.run(handler)).await.unwrap();
    assert_eq!(described.describe().await.parked_messages, 1);
    let request = proto::ListParkedRequest {
        topic: "jobs".to_owned(),
        subscription_id: "pool".to_owned(),
        ..Default::default()
    };
    let parked = described.service().list_parked(request).await.unwrap().into_inner().messages;
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].offset, parked[0].attempts), (0, 1));
    assert_eq!(parked[0].reason, "not an order");
}

#[tokio::test]
async fn a_slow_handler_keeps_its_message_and_those_that_wait_for_it() {
    let (broker, mut other) = with_jobs(3, two_seconds()).await;
    let (seen, finish) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let handler = {
        let (seen, finish) = (seen.clone(), finish.clone());
        move |job: Job| {
            seen.add(&job);
            let finish = finish.clone();
            async move { finish.acquire().await.unwrap().forget() }
        }
    };
    let worker = pool(&broker).concurrency(1).max_outstanding_messages(3).until_caught_up();
    let working = tokio::spawn(worker.open().await.unwrap().run(handler));
    until("a handler runs", async || seen.distinct() == 1).await;
    assert!(other.receive_now(10).await.is_empty(), "the worker has all messages");
    publish(&broker, 1).await;
    // Nobody extends the deadline of another message, which shows that theirs would have passed twice.
    for attempt in 1..=3 {
        let work = other.receive(10).await;
        assert_eq!((work.len(), work[0].offset, work[0].attempt), (1, 3, attempt), "{work:?}");
        if attempt == 3 {
            assert_eq!(other.acknowledge(&work).await, 1);
        }
    }
    finish.add_permits(3);
    soon("the worker ends", working).await.unwrap().unwrap();
    let expected = ["m0", "m1", "m2"].map(|payload| (payload.to_owned(), 1));
    assert_eq!(seen.sorted(), expected);
    assert_eq!(other.describe().await.floor, 4);
}

#[tokio::test]
async fn a_worker_that_stops_finishes_what_it_has_begun_and_gives_the_rest_back() {
    let (broker, mut other) = with_jobs(5, DeliveryPolicy::default()).await;
    let (begun, mut begins) = mpsc::channel(5);
    let release = Arc::new(Notify::new());
    let handler = {
        let release = release.clone();
        move |job: Job| {
            begun.try_send(job.offset).unwrap();
            let release = release.clone();
            async move { release.notified().await }
        }
    };
    let stop = CancellationToken::new();
    let worker = pool(&broker).concurrency(1).max_outstanding_messages(5).open().await.unwrap();
    let working = tokio::spawn(worker.run_until(handler, stop.clone().cancelled_owned()));
    assert_eq!(soon("a handler begins", begins.recv()).await, Some(0));
    stop.cancel();
    let mut given_back = Vec::new();
    while given_back.len() < 4 {
        given_back.extend(other.receive(5).await);
    }
    assert_eq!(payloads(&given_back), ["m1", "m2", "m3", "m4"]);
    assert!(given_back.iter().all(|work| work.attempt == 1), "{given_back:?}");
    assert!(!working.is_finished());
    release.notify_one();
    soon("the worker ends", working).await.unwrap().unwrap();
    assert_eq!(begins.recv().await, None, "no other handler began");
    assert_eq!(other.describe().await.floor, 1);
}

#[tokio::test]
async fn handlers_that_do_not_end_in_time_are_aborted() {
    let (broker, mut other) = with_jobs(1, at_once()).await;
    let begun = Arc::new(Notify::new());
    let handler = {
        let begun = begun.clone();
        move |_: Job| {
            begun.notify_one();
            std::future::pending::<()>()
        }
    };
    let stop = CancellationToken::new();
    let worker = pool(&broker).stop_timeout(Duration::from_millis(50)).open().await.unwrap();
    let working = tokio::spawn(worker.run_until(handler, stop.clone().cancelled_owned()));
    soon("a handler begins", begun.notified()).await;
    stop.cancel();
    let error = soon("the worker ends", working).await.unwrap().unwrap_err();
    assert!(
        matches!(&error, Error::Lost { reason } if reason.contains("1 of the handlers")),
        "{error}"
    );
    let again = other.receive(1).await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["m0"], 2));
}

#[tokio::test]
async fn a_worker_goes_on_at_another_broker() {
    const MESSAGES: usize = 400;
    let (first, _) = with_jobs(MESSAGES, at_once()).await;
    let second = first.start_another().await;
    let endpoints = format!("{},{}", first.endpoint, second.endpoint);
    let client = Client::connect(&endpoints).await.unwrap();
    let (seen, lost) = (Seen::default(), Arc::new(AtomicUsize::new(0)));
    // Half of the handlers may go on at first.
    let permits = Arc::new(Semaphore::new(MESSAGES / 2));
    let handler = {
        let (seen, permits) = (seen.clone(), permits.clone());
        move |job: Job| {
            let (seen, permits) = (seen.clone(), permits.clone());
            async move {
                permits.acquire().await.unwrap().forget();
                seen.add(&job);
            }
        }
    };
    let counted = lost.clone();
    let worker = client.worker("jobs", "pool").on_notice(move |notice| {
        if matches!(notice, WorkerNotice::Broken(_)) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let working = tokio::spawn(worker.open().await.unwrap().run_until(handler, stopped));
    until("half of the messages are handled", async || seen.distinct() >= MESSAGES / 2).await;
    let stopping = first.shut_down();
    permits.add_permits(10 * MESSAGES);
    let mut described = TestWorker::at(&second.client, "jobs", "pool");
    until("all messages are settled", async || described.describe().await.floor == MESSAGES as i64)
        .await;
    stop.cancel();
    soon("the worker ends", working).await.unwrap().unwrap();
    soon("the broker stops", stopping).await.unwrap().unwrap();
    assert_eq!(seen.distinct(), MESSAGES);
    assert!(lost.load(Ordering::SeqCst) > 0);
    assert_eq!(described.describe().await.retried_messages, 0);
}

#[tokio::test]
async fn a_worker_of_what_does_not_exist_ends_with_an_error() {
    let (broker, mut described) = with_jobs(0, DeliveryPolicy::default()).await;
    let nobody = broker.client.worker("jobs", "nobody").open().await.unwrap();
    let error = soon("the error", nobody.run(|_: Job| async {})).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Some(Code::NotFound), Some("CONSUMER_NOT_FOUND")));
    broker.consumer("jobs", "billing").await;
    let alone = broker.client.worker("jobs", "billing").open().await.unwrap();
    let error = soon("the error", alone.run(|_: Job| async {})).await.unwrap_err();
    assert_eq!(error.reason(), Some("NOT_A_SUBSCRIPTION"));
    let attached = Arc::new(Notify::new());
    let tell = attached.clone();
    let worker = pool(&broker).on_notice(move |notice| {
        if notice == WorkerNotice::Attached {
            tell.notify_one();
        }
    });
    let working = tokio::spawn(worker.open().await.unwrap().run(|_: Job| async {}));
    soon("the worker is attached", attached.notified()).await;
    let (topic, subscription_id) = ("jobs".to_owned(), "pool".to_owned());
    let request = proto::DeleteSubscriptionRequest { topic, subscription_id };
    described.service().delete_subscription(request).await.unwrap();
    let error = soon("the error", working).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some("CONSUMER_NOT_FOUND"));
}

#[tokio::test]
async fn a_worker_creates_its_subscription_if_it_is_to() {
    let broker = TestBroker::start().await;
    broker.topic("jobs").await;
    publish(&broker, 3).await;
    let seen = Seen::default();
    for _ in 0..2 {
        let policy = DeliveryPolicy { max_deliveries: 7, ..Default::default() };
        let worker = pool(&broker).create(Start::Offset(1), policy).until_caught_up();
        let recorded = seen.clone();
        let handler = move |job: Job| {
            recorded.add(&job);
            async {}
        };
        soon("the worker ends", worker.open().await.unwrap().run(handler)).await.unwrap();
    }
    assert_eq!(seen.sorted(), ["m1", "m2"].map(|payload| (payload.to_owned(), 1)));
    let described = TestWorker::at(&broker.client, "jobs", "pool").describe().await;
    assert_eq!((described.floor, described.policy.unwrap().max_deliveries), (3, 7));
}

#[tokio::test]
async fn options_out_of_their_ranges_are_refused() {
    let broker = TestBroker::start().await;
    let worker = || pool(&broker);
    for (field, refused) in [
        ("concurrency", worker().concurrency(0)),
        ("max_messages", worker().max_messages(0)),
        ("max_outstanding_messages", worker().max_outstanding_messages(100_001)),
        ("max_outstanding_bytes", worker().max_outstanding_bytes(0)),
        ("heartbeat_interval", worker().heartbeat_interval(Duration::from_millis(99))),
        ("subscription_id", broker.client.worker("jobs", "")),
    ] {
        match refused.open().await {
            Err(Error::Invalid { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stream_by_itself_tells_what_happens() {
    let (broker, mut other) = with_jobs(3, DeliveryPolicy::default()).await;
    let mut stream = pool(&broker).max_outstanding_messages(2).open_stream().await.unwrap();
    let mut next = async || soon("an event", stream.next_event()).await.unwrap().unwrap();
    let WorkerEvent::Attached(attached) = next().await else { panic!("it is not attached") };
    assert_eq!((attached.floor, attached.head), (0, 3));
    let mut jobs = Vec::new();
    while jobs.len() < 2 {
        if let WorkerEvent::Jobs(more) = next().await {
            jobs.extend(more);
        }
    }
    let stalled = loop {
        if let WorkerEvent::Stalled(stalled) = next().await {
            break stalled;
        }
    };
    assert_eq!(stalled.limit(), proto::stalled::Limit::WorkerMessages);
    assert_eq!(stalled.outstanding_messages, 2);
    let settlement = |job: &Job, verdict| proto::Settlement {
        delivery: job.delivery(),
        offsets: vec![job.offset],
        verdict: Some(verdict),
        ..Default::default()
    };
    let settlements = vec![
        settlement(&jobs[0], ProtoVerdict::Acknowledge(proto::Acknowledge {})),
        settlement(&jobs[1], retry(Some(3_600_000))),
        settlement(&jobs[1], retry(None)),
    ];
    let id = stream.settle(settlements).await.unwrap();
    let mut next = async || soon("an event", stream.next_event()).await.unwrap().unwrap();
    let (mut settled, mut is_caught_up) = (None, false);
    while settled.is_none() || !is_caught_up {
        match next().await {
            WorkerEvent::Settled(answer) => settled = Some(answer),
            WorkerEvent::CaughtUp => is_caught_up = true,
            WorkerEvent::Jobs(more) => jobs.extend(more),
            _ => {}
        }
    }
    let expected = proto::Settled { request_id: id, applied: vec![1, 1, 0] };
    assert_eq!(settled, Some(expected));
    assert_eq!(jobs[2].offset, 2);
    stream.stop_delivery().await.unwrap();
    soon("the stream ends", stream.close()).await.unwrap();
    // The message that was not settled is delivered again.
    let again = other.receive(3).await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["m2"], 2));
}
