//! Workers that hold a stream: they get messages as there are some, and settle them meanwhile.

use std::time::Duration;

use futures::stream::{StreamExt as _, pending};
use prost::Message as _;
use tonic::Code;
use trunkline::proto::{
    self, settlement::Verdict, stalled::Limit, subscribe_request::Request,
    subscribe_response::Event,
};

use crate::{
    metrics::metrics_until,
    support::{
        RawClient, TestBroker, frames,
        http::{HttpBroker, Metrics},
        info, soon, until,
        worker::{TestWorker, at_once, payloads, publish, reject, retry, with_jobs},
    },
};

fn policy() -> proto::DeliveryPolicy {
    proto::DeliveryPolicy::default()
}

fn acknowledge() -> Verdict {
    Verdict::Acknowledge(proto::Acknowledge {})
}

#[tokio::test]
async fn a_stream_gets_messages_as_there_are_some_and_settles_them() {
    let (broker, mut worker) = with_jobs(3, policy()).await;
    let mut stream = worker.stream().await;
    let work = stream.work().await;
    assert_eq!(payloads(&work), ["m0", "m1", "m2"]);
    stream.caught_up().await;
    stream.settle(7, &work[1..], acknowledge()).await;
    stream.settle(8, &work, acknowledge()).await;
    assert_eq!(stream.settled(7).await, 2);
    assert_eq!(stream.settled(8).await, 1, "two were settled already");
    assert_eq!(worker.describe().await.floor, 3);
    publish(&broker, 1).await;
    assert_eq!(payloads(&stream.work().await), ["m0"]);
    stream.caught_up().await;
    stream.close().await;
}

#[tokio::test]
async fn the_first_event_says_how_messages_are_delivered() {
    let (_broker, worker) = with_jobs(3, at_once()).await;
    let mut stream = worker.try_stream(worker.open()).await.unwrap();
    let Event::Attached(attached) = stream.event().await else { panic!("attached expected") };
    let policy = attached.policy.unwrap();
    assert_eq!(policy.ack_deadline.unwrap().seconds, 30);
    assert_eq!(policy.min_backoff, Some(prost_types::Duration::default()));
    assert_eq!((attached.floor, attached.head), (0, 3));
}

#[tokio::test]
async fn a_worker_gets_no_more_than_it_can_have_and_is_told_so_once() {
    let (broker, worker) = with_jobs(10, policy()).await;
    let open = proto::OpenSubscription { max_outstanding_messages: 4, ..worker.open() };
    let mut stream = worker.stream_as(open).await;
    let work = stream.work().await;
    assert_eq!(payloads(&work), ["m0", "m1", "m2", "m3"]);
    let stalled = stream.stalled().await;
    assert_eq!((stalled.limit(), stalled.outstanding_messages), (Limit::WorkerMessages, 4));
    assert!(stalled.outstanding_bytes > 8);
    publish(&broker, 1).await;
    // Another worker gets them meanwhile.
    let mut other = worker.stream().await;
    let theirs = other.works(7).await;
    assert_eq!(theirs[0].offset, 4);
    other.caught_up().await;
    stream.settle(1, &work[..1], acknowledge()).await;
    assert_eq!(stream.settled(1).await, 1);
    publish(&broker, 3).await;
    // Room for one.
    let mut more = Vec::new();
    for stream in [&mut stream, &mut other] {
        more.extend(stream.work().await);
    }
    assert_eq!(more.len(), 3);
}

#[tokio::test]
async fn a_worker_gets_no_more_bytes_than_it_can_have_but_any_message_if_it_has_none() {
    let (broker, worker) = with_jobs(0, policy()).await;
    for _ in 0..3 {
        broker.publish("jobs", ["x".repeat(1_000).as_str()]).await;
    }
    let open = proto::OpenSubscription { max_outstanding_bytes: 1_800, ..worker.open() };
    let mut stream = worker.stream_as(open).await;
    let work = stream.work().await;
    assert_eq!(work.len(), 1);
    assert_eq!(stream.stalled().await.limit(), Limit::WorkerBytes);
    stream.settle(1, &work, acknowledge()).await;
    // There is room at once, and the answer comes once it is on disk.
    assert_eq!(stream.work().await[0].offset, 1);
    assert_eq!(stream.settled(1).await, 1);
    let open = proto::OpenSubscription { max_outstanding_bytes: 1, ..worker.open() };
    let mut other = worker.stream_as(open).await;
    assert_eq!(other.work().await[0].offset, 2);
}

