//! Shared subscriptions: workers share messages, and settle each by itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use prost::Message as _;
use tokio::task::JoinSet;
use tonic::Code;
use trunkline::proto;

use crate::support::{
    RawClient, TestBroker, frames, info, soon, until,
    worker::{TestWorker, Work, at_once, payloads, publish, reject, retry, with_jobs},
};

fn policy() -> proto::DeliveryPolicy {
    proto::DeliveryPolicy::default()
}

#[tokio::test]
async fn workers_share_the_messages_and_acknowledge_each_by_itself() {
    let (broker, mut one) = with_jobs(5, policy()).await;
    let mut other = TestWorker::at(&broker.client, "jobs", "pool");
    let first = one.receive_now(2).await;
    let second = other.receive(10).await;
    assert_eq!(payloads(&first), ["m0", "m1"]);
    assert_eq!(payloads(&second), ["m2", "m3", "m4"]);
    assert!(first.iter().chain(&second).all(|work| work.attempt == 1));
    assert!(one.receive_now(10).await.is_empty());

    assert_eq!(other.acknowledge(&second[1..]).await, 2);
    assert_eq!(one.acknowledge(&first[..1]).await, 1);
    assert_eq!(one.describe().await.floor, 1);
    assert_eq!(one.acknowledge(&first).await, 1, "the first one is settled already");
    assert_eq!(other.acknowledge(&second[..1]).await, 1);
    let subscription = one.describe().await;
    assert_eq!((subscription.floor, subscription.head), (5, 5));
}

#[tokio::test]
async fn a_worker_waits_for_a_message() {
    let (broker, mut worker) = with_jobs(0, policy()).await;
    let waiting = worker.receive(10);
    let (work, ()) =
        soon("the message is delivered", async { tokio::join!(waiting, publish(&broker, 1)) })
            .await;
    assert_eq!(payloads(&work), ["m0"]);
}

#[tokio::test]
async fn messages_whose_client_goes_before_it_reads_them_go_to_another_worker_at_once() {
    let (broker, mut worker) = with_jobs(100, policy()).await;
    let raw = RawClient::connect_with_shut_windows(&broker.endpoint).await;
    let (response, mut request) = raw.begin("trunkline.v1.SubscriptionService/Receive", &[]).await;
    let receive = proto::ReceiveRequest {
        topic: "jobs".to_owned(),
        subscription_id: "pool".to_owned(),
        max_messages: 100,
        ..Default::default()
    };
    request.send_data(frames(&[&receive.encode_to_vec()]), true).unwrap();
    let unread = soon("the answer begins", response).await.unwrap();
    assert!(worker.receive_now(100).await.is_empty());
    drop((unread, request, raw));
    let again = soon("they are delivered", worker.receive_all(100)).await;
    assert!(again.iter().all(|work| work.attempt == 1), "{again:?}");
}

#[tokio::test]
async fn what_a_worker_asks_to_retry_is_delivered_again_and_holds_up_nothing() {
    let (_broker, mut worker) = with_jobs(3, at_once()).await;
    let work = worker.receive(3).await;
    assert_eq!(worker.settle(&work[..1], retry(None)).await, 1);
    assert_eq!(worker.settle(&work[1..2], retry(Some(3_600_000))).await, 1);
    assert_eq!(worker.acknowledge(&work[2..]).await, 1);
    let described = worker.describe().await;
    assert_eq!((described.floor, described.retried_messages), (3, 2));
    let again = worker.receive(3).await;
    assert_eq!(payloads(&again), ["m0"]);
    assert_eq!(again[0].attempt, 2);
    assert_eq!(worker.acknowledge(&work[..1]).await, 0, "its first delivery is over");
    assert_eq!(worker.acknowledge(&again).await, 1);
    assert_eq!(worker.describe().await.retried_messages, 1);
}

