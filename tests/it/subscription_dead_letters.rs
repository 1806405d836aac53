//! Messages that are moved to another topic in place of being parked.

use std::{pin::pin, sync::Arc};

use tonic::{Code, Status};
use trunkline::{
    model::{
        ConsumerKey, Draft, Epoch, Message, NewMessages, Offset, ProducerId, TopicId, TopicName,
    },
    proto::{self, Operation, settlement::Verdict},
    storage::{DeadLetterOutcome, DeadLetters, Storage, StoreOutcome, SubscriptionWrite},
};

use crate::support::{
    LIMITS, PRODUCER, TestBroker, assert_field, assert_refused, info, payload,
    secured::{As, SecuredBroker},
    soon, until,
    worker::{TestWorker, Work, at_once, payloads, publish, reject, retry},
};

/// A policy that moves messages to a topic.
fn to(dead_letter_topic: &str) -> proto::DeliveryPolicy {
    proto::DeliveryPolicy { dead_letter_topic: dead_letter_topic.to_owned(), ..at_once() }
}

/// A broker with messages `m0`, `m1` and so on in the topic `jobs`, and the subscription `pool`, which moves
/// messages to the topic `dead`.
async fn with_dead_letters(
    count: usize,
    policy: proto::DeliveryPolicy,
) -> (TestBroker, TestWorker) {
    let broker = TestBroker::start().await;
    broker.topic("jobs").await;
    broker.topic("dead").await;
    let worker = TestWorker::subscribe(&broker, "jobs", "pool", policy).await;
    publish(&broker, count).await;
    (broker, worker)
}

async fn read(broker: &TestBroker, topic: &str) -> Vec<proto::Message> {
    let request = proto::ReadMessagesRequest { topic: topic.to_owned(), ..Default::default() };
    broker.topics().read_messages(request).await.unwrap().into_inner().messages
}

/// The offsets of parked messages, and why they are.
async fn parked(worker: &mut TestWorker) -> Vec<(i64, String)> {
    let proto::OpenSubscription { topic, subscription_id, .. } = worker.open();
    let request = proto::ListParkedRequest { topic, subscription_id, ..Default::default() };
    let listed = worker.service().list_parked(request).await.unwrap().into_inner();
    listed.messages.into_iter().map(|message| (message.offset, message.reason)).collect()
}

/// The value of a header that says where a dead letter comes from.
fn said<'a>(message: &'a proto::Message, name: &str) -> &'a str {
    &message.headers[&format!("trunkline-dead-letter-{name}")]
}

#[tokio::test]
async fn rejected_and_worn_out_messages_are_moved_once_and_say_where_they_come_from() {
    let policy = proto::DeliveryPolicy { max_deliveries: 2, ..to("dead") };
    let (broker, mut worker) = with_dead_letters(0, policy).await;
    let headers = [("kind", "order"), ("trunkline-dead-letter-topic", "an earlier one")];
    let messages = ["a", "b", "c"].map(|payload| proto::NewMessage {
        payload: payload.into(),
        key: Some("customer".into()),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        deliver_at: None,
    });
    let request = proto::PublishRequest {
        topic: "jobs".to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: messages.into(),
        ..Default::default()
    };
    broker.producers().publish(request).await.unwrap();
    let mut consumer = {
        broker.consumer("dead", "people").await;
        broker.consume("dead", "people").await
    };
    consumer.attached().await;

    let work = worker.receive(3).await;
    assert_eq!(worker.settle(&work[..1], reject("no order")).await, 1);
    // Its consumers are notified.
    let first = consumer.next_messages().await;
    assert_eq!((first.len(), first[0].offset, payload(&first[0]).as_str()), (1, 0, "a"));
    assert_eq!(worker.settle(&work[1..2], retry(None)).await, 1);
    assert_eq!(worker.acknowledge(&work[2..]).await, 1);
    let again = worker.receive(3).await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["b"], 2));
    assert_eq!(worker.settle(&again, retry(None)).await, 1);
    let second = consumer.next_messages().await;
    assert_eq!((second.len(), second[0].offset), (1, 1));

    let why = "it was delivered 2 times, and no worker acknowledged it";
    for (letter, offset, attempts, reason) in
        [(&first[0], "0", "1", "no order"), (&second[0], "1", "2", why)]
    {
        assert_eq!(letter.key.as_deref(), Some(&b"customer"[..]));
        assert_eq!(letter.producer_id, "trunkline.dead-letters");
        assert_eq!(letter.headers.len(), 6);
        assert_eq!(letter.headers["kind"], "order");
        assert_eq!((said(letter, "topic"), said(letter, "subscription")), ("jobs", "pool"));
        assert_eq!((said(letter, "offset"), said(letter, "attempts")), (offset, attempts));
        assert_eq!(said(letter, "reason"), reason);
    }
    let described = worker.describe().await;
    assert_eq!((described.floor, described.retried_messages, described.parked_messages), (3, 0, 0));

    // Nothing of that happens again when another broker takes over.
    let database = broker.database.clone();
    broker.stop().await;
    let broker = TestBroker::start_on(database).await;
    let mut worker = TestWorker::at(&broker.client, "jobs", "pool");
    assert!(worker.receive_now(3).await.is_empty());
    assert_eq!(read(&broker, "dead").await.len(), 2);
    let topic = broker.get_topic("dead").await;
    assert_eq!(topic.head, 2);
    assert!(topic.last_publish_time.is_some());
    // Publishes go on behind them.
    assert_eq!(broker.publish("dead", ["d"]).await, 2);
}

