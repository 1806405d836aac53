//! What calls of subscriptions refuse, and the field and limit that they name.

use tonic::Code;
use trunkline::proto::{self, subscribe_request::Request};

use crate::support::{
    TestBroker, assert_field, info,
    worker::{TestWorker, reject, with_jobs},
};

fn policy() -> proto::DeliveryPolicy {
    proto::DeliveryPolicy::default()
}

#[tokio::test]
async fn a_settlement_says_what_is_wrong_with_it() {
    let (_broker, mut worker) = with_jobs(1, policy()).await;
    let acknowledge = proto::settlement::Verdict::Acknowledge(proto::Acknowledge {});
    let good = proto::Settlement { delivery: 1, verdict: Some(acknowledge), ..Default::default() };
    let range = |first_offset, end_offset| vec![proto::OffsetRange { first_offset, end_offset }];
    let day = Some(prost_types::Duration { seconds: 86_401, nanos: 0 });
    let verdict = |verdict| proto::Settlement { verdict: Some(verdict), ..good.clone() };
    let with_ranges = |ranges| proto::Settlement { ranges, ..good.clone() };
    let retry_late = verdict(proto::settlement::Verdict::Retry(proto::Retry { delay: day }));
    let extend_long = verdict(proto::settlement::Verdict::Extend(proto::Extend { by: day }));
    let bad = [
        ("settlements[0].delivery", proto::Settlement { delivery: 0, ..good.clone() }, None),
        ("settlements[0].offsets", proto::Settlement { offsets: vec![-1], ..good.clone() }, None),
        (
            "settlements[0].offsets",
            proto::Settlement { offsets: vec![i64::MAX], ..good.clone() },
            None,
        ),
        ("settlements[0].ranges.first_offset", with_ranges(range(-1, 1)), None),
        ("settlements[0].ranges.end_offset", with_ranges(range(1, 1)), None),
        ("settlements[0].verdict", proto::Settlement { verdict: None, ..good.clone() }, None),
        ("settlements[0].retry.delay", retry_late, Some(86_400)),
        ("settlements[0].extend.by", extend_long, Some(600)),
        ("settlements[0].reject.reason", verdict(reject(&"x".repeat(1_025))), Some(1_024)),
        ("settlements[0].reject.reason", verdict(reject("a\0b")), None),
    ];
    for (field, settlement, limit) in bad {
        let request = worker.request(vec![settlement]);
        assert_field(worker.service().settle(request).await, field, limit);
    }
    let request = worker.request(Vec::new());
    assert_field(worker.service().settle(request).await, "settlements", None);
    // What nobody has is no error: it may just have been settled.
    let request = worker.request(vec![good]);
    let settled = worker.service().settle(request).await.unwrap().into_inner();
    assert_eq!(settled.applied, [0]);
}

#[tokio::test]
async fn a_policy_says_what_is_wrong_with_it() {
    let broker = TestBroker::start().await;
    broker.topic("jobs").await;
    let mut worker = TestWorker::at(&broker.client, "jobs", "pool");
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let backoff = |min, max| proto::DeliveryPolicy {
        min_backoff: seconds(min),
        max_backoff: seconds(max),
        ..policy()
    };
    let deadline = |time| proto::DeliveryPolicy { ack_deadline: seconds(time), ..policy() };
    let deliveries = |most| proto::DeliveryPolicy { max_deliveries: most, ..policy() };
    let bad = [
        ("policy.ack_deadline", deadline(0), 600),
        ("policy.ack_deadline", deadline(601), 600),
        ("policy.min_backoff", backoff(86_401, 86_401), 86_400),
        ("policy.max_backoff", backoff(5, 4), 86_400),
        ("policy.max_deliveries", deliveries(-1), 1_000),
        ("policy.max_deliveries", deliveries(1_001), 1_000),
    ];
    for (field, policy, limit) in bad {
        let request = proto::CreateSubscriptionRequest {
            topic: "jobs".to_owned(),
            policy: Some(policy),
            ..Default::default()
        };
        assert_field(worker.service().create_subscription(request).await, field, Some(limit));
    }
}

#[tokio::test]
async fn a_stream_says_what_is_wrong_with_its_requests() {
    let (_broker, worker) = with_jobs(1, policy()).await;
    let open = worker.open();
    let interval = Some(prost_types::Duration { seconds: 61, nanos: 0 });
    let bad = [
        ("open.topic", proto::OpenSubscription { topic: "a b".to_owned(), ..open.clone() }, None),
        (
            "open.subscription_id",
            proto::OpenSubscription { subscription_id: String::new(), ..open.clone() },
            None,
        ),
        (
            "open.max_outstanding_messages",
            proto::OpenSubscription { max_outstanding_messages: 100_001, ..open.clone() },
            Some(100_000),
        ),
        (
            "open.max_outstanding_bytes",
            proto::OpenSubscription { max_outstanding_bytes: -1, ..open.clone() },
            Some(256 << 20),
        ),
        (
            "open.max_batch_messages",
            proto::OpenSubscription { max_batch_messages: -1, ..open.clone() },
            None,
        ),
        (
            "open.heartbeat_interval",
            proto::OpenSubscription { heartbeat_interval: interval, ..open.clone() },
            Some(60),
        ),
    ];
    for (field, open, limit) in bad {
        assert_field(worker.try_stream(open).await.map(drop), field, limit);
    }
    let refusal = worker.requests([Request::Stop(proto::StopDelivery {})]).await.map(drop);
    assert_field(refusal, "request", None);
    let nothing = proto::SettleMessages { settlements: Vec::new(), request_id: 1 };
    for (field, request) in
        [("request", Request::Open(open.clone())), ("settle.settlements", Request::Settle(nothing))]
    {
        let mut stream = worker.stream().await;
        stream.ask(request).await;
        assert_field(Err::<(), _>(stream.ended().await), field, None);
    }
}

#[tokio::test]
async fn a_stream_of_a_subscription_that_is_none_ends() {
    let (broker, worker) = with_jobs(1, policy()).await;
    broker.consumer("jobs", "billing").await;
    let open = |topic: &str, id: &str| proto::OpenSubscription {
        topic: topic.to_owned(),
        subscription_id: id.to_owned(),
        ..Default::default()
    };
    for (topic, id, code, reason) in [
        ("jobs", "billing", Code::FailedPrecondition, "NOT_A_SUBSCRIPTION"),
        ("jobs", "nobody", Code::NotFound, "CONSUMER_NOT_FOUND"),
        ("nothing", "pool", Code::NotFound, "TOPIC_NOT_FOUND"),
    ] {
        let refusal = worker.try_stream(open(topic, id)).await.map(drop).unwrap_err();
        info(&refusal, code, reason);
    }
}

#[tokio::test]
async fn a_change_of_a_policy_says_what_is_wrong_with_it() {
    let (_broker, mut worker) = with_jobs(0, policy()).await;
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let mut update = async |policy, paths: &[&str]| worker.update(policy, paths).await;
    let low = proto::DeliveryPolicy { max_backoff: seconds(1), ..policy() };
    let high = proto::DeliveryPolicy { min_backoff: seconds(61), ..policy() };
    assert_field(update(low.clone(), &["owner"]).await, "update_mask", None);
    update(low, &["max_backoff"]).await.unwrap();
    // What is stored counts, too.
    assert_field(update(high, &["min_backoff"]).await, "policy.max_backoff", Some(86_400));
    let long = proto::DeliveryPolicy { ack_deadline: seconds(601), ..policy() };
    assert_field(update(long, &["ack_deadline"]).await, "policy.ack_deadline", Some(600));
}