#[tokio::test]
async fn what_a_worker_has_is_delivered_again_when_its_stream_ends() {
    let (_broker, mut worker) = with_jobs(3, at_once()).await;
    let mut stream = worker.stream().await;
    let work = stream.work().await;
    assert_eq!(stream.acknowledge(&work[1..2]).await, 1);
    drop(stream);
    let again = worker.receive(10).await;
    assert_eq!(payloads(&again), ["m0", "m2"]);
    assert!(again.iter().all(|work| work.attempt == 2));
}

#[tokio::test]
async fn what_a_client_was_not_sent_counts_no_attempt_when_its_stream_ends() {
    let broker = HttpBroker::start(&[]).await;
    let calls = &broker.calls;
    calls.topic("jobs").await;
    let mut worker = TestWorker::subscribe(calls, "jobs", "pool", at_once()).await;
    publish(calls, 3).await;
    let raw = RawClient::connect_with_shut_windows(&calls.endpoint).await;
    let (response, mut requests) =
        raw.begin("trunkline.v1.SubscriptionService/Subscribe", &[]).await;
    let open = proto::SubscribeRequest { request: Some(Request::Open(worker.open())) };
    requests.send_data(frames(&[&open.encode_to_vec()]), false).unwrap();
    let unread = soon("the stream begins", response).await.unwrap();
    metrics_until("the stream has the messages", &broker, |metrics| {
        metrics.get("trunkline_subscription_outstanding_messages") == Some(3.0)
    })
    .await;
    drop((unread, requests, raw));
    let again = soon("they are delivered", worker.receive_all(3)).await;
    assert!(again.iter().all(|work| work.attempt == 1), "{again:?}");
}

#[tokio::test]
async fn a_worker_that_stops_gets_no_more_and_settles_what_it_has() {
    let (broker, mut worker) = with_jobs(2, policy()).await;
    let mut stream = worker.stream().await;
    let work = stream.works(2).await;
    stream.ask(Request::Stop(proto::StopDelivery {})).await;
    // It is carried out in the order of the requests.
    assert_eq!(stream.acknowledge(&work[..1]).await, 1);
    publish(&broker, 1).await;
    assert_eq!(worker.receive(10).await.len(), 1);
    assert_eq!(stream.acknowledge(&work[1..]).await, 1);
    stream.close().await;
    assert_eq!(worker.describe().await.floor, 2);
}

#[tokio::test]
async fn what_was_asked_is_answered_when_the_client_closes_its_side() {
    let (_broker, mut worker) = with_jobs(500, policy()).await;
    let mut stream = worker.stream().await;
    let work = stream.works(500).await;
    for (number, work) in work.chunks(10).enumerate() {
        stream.settle(number as i64, work, acknowledge()).await;
    }
    stream.requests = None;
    for number in 0..50 {
        assert_eq!(stream.settled(number).await, 10);
    }
    stream.close().await;
    assert_eq!(worker.describe().await.floor, 500);
}

#[tokio::test]
async fn a_message_whose_deadline_passes_goes_to_another_worker() {
    let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let policy = proto::DeliveryPolicy { ack_deadline: second, ..at_once() };
    let (_broker, worker) = with_jobs(1, policy).await;
    let mut slow = worker.stream().await;
    let work = slow.work().await;
    slow.ask(Request::Stop(proto::StopDelivery {})).await;
    let mut other = worker.stream().await;
    let again = other.work().await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["m0"], 2));
    assert_eq!(slow.acknowledge(&work).await, 0);
    assert_eq!(other.acknowledge(&again).await, 1);
}