#[tokio::test]
async fn a_settlement_waits_for_the_dead_letter_topic_and_other_subscriptions_go_on() {
    let (broker, mut worker) = with_dead_letters(3, to("dead")).await;
    let mut other = TestWorker::subscribe(&broker, "jobs", "other", to("dead")).await;
    let work = worker.receive(3).await;
    let others = other.receive(3).await;
    let sql = broker.sql().await;
    let lock = "begin;
        update trunkline.topic_head set notified_at = now()
        where topic_id = (select id from trunkline.topic where name = 'dead')";
    sql.batch_execute(lock).await.unwrap();
    {
        let mut rejected = pin!(worker.settle(&work[..2], reject("no order")));
        tokio::select! {
            _ = &mut rejected => panic!("answered while the topic is locked"),
            () = until("it waits", async || broker.waiting_for_locks().await == 1) => {}
        }
        tokio::select! {
            _ = &mut rejected => panic!("answered while the topic is locked"),
            applied = soon("the others are settled", other.acknowledge(&others)) => {
                assert_eq!(applied, 3);
            }
        }
        // Nothing of it is visible.
        let mut asking = TestWorker::at(&broker.client, "jobs", "pool");
        let described = asking.describe().await;
        assert_eq!((described.floor, described.parked_messages), (0, 0));
        assert!(read(&broker, "dead").await.is_empty());
        sql.batch_execute("commit").await.unwrap();
        assert_eq!(soon("the answer", rejected).await, 2);
    }
    let letters: Vec<String> = read(&broker, "dead").await.iter().map(payload).collect();
    assert_eq!(letters, ["m0", "m1"]);
    assert_eq!(worker.describe().await.floor, 2);
    assert_eq!(worker.acknowledge(&work[2..]).await, 1);
}

#[tokio::test]
async fn a_message_is_parked_if_the_dead_letter_topic_is_gone() {
    let (broker, mut worker) = with_dead_letters(2, to("dead")).await;
    let work = worker.receive(2).await;
    broker.delete_topic("dead").await;
    assert_eq!(worker.settle(&work[..1], reject("no order")).await, 1);
    assert_eq!(worker.acknowledge(&work[1..]).await, 1);
    let reason = "no order; dead-letter topic dead does not exist".to_owned();
    assert_eq!(parked(&mut worker).await, [(0, reason)]);
    assert_eq!(worker.describe().await.floor, 2);
    // Other settings can be changed all the same.
    let policy = proto::DeliveryPolicy { max_deliveries: 7, ..Default::default() };
    let updated = worker.update(policy, &["max_deliveries"]).await.unwrap().policy.unwrap();
    assert_eq!((updated.max_deliveries, updated.dead_letter_topic.as_str()), (7, "dead"));
}