#[tokio::test]
async fn a_message_that_is_not_settled_in_time_is_delivered_again() {
    let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let policy = proto::DeliveryPolicy { ack_deadline: second, ..at_once() };
    let (_broker, mut worker) = with_jobs(2, policy).await;
    let work = worker.receive(2).await;
    let by = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    let extend = proto::settlement::Verdict::Extend(proto::Extend { by });
    assert_eq!(worker.settle(&work[1..], extend).await, 1);
    let again = worker.receive(2).await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["m0"], 2));
    assert_eq!(worker.acknowledge(&work).await, 1, "the other one is still outstanding");
    assert_eq!(worker.acknowledge(&again).await, 1);
    assert_eq!(worker.describe().await.floor, 2);
}

#[tokio::test]
async fn a_message_is_parked_if_it_is_rejected_or_was_delivered_too_often() {
    let policy = proto::DeliveryPolicy { max_deliveries: 2, ..at_once() };
    let (broker, mut worker) = with_jobs(2, policy).await;
    let work = worker.receive(2).await;
    assert_eq!(worker.settle(&work[..1], reject("not an order")).await, 1);
    assert_eq!(worker.settle(&work[1..], retry(None)).await, 1);
    let again = worker.receive(2).await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["m1"], 2));
    assert_eq!(worker.settle(&again, retry(None)).await, 1);
    assert!(worker.receive_now(2).await.is_empty());
    let described = worker.describe().await;
    assert_eq!((described.floor, described.retried_messages, described.parked_messages), (2, 0, 2));
    let rows = "select \"offset\", attempts, reason, parked_at is not null
        from trunkline.subscription_message order by 1";
    let rows = broker.sql().await.query(rows, &[]).await.unwrap();
    let row = |index: usize| -> (i64, i32, String, bool) {
        let row = &rows[index];
        (row.get(0), row.get(1), row.get(2), row.get(3))
    };
    assert_eq!(row(0), (0, 1, "not an order".to_owned(), true));
    let why = "it was delivered 2 times, and no worker acknowledged it".to_owned();
    assert_eq!(row(1), (1, 2, why, true));
}

#[tokio::test]
async fn what_is_settled_survives_the_broker() {
    let (broker, mut worker) = with_jobs(1_000, policy()).await;
    let work = worker.receive(1_000).await;
    let (done, left): (Vec<Work>, Vec<Work>) =
        work.into_iter().partition(|work| work.offset * 7 % 10 < 6);
    for part in done.chunks(100) {
        assert_eq!(worker.acknowledge(part).await, part.len() as i32);
    }
    assert_eq!(worker.settle(&left[..1], retry(Some(3_600_000))).await, 1);
    assert_eq!(worker.settle(&left[1..2], retry(Some(0))).await, 1);
    let database = broker.database.clone();
    broker.stop().await;

    let broker = TestBroker::start_on(database).await;
    let mut worker = TestWorker::at(&broker.client, "jobs", "pool");
    let again = worker.receive_all(left.len() - 1).await;
    let expected: Vec<i64> = left[1..].iter().map(|work| work.offset).collect();
    let mut offsets: Vec<i64> = again.iter().map(|work| work.offset).collect();
    assert_eq!(offsets[0], left[1].offset, "the one that is due comes first");
    offsets.sort_unstable();
    assert_eq!(offsets, expected);
    assert_eq!(again[0].attempt, 2);
    assert_eq!(worker.acknowledge(&left).await, 0, "those deliveries are over");
    assert_eq!(worker.acknowledge(&again).await, again.len() as i32);
    let described = worker.describe().await;
    assert_eq!((described.floor, described.retried_messages), (1_000, 1));
}