#[tokio::test]
async fn messages_that_are_far_apart_are_delivered_again_together() {
    let (broker, worker) = with_jobs(0, at_once()).await;
    for _ in 0..50 {
        publish(&broker, 10).await;
    }
    let mut stream = worker.stream().await;
    let work = stream.works(500).await;
    stream.ask(Request::Stop(proto::StopDelivery {})).await;
    let (again, done): (Vec<_>, Vec<_>) = work.into_iter().partition(|it| it.offset % 10 == 3);
    assert_eq!(stream.acknowledge(&done).await, 450);
    stream.settle(1, &again, retry(None)).await;
    assert_eq!(stream.settled(1).await, 50);
    // The broker does not have them in memory any more.
    let database = broker.database.clone();
    broker.stop().await;
    let broker = TestBroker::start_on(database).await;
    let worker = TestWorker::at(&broker.client, "jobs", "pool");
    let mut stream = worker.stream().await;
    let again = stream.work().await;
    assert_eq!(again.len(), 50);
    assert!(again.iter().all(|it| it.attempt == 2 && it.offset % 10 == 3 && it.payload == "m3"));
    assert_eq!(stream.acknowledge(&again).await, 50);
}

#[tokio::test]
async fn a_stream_ends_when_the_broker_stops_after_what_was_asked_is_stored() {
    let (broker, worker) = with_jobs(2, policy()).await;
    let mut stream = worker.stream().await;
    let mut idle = worker.stream().await;
    idle.ask(Request::Stop(proto::StopDelivery {})).await;
    let work = stream.works(2).await;
    stream.settle(1, &work, acknowledge()).await;
    assert_eq!(stream.settled(1).await, 2);
    let stopped = broker.shut_down();
    info(&stream.ended().await, Code::Unavailable, "DRAINING");
    info(&idle.ended().await, Code::Unavailable, "DRAINING");
    soon("the broker stops", stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_ends_when_its_subscription_is_deleted() {
    let (_broker, mut worker) = with_jobs(2, policy()).await;
    let mut stream = worker.stream().await;
    stream.works(2).await;
    let open = worker.open();
    let (topic, subscription_id) = (open.topic, open.subscription_id);
    let request = proto::DeleteSubscriptionRequest { topic, subscription_id };
    worker.service().delete_subscription(request).await.unwrap();
    info(&stream.ended().await, Code::NotFound, "CONSUMER_NOT_FOUND");
}

#[tokio::test]
async fn a_stream_goes_on_after_a_seek() {
    let (broker, worker) = with_jobs(3, policy()).await;
    let mut stream = worker.stream().await;
    let work = stream.works(3).await;
    stream.caught_up().await;
    assert_eq!(
        broker.seek("jobs", "pool", proto::seek_request::Target::Offset(2)).await.unwrap(),
        2
    );
    let again = stream.work().await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["m2"], 1));
    assert_eq!(stream.acknowledge(&work).await, 0);
    assert_eq!(stream.acknowledge(&again).await, 1);
}

#[tokio::test]
async fn a_quiet_stream_sends_heartbeats() {
    let (_broker, worker) = with_jobs(0, policy()).await;
    let interval = Duration::from_millis(100).try_into().ok();
    let open = proto::OpenSubscription { heartbeat_interval: interval, ..worker.open() };
    let mut stream = worker.stream_as(open).await;
    stream.caught_up().await;
    for _ in 0..3 {
        assert!(matches!(stream.any_event().await, Event::Heartbeat(_)));
    }
}

#[tokio::test]
async fn a_policy_can_be_changed_while_workers_work() {
    let (_broker, mut worker) = with_jobs(1, at_once()).await;
    let mut stream = worker.stream().await;
    let work = stream.work().await;
    let policy = proto::DeliveryPolicy { max_deliveries: 1, ..policy() };
    let updated = worker.update(policy, &["max_deliveries"]).await.unwrap();
    let stored = updated.policy.unwrap();
    assert_eq!(stored.max_deliveries, 1);
    assert_eq!(stored.max_backoff, Some(prost_types::Duration::default()), "it is not named");
    stream.settle(1, &work, retry(None)).await;
    assert_eq!(stream.settled(1).await, 1);
    until("the message is parked", async || worker.describe().await.parked_messages == 1).await;
    let all = worker.update(proto::DeliveryPolicy::default(), &[]).await.unwrap();
    assert_eq!(all.policy.unwrap().max_backoff.unwrap().seconds, 60);
}