#[tokio::test]
async fn a_message_is_parked_if_its_copy_would_break_a_limit() {
    let (broker, mut worker) = with_dead_letters(1, to("dead")).await;
    broker.try_publish("jobs", PRODUCER, [vec![b'x'; 1024 * 1024]]).await.unwrap();
    publish(&broker, 1).await;
    let work = worker.receive_all(3).await;
    assert_eq!(worker.settle(&work, reject("no order")).await, 3);
    let parked = parked(&mut worker).await;
    let [(1, reason)] = &parked[..] else { panic!("the large one is parked: {parked:?}") };
    let beginning = "no order; dead-letter topic dead cannot take it: the size of the copy is 1048";
    assert!(reason.starts_with(beginning), "{reason}");
    let letters = read(&broker, "dead").await;
    assert_eq!(letters.iter().map(|it| said(it, "offset")).collect::<Vec<_>>(), ["0", "2"]);
    assert_eq!(worker.describe().await.floor, 3);
}

#[tokio::test]
async fn a_message_that_was_removed_meanwhile_is_merely_settled() {
    let (broker, mut worker) = with_dead_letters(0, to("dead")).await;
    // Batches of their own, so that each can be removed.
    for _ in 0..3 {
        publish(&broker, 1).await;
    }
    let work = worker.receive_all(3).await;
    assert_eq!(broker.trim("jobs", 2).await, 2);
    assert_eq!(worker.settle(&work, reject("no order")).await, 3);
    let letters = read(&broker, "dead").await;
    assert_eq!(letters.iter().map(|it| said(it, "offset")).collect::<Vec<_>>(), ["2"]);
    let described = worker.describe().await;
    assert_eq!((described.floor, described.parked_messages), (3, 0));
}

#[tokio::test]
async fn many_dead_letters_take_several_writes_and_keep_their_order() {
    const COUNT: usize = 2_500;
    let (broker, mut worker) = with_dead_letters(COUNT, to("dead")).await;
    let work = worker.receive_all(COUNT).await;
    let settlement = |delivery| proto::Settlement {
        delivery,
        verdict: Some(reject("no order")),
        ..Default::default()
    };
    let mut deliveries: Vec<i64> = work.iter().map(|work| work.delivery).collect();
    deliveries.dedup();
    let request = worker.request(deliveries.into_iter().map(settlement).collect());
    let settled = worker.service().settle(request).await.unwrap().into_inner();
    assert_eq!(settled.applied.into_iter().sum::<i32>(), COUNT as i32);
    // Answered when all are there.
    assert_eq!(broker.get_topic("dead").await.head, COUNT as i64);
    let offsets = "select (headers ->> 'trunkline-dead-letter-offset')::bigint
        from trunkline.message where topic = 'dead' order by \"offset\"";
    let rows = broker.sql().await.query(offsets, &[]).await.unwrap();
    assert!(rows.iter().map(|row| row.get::<_, i64>(0)).eq(0..COUNT as i64));
    assert_eq!(worker.describe().await.floor, COUNT as i64);
}

#[tokio::test]
async fn long_reasons_take_several_writes() {
    const COUNT: usize = 6_000;
    let broker = TestBroker::start().await;
    broker.topic("jobs").await;
    let mut worker = TestWorker::subscribe(&broker, "jobs", "pool", at_once()).await;
    publish(&broker, COUNT).await;
    let work = worker.receive_all(COUNT).await;
    let reason = "x".repeat(1_024);
    let mut deliveries: Vec<i64> = work.iter().map(|work| work.delivery).collect();
    deliveries.dedup();
    let settlement = |delivery| proto::Settlement {
        delivery,
        verdict: Some(reject(&reason)),
        ..Default::default()
    };
    let request = worker.request(deliveries.into_iter().map(settlement).collect());
    let settled = worker.service().settle(request).await.unwrap().into_inner();
    assert_eq!(settled.applied.into_iter().sum::<i32>(), COUNT as i32);
    let described = worker.describe().await;
    assert_eq!((described.floor, described.parked_messages), (COUNT as i64, COUNT as i64));
}