#[tokio::test]
async fn many_deltas_are_folded_into_one() {
    let (broker, mut worker) = with_jobs(300, policy()).await;
    let work = worker.receive(300).await;
    // The first one holds the floor.
    for done in work[1..].iter().step_by(2) {
        assert_eq!(worker.acknowledge(std::slice::from_ref(done)).await, 1);
    }
    let sql = broker.sql().await;
    let count = "select count(*) from trunkline.subscription_delta";
    let deltas: i64 = sql.query_one(count, &[]).await.unwrap().get(0);
    assert!((1..=64).contains(&deltas), "{deltas}");
    let database = broker.database.clone();
    broker.stop().await;
    let broker = TestBroker::start_on(database).await;
    let mut worker = TestWorker::at(&broker.client, "jobs", "pool");
    let again = worker.receive(300).await;
    assert_eq!(again.len(), 150);
    assert!(again.iter().all(|work| work.offset % 2 == 0));
    assert_eq!(worker.acknowledge(&again).await, 150);
    assert_eq!(worker.describe().await.floor, 300);
    // What lies before the floor is forgotten with the next write.
    publish(&broker, 1).await;
    let last = worker.receive(1).await;
    assert_eq!(worker.acknowledge(&last).await, 1);
    let deltas: i64 = sql.query_one(count, &[]).await.unwrap().get(0);
    assert_eq!(deltas, 0);
}