#[tokio::test]
async fn a_stream_ends_at_the_deadline_of_its_client() {
    let (_broker, mut worker) = with_jobs(1, policy()).await;
    let open = proto::SubscribeRequest { request: Some(Request::Open(worker.open())) };
    let mut request = tonic::Request::new(tokio_stream::iter([open]).chain(pending()));
    request.set_timeout(Duration::from_millis(500));
    let mut events = worker.service().subscribe(request).await.unwrap().into_inner();
    let ended = async {
        loop {
            if let Err(status) = events.message().await {
                return status;
            }
        }
    };
    assert_eq!(soon("the stream ends", ended).await.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_message_that_is_released_is_delivered_again_as_if_it_had_not_been_before() {
    let policy = proto::DeliveryPolicy { max_deliveries: 1, ..policy() };
    let (_broker, mut worker) = with_jobs(2, policy).await;
    let work = worker.receive_all(2).await;
    assert_eq!(worker.settle(&work[..1], Verdict::Release(proto::Release {})).await, 1);
    let again = worker.receive(2).await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["m0"], 1));
    assert_eq!(worker.acknowledge(&again).await, 1);
    assert_eq!(worker.describe().await.parked_messages, 0);
}

#[tokio::test]
async fn many_calls_that_do_not_wait_all_get_what_there_is() {
    let (broker, _worker) = with_jobs(100, policy()).await;
    let calls = (0..50).map(|_| {
        let mut worker = TestWorker::at(&broker.client, "jobs", "pool");
        async move { worker.receive_now(1).await }
    });
    let got = futures::future::join_all(calls).await;
    assert!(got.iter().all(|work| work.len() == 1));
}

#[tokio::test]
async fn metrics_say_what_becomes_of_messages() {
    let broker = HttpBroker::start(&[]).await;
    let calls = &broker.calls;
    calls.topic("jobs").await;
    let mut worker = TestWorker::at(&calls.client, "jobs", "pool");
    let request = proto::CreateSubscriptionRequest {
        topic: "jobs".to_owned(),
        subscription_id: "pool".to_owned(),
        policy: Some(at_once()),
        ..Default::default()
    };
    worker.service().create_subscription(request).await.unwrap();
    publish(calls, 4).await;
    let mut stream = worker.stream().await;
    let work = stream.works(4).await;
    assert_eq!(stream.acknowledge(&work[..2]).await, 2);
    stream.settle(1, &work[2..3], reject("no order")).await;
    stream.settle(2, &work[3..], retry(None)).await;
    let expected = [
        ("outstanding_messages", 1.0),
        ("delivered_messages_total", 5.0),
        ("redelivered_messages_total", 1.0),
        ("acknowledged_messages_total", 2.0),
        ("retried_messages_total", 1.0),
        ("parked_messages_total", 1.0),
    ];
    let shows = |metrics: &Metrics, (name, value): (&str, f64)| {
        metrics.get(&format!("trunkline_subscription_{name}")) == Some(value)
    };
    metrics_until("what was settled", &broker, |metrics| {
        expected.iter().all(|expected| shows(metrics, *expected))
    })
    .await;
    drop(stream);
    let metrics = metrics_until("what has expired", &broker, |metrics| {
        shows(metrics, ("expired_messages_total", 1.0))
    })
    .await;
    assert_eq!(metrics.value("trunkline_subscriptions_owned"), 1.0);
    let of = |metrics: &Metrics, name: &str| {
        let labels = "{topic=\"jobs\",subscription=\"pool\"}";
        metrics.get(&format!("trunkline_subscription_{name}{labels}"))
    };
    // That is at most about a second old.
    let metrics = metrics_until("what is left", &broker, |metrics| {
        of(metrics, "unacknowledged_messages") == Some(1.0)
    })
    .await;
    assert!(of(&metrics, "oldest_unacknowledged_age_seconds").unwrap() > 0.0);
    assert_eq!(of(&metrics, "lost_messages"), Some(0.0));
}