#[tokio::test]
async fn a_write_that_is_repeated_appends_nothing_and_one_that_is_fenced_stores_nothing() {
    let (broker, mut worker) = with_dead_letters(3, to("dead")).await;
    let work: Vec<Work> = worker.receive(3).await;
    assert_eq!(worker.acknowledge(&work[1..2]).await, 1);
    let sql = broker.sql().await;
    let key = "select topic_id, id, epoch from trunkline.consumer_topic";
    let row = sql.query_one(key, &[]).await.unwrap();
    let key = ConsumerKey { topic: TopicId(row.get(0)), consumer: row.get(1) };
    let epoch = Epoch(row.get(2));
    let message = Message { payload: "m0".into(), ..Message::default() };
    let messages = NewMessages::parse(vec![message]).unwrap();
    let mut draft = Draft::default();
    draft.add(&ProducerId::dead_letters(), Epoch(0), None, &messages);
    let letters = DeadLetters { topic: TopicName::parse("dead").unwrap(), draft };
    let write = |epoch, number| {
        Arc::new(SubscriptionWrite {
            key,
            epoch,
            floor: Offset(0),
            end: Offset(1),
            delta: Some((number, vec![1])),
            keep_from: 0,
            messages: Vec::new(),
            reservation: None,
            lost: None,
            dead_letters: Some(letters.clone()),
        })
    };
    let storage = Storage::open(&broker.database.url, None, LIMITS).await.unwrap();
    let store = async |epoch, number| {
        storage.store_with_dead_letters(&write(epoch, number), &letters).await.unwrap()
    };
    let first = store(epoch, 70).await;
    assert!(matches!(first, DeadLetterOutcome::Appended(at) if at.base == Offset(0)), "{first:?}");
    let again = store(epoch, 70).await;
    assert!(matches!(again, DeadLetterOutcome::Other(StoreOutcome::Stored)), "{again:?}");
    let fenced = store(Epoch(epoch.0 - 1), 71).await;
    assert!(matches!(fenced, DeadLetterOutcome::Other(StoreOutcome::Fenced)), "{fenced:?}");
    let lock = "begin; select from trunkline.consumer_topic for update";
    sql.batch_execute(lock).await.unwrap();
    let locked = store(epoch, 71).await;
    assert!(matches!(locked, DeadLetterOutcome::Other(StoreOutcome::Locked)), "{locked:?}");
    sql.batch_execute("commit").await.unwrap();
    assert_eq!(broker.read_payloads("dead").await, ["m0"]);
    // Also if the topic is gone by then.
    broker.delete_topic("dead").await;
    let again = store(epoch, 70).await;
    assert!(matches!(again, DeadLetterOutcome::Other(StoreOutcome::Stored)), "{again:?}");
    let missing = store(epoch, 71).await;
    assert!(
        matches!(missing, DeadLetterOutcome::Other(StoreOutcome::NoDeadLetterTopic)),
        "{missing:?}"
    );
    let numbers = "select number from trunkline.subscription_delta where number >= 70";
    assert_eq!(sql.query(numbers, &[]).await.unwrap().len(), 1);
    storage.close();
}

#[tokio::test]
async fn a_message_that_cannot_be_appended_is_parked() {
    let (broker, mut worker) = with_dead_letters(2, to("dead")).await;
    let sql = broker.sql().await;
    let refuse = "create function refuse() returns trigger language plpgsql as $$
            begin raise exception 'no room'; end $$;
        create trigger refuse before insert on trunkline.batch
        for each row execute function refuse()";
    sql.batch_execute(refuse).await.unwrap();
    let work = worker.receive(2).await;
    assert_eq!(worker.settle(&work[..1], reject("no order")).await, 1);
    sql.batch_execute("drop trigger refuse on trunkline.batch").await.unwrap();
    let parked = parked(&mut worker).await;
    let [(0, reason)] = &parked[..] else { panic!("the first one is parked: {parked:?}") };
    assert!(reason.starts_with("no order; dead-letter topic dead did not take it"), "{reason}");
    assert_eq!(worker.settle(&work[1..], reject("no order")).await, 1);
    assert_eq!(broker.read_payloads("dead").await, ["m1"]);
}

#[tokio::test]
async fn ones_own_topic_and_one_that_does_not_exist_are_refused() {
    let (_broker, mut worker) = with_dead_letters(0, to("dead")).await;
    let create = |policy| proto::CreateSubscriptionRequest {
        topic: "jobs".to_owned(),
        subscription_id: "other".to_owned(),
        policy: Some(policy),
        ..Default::default()
    };
    let refused = worker.service().create_subscription(create(to("jobs"))).await;
    assert_field(refused, "policy.dead_letter_topic", None);
    let refused = worker.update(to("jobs"), &["dead_letter_topic"]).await;
    assert_field(refused, "policy.dead_letter_topic", None);
    let reason = "DEAD_LETTER_TOPIC_NOT_FOUND";
    let refused = worker.service().create_subscription(create(to("nothing"))).await;
    let metadata = assert_refused(refused, Code::FailedPrecondition, reason);
    assert_eq!(metadata["dead_letter_topic"], "nothing");
    let refused = worker.update(to("nothing"), &[]).await;
    assert_refused(refused, Code::FailedPrecondition, reason);
    // What a call says of a new subscription does not count for one that exists.
    let existing = proto::CreateSubscriptionRequest {
        subscription_id: "pool".to_owned(),
        if_missing: true,
        ..create(to("nothing"))
    };
    let existing = worker.service().create_subscription(existing).await.unwrap().into_inner();
    assert_eq!(existing.subscription.unwrap().policy.unwrap().dead_letter_topic, "dead");
    let parks = proto::DeliveryPolicy::default();
    let updated = worker.update(parks, &["dead_letter_topic"]).await.unwrap();
    assert_eq!(updated.policy.unwrap().dead_letter_topic, "");
}