#[tokio::test]
async fn another_broker_takes_over_when_the_owner_has_stopped() {
    let (broker, mut worker) = with_jobs(3, policy()).await;
    let other = broker.start_another().await;
    let mut elsewhere = TestWorker::at(&other.client, "jobs", "pool");
    let work = worker.receive(1).await;
    assert_eq!(worker.acknowledge(&work).await, 1);
    let stopped = broker.shut_down();
    let work = elsewhere.receive_all(2).await;
    assert_eq!(payloads(&work), ["m1", "m2"]);
    assert_eq!(elsewhere.acknowledge(&work).await, 2);
    soon("the broker stops", stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_seek_moves_a_subscription_whatever_is_settled() {
    let (broker, mut worker) = with_jobs(4, policy()).await;
    let work = worker.receive(4).await;
    assert_eq!(worker.acknowledge(&work[2..]).await, 2);
    assert_eq!(worker.settle(&work[..1], retry(Some(3_600_000))).await, 1);
    let target = proto::seek_request::Target::Offset(1);
    assert_eq!(broker.seek("jobs", "pool", target).await.unwrap(), 1);
    let again = worker.receive(10).await;
    assert_eq!(payloads(&again), ["m1", "m2", "m3"]);
    assert!(again.iter().all(|work| work.attempt == 1));
    assert_eq!(worker.acknowledge(&work).await, 0, "those deliveries are over");
    assert_eq!(worker.acknowledge(&again).await, 3);
    let described = worker.describe().await;
    assert_eq!((described.floor, described.retried_messages), (4, 0));
    let seek = "select trunkline.seek('jobs', 'pool', 2)";
    broker.sql().await.query_one(seek, &[]).await.unwrap();
    assert_eq!(payloads(&worker.receive(10).await), ["m2", "m3"]);
}

#[tokio::test]
async fn a_seek_also_forgets_what_is_being_stored_as_it_comes() {
    let (broker, _worker) = with_jobs(4, policy()).await;
    let mut sql = broker.sql().await;
    let storing = sql.transaction().await.unwrap();
    let settled = "with written as (
            update trunkline.consumer_topic set updated_at = now() returning topic_id, id
        ), added as (
            insert into trunkline.subscription_message (topic_id, id, \"offset\", attempts, due)
            select topic_id, id, 2, 1, now() from written
        )
        insert into trunkline.subscription_delta (topic_id, id, number, settled)
        select topic_id, id, 0, '\\x01000202' from written";
    storing.execute(settled, &[]).await.unwrap();
    let target = proto::seek_request::Target::Offset(1);
    let seeking = broker.seek("jobs", "pool", target);
    let stored = async {
        until("the seek waits", async || broker.waiting_for_locks().await == 1).await;
        storing.commit().await.unwrap();
    };
    let (sought, ()) = soon("the seek ends", async { tokio::join!(seeking, stored) }).await;
    assert_eq!(sought.unwrap(), 1);
    let left = "select (select count(*) from trunkline.subscription_delta)
        + (select count(*) from trunkline.subscription_message)";
    assert_eq!(sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn retention_keeps_what_is_delivered_again_if_the_topic_says_so() {
    let broker = TestBroker::start().await;
    let retention = proto::Retention { max_messages: 1, keep_unread: true, ..Default::default() };
    broker.topic_with_retention("jobs", retention).await;
    let mut worker = TestWorker::subscribe(&broker, "jobs", "pool", policy()).await;
    for _ in 0..4 {
        publish(&broker, 1).await;
    }
    let work = worker.receive(4).await;
    assert_eq!(worker.settle(&work[1..2], retry(Some(3_600_000))).await, 1);
    assert_eq!(worker.acknowledge(&work).await, 3);
    assert_eq!(worker.describe().await.floor, 4);
    broker.log_starts_at("jobs", 1).await;
    let delete = "delete from trunkline.subscription_message";
    broker.sql().await.execute(delete, &[]).await.unwrap();
    broker.log_starts_at("jobs", 3).await;
}

#[tokio::test]
async fn messages_that_retention_removes_are_skipped() {
    let (broker, mut worker) = with_jobs(5, at_once()).await;
    let work = worker.receive(3).await;
    assert_eq!(worker.settle(&work[..1], retry(None)).await, 1);
    assert_eq!(broker.trim("jobs", 4).await, 4);
    assert_eq!(payloads(&worker.receive_now(10).await), ["m4"]);
    assert!(worker.receive_now(10).await.is_empty());
    assert_eq!(worker.acknowledge(&work[1..]).await, 2);
    let described = worker.describe().await;
    assert_eq!((described.floor, described.retried_messages), (4, 0));
}

#[tokio::test]
async fn a_deleted_subscription_leaves_nothing_behind_and_ends_its_workers() {
    let (broker, mut worker) = with_jobs(3, policy()).await;
    let work = worker.receive(3).await;
    worker.acknowledge(&work[1..2]).await;
    worker.settle(&work[2..], retry(Some(3_600_000))).await;
    let mut waiting = TestWorker::at(&broker.client, "jobs", "pool");
    let waiting =
        tokio::spawn(
            async move { waiting.try_receive(1, Duration::from_secs(30)).await.unwrap_err() },
        );
    let (topic, subscription_id) = ("jobs".to_owned(), "pool".to_owned());
    let request = proto::DeleteSubscriptionRequest { topic, subscription_id };
    worker.service().delete_subscription(request).await.unwrap();
    let refusal = soon("the worker is told", waiting).await.unwrap();
    info(&refusal, Code::NotFound, "CONSUMER_NOT_FOUND");
    let sql = broker.sql().await;
    let count = "select (select count(*) from trunkline.subscription)
        + (select count(*) from trunkline.subscription_delta)
        + (select count(*) from trunkline.subscription_message)";
    assert_eq!(sql.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 0);
    let refusal = worker.try_receive(1, Duration::ZERO).await.unwrap_err();
    info(&refusal, Code::NotFound, "CONSUMER_NOT_FOUND");
}

#[tokio::test]
async fn a_consumer_is_either_shared_or_not() {
    let (broker, mut worker) = with_jobs(1, policy()).await;
    broker.consumer("jobs", "billing").await;
    let refusal = broker.pull("jobs", "pool", 1).await.unwrap_err();
    info(&refusal, Code::FailedPrecondition, "CONSUMER_IS_SHARED");
    let mut stream = broker.consume("jobs", "pool").await;
    info(&stream.ended().await, Code::FailedPrecondition, "CONSUMER_IS_SHARED");
    let commit = |epoch| proto::CommitRequest {
        topic: "jobs".to_owned(),
        consumer_id: "pool".to_owned(),
        epoch,
        position: 0,
    };
    let refusal = broker.consumers().commit(commit(1)).await.unwrap_err();
    info(&refusal, Code::FailedPrecondition, "CONSUMER_IS_SHARED");
    // Also while a broker hands out its messages.
    assert_eq!(worker.receive(1).await.len(), 1);
    let epoch = broker.get_consumer("jobs", "pool").await.epoch;
    let refusal = broker.consumers().commit(commit(epoch)).await.unwrap_err();
    info(&refusal, Code::FailedPrecondition, "CONSUMER_IS_SHARED");
    let sql = broker.sql().await;
    for statement in [
        "select * from trunkline.receive('jobs', 'pool')",
        "select trunkline.commit_position('jobs', 'pool', 0, 1)",
        "select trunkline.register_consumer('jobs', 'pool', if_missing => true)",
    ] {
        let error = sql.query(statement, &[]).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!((error.code().code(), error.message()), ("TL119", refusal.message()));
    }
    let mut billing = TestWorker::at(&broker.client, "jobs", "billing");
    let refusal = billing.try_receive(1, Duration::ZERO).await.unwrap_err();
    info(&refusal, Code::FailedPrecondition, "NOT_A_SUBSCRIPTION");
    let (topic, subscription_id) = ("jobs".to_owned(), "billing".to_owned());
    let request = proto::GetSubscriptionRequest { topic, subscription_id };
    let refusal = worker.service().get_subscription(request).await.unwrap_err();
    info(&refusal, Code::FailedPrecondition, "NOT_A_SUBSCRIPTION");
    let request =
        proto::ListSubscriptionsRequest { topic: "jobs".to_owned(), ..Default::default() };
    let listed = worker.service().list_subscriptions(request).await.unwrap().into_inner();
    let ids: Vec<_> = listed.subscriptions.iter().map(|it| it.subscription_id.as_str()).collect();
    assert_eq!(ids, ["pool"]);
}

#[tokio::test]
async fn an_existing_subscription_is_as_good_as_a_new_one_if_the_request_says_so() {
    let (broker, mut worker) = with_jobs(0, at_once()).await;
    broker.consumer("jobs", "billing").await;
    let request = |id: &str, if_missing| proto::CreateSubscriptionRequest {
        topic: "jobs".to_owned(),
        subscription_id: id.to_owned(),
        if_missing,
        ..Default::default()
    };
    let refusal = worker.service().create_subscription(request("pool", false)).await.unwrap_err();
    info(&refusal, Code::AlreadyExists, "CONSUMER_EXISTS");
    let existing = worker.service().create_subscription(request("pool", true)).await.unwrap();
    let existing = existing.into_inner();
    assert!(existing.existed);
    let (existing, described) = (existing.subscription.unwrap(), worker.describe().await);
    assert_eq!((existing.create_time, existing.policy), (described.create_time, described.policy));
    let refusal = worker.service().create_subscription(request("billing", true)).await.unwrap_err();
    info(&refusal, Code::FailedPrecondition, "NOT_A_SUBSCRIPTION");
    let created = worker.service().create_subscription(request("", true)).await.unwrap();
    assert!(!created.into_inner().existed);
}

#[tokio::test]
async fn many_workers_get_each_message_once() {
    let (broker, mut first) = with_jobs(0, policy()).await;
    let broker = Arc::new(broker);
    let mut workers = JoinSet::new();
    for _ in 0..8 {
        let mut worker = TestWorker::at(&broker.client, "jobs", "pool");
        workers.spawn(async move {
            let mut seen = Vec::new();
            loop {
                let mut work = worker.receive(50).await;
                // In an order of its own.
                work.sort_unstable_by_key(|work| work.offset * 7_919 % 101);
                assert_eq!(worker.acknowledge(&work).await, work.len() as i32);
                seen.extend(work.iter().map(|work| work.offset));
                if work.iter().any(|work| work.payload == "end") {
                    return seen;
                }
            }
        });
    }
    for _ in 0..20 {
        publish(&broker, 100).await;
    }
    let drained = async || first.describe().await.floor == 2_000;
    until("all messages are acknowledged", drained).await;
    let mut times = BTreeMap::<i64, usize>::new();
    while !workers.is_empty() {
        broker.publish("jobs", ["end"]).await;
        let seen = soon("a worker ends", workers.join_next()).await.unwrap().unwrap();
        seen.into_iter().for_each(|offset| *times.entry(offset).or_default() += 1);
    }
    assert_eq!(times.len(), 2_008);
    assert!(times.values().all(|times| *times == 1), "{times:?}");
}