#[tokio::test]
async fn whoever_sets_a_dead_letter_topic_must_be_permitted_to_publish_to_it() {
    let broker = SecuredBroker::start().await;
    let root = broker.root().await;
    for topic in ["jobs", "dead"] {
        root.create_topic(topic).await.unwrap();
    }
    let office = broker.principal("office", [(Operation::Consume, "jobs")]).await;
    let create = async |who: &As, policy| -> Result<(), Status> {
        let request = proto::CreateSubscriptionRequest {
            topic: "jobs".to_owned(),
            subscription_id: "pool".to_owned(),
            policy: Some(policy),
            ..Default::default()
        };
        who.subscriptions().create_subscription(request).await.map(drop)
    };
    let update = async |who: &As, paths: &[&str]| -> Result<(), Status> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let request = proto::UpdateSubscriptionRequest {
            topic: "jobs".to_owned(),
            subscription_id: "pool".to_owned(),
            policy: Some(to("dead")),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        who.subscriptions().update_subscription(request).await.map(drop)
    };
    // Whether it exists or not.
    for topic in ["dead", "nothing"] {
        let refusal = create(&office, to(topic)).await.unwrap_err();
        let metadata = info(&refusal, Code::PermissionDenied, "NOT_GRANTED");
        assert_eq!(metadata["topic"], topic);
    }
    create(&office, to("")).await.unwrap();
    for paths in [&["dead_letter_topic"][..], &[]] {
        let refusal = update(&office, paths).await.unwrap_err();
        info(&refusal, Code::PermissionDenied, "NOT_GRANTED");
    }
    update(&office, &["max_deliveries"]).await.unwrap();
    root.grant("office", Operation::Publish, "dead").await;
    until("it is granted", async || update(&office, &["dead_letter_topic"]).await.is_ok()).await;
    // Nobody can publish what passes for a dead letter.
    let refused = office.register_producer("dead", "trunkline.dead-letters", false).await;
    assert_refused(refused, Code::PermissionDenied, "NOT_OWNER");
}

#[tokio::test]
async fn what_is_being_moved_is_not_lost_when_the_broker_stops() {
    let (broker, mut worker) = with_dead_letters(40, to("dead")).await;
    let work = worker.receive_all(40).await;
    let verdict = |index: usize| match index % 2 {
        0 => reject("no order"),
        _ => Verdict::Acknowledge(proto::Acknowledge {}),
    };
    let settlements = work.iter().enumerate().map(|(index, work)| proto::Settlement {
        delivery: work.delivery,
        offsets: vec![work.offset],
        verdict: Some(verdict(index)),
        ..Default::default()
    });
    let request = worker.request(settlements.collect());
    let database = broker.database.clone();
    let settling = tokio::spawn(async move { worker.service().settle(request).await.map(drop) });
    broker.stop().await;
    // Whether it was made or not.
    let _ = soon("the call ends", settling).await.unwrap();
    let broker = TestBroker::start_on(database).await;
    let mut worker = TestWorker::at(&broker.client, "jobs", "pool");
    loop {
        let again = worker.receive_now(40).await;
        if again.is_empty() {
            break;
        }
        let (rejected, done): (Vec<Work>, Vec<Work>) =
            again.into_iter().partition(|work| work.offset % 2 == 0);
        worker.settle(&rejected, reject("no order")).await;
        if !done.is_empty() {
            worker.acknowledge(&done).await;
        }
    }
    let mut letters: Vec<i64> =
        read(&broker, "dead").await.iter().map(|it| said(it, "offset").parse().unwrap()).collect();
    letters.sort_unstable();
    assert!(letters.into_iter().eq((0..40).step_by(2)), "each is moved once");
}
