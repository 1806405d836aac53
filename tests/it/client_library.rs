//! The client library against a real broker.

use std::{collections::HashSet, time::Duration};

use tokio_stream::StreamExt as _;
use tonic::Code;
use trunkline::{
    client::{Client, Commit, Consumer, Error, Event, Start, Stop},
    proto::{NewMessage, seek_request::Target},
};

use crate::support::{TestBroker, soon, until};

/// A client that knows both brokers.
async fn client_of(first: &TestBroker, second: &TestBroker) -> Client {
    Client::connect(&format!("{},{}", first.endpoint, second.endpoint)).await.unwrap()
}

async fn next_offset(consumer: &mut Consumer) -> i64 {
    soon("a message", consumer.next()).await.unwrap().unwrap().offset
}

async fn event(consumer: &mut Consumer) -> Event {
    soon("an event", consumer.next_event()).await.unwrap().unwrap()
}

#[tokio::test]
async fn what_is_published_is_consumed_as_it_was() {
    let broker = TestBroker::start().await;
    let client = &broker.client;
    client.ensure_topic("orders").await.unwrap();
    client.ensure_topic("orders").await.unwrap();
    let producer = client.producer("orders", "shop").register().open().await.unwrap();
    let large = vec![0xff; 1024 * 1024];
    let first = NewMessage::new("grüße").with_key("schlüssel").with_header("name", "wert");
    assert_eq!(soon("an offset", producer.publish(first)).await, Ok(0));
    assert_eq!(soon("an offset", producer.publish(large.clone())).await, Ok(1));
    producer.close().await.unwrap();
    let mut consumer = client
        .consumer("orders", "billing", Commit::Manual)
        .register_at(Start::Earliest)
        .stop(Stop::CaughtUp)
        .open()
        .await
        .unwrap();
    let first = soon("a message", consumer.next()).await.unwrap().unwrap();
    assert_eq!((first.offset, &first.payload[..]), (0, "grüße".as_bytes()));
    assert_eq!(first.key.as_deref(), Some("schlüssel".as_bytes()));
    assert_eq!((first.headers["name"].as_str(), &*first.producer_id), ("wert", "shop"));
    assert!(first.publish_time.elapsed().unwrap() < Duration::from_secs(60));
    let second = soon("a message", consumer.next()).await.unwrap().unwrap();
    assert!(second.payload == large);
    consumer.commit(&second);
    assert!(soon("the end", consumer.next()).await.is_none());
    soon("the close", consumer.close()).await.unwrap();
    assert_eq!(broker.position("orders", "billing").await, 2);
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    let broker = TestBroker::start().await;
    let client = &broker.client;
    let refused = |error: Error| (error.code(), error.reason().unwrap_or_default().to_owned());
    let nowhere = client.producer("nope", "shop").register().open().await.unwrap_err();
    assert_eq!(refused(nowhere), (Some(Code::NotFound), "TOPIC_NOT_FOUND".to_owned()));
    broker.topic("orders").await;
    let stranger = client.producer("orders", "stranger").open().await.unwrap_err();
    assert_eq!(refused(stranger), (Some(Code::NotFound), "PRODUCER_NOT_FOUND".to_owned()));
    let nobody = client.consumer("orders", "nobody", Commit::Auto).open().await;
    let error = soon("the error", nobody.unwrap().next()).await.unwrap().unwrap_err();
    assert_eq!(refused(error), (Some(Code::NotFound), "CONSUMER_NOT_FOUND".to_owned()));
    let late = client.consumer("orders", "late", Commit::Auto).register_at(Start::Offset(9));
    let error = late.open().await.unwrap_err();
    assert_eq!(refused(error), (Some(Code::OutOfRange), "OFFSET_OUT_OF_RANGE".to_owned()));
    let bad = client.ensure_topic("a b").await.unwrap_err();
    assert_eq!(refused(bad), (Some(Code::InvalidArgument), "INVALID_FIELD".to_owned()));
    // A topic that is deleted ends those who are at it.
    let producer = client.producer("orders", "shop").register().open().await.unwrap();
    soon("an offset", producer.publish("a")).await.unwrap();
    broker.delete_topic("orders").await;
    let error = soon("the error", producer.publish("b")).await.unwrap_err();
    assert_eq!(refused(error), (Some(Code::NotFound), "TOPIC_NOT_FOUND".to_owned()));
}

#[tokio::test]
async fn a_newer_instance_of_a_producer_shuts_the_older_one_out() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let open = || broker.client.producer("orders", "shop").register().open();
    let old = open().await.unwrap();
    assert_eq!(soon("an offset", old.publish("a")).await, Ok(0));
    let new = open().await.unwrap();
    assert_eq!(new.first_sequence(), 1);
    let error = soon("the error", old.publish("b")).await.unwrap_err();
    assert_eq!(error.reason(), Some("PRODUCER_FENCED"));
    assert_eq!(soon("an offset", new.publish("c")).await, Ok(1));
    assert_eq!(broker.stored().await, 2);
}

#[tokio::test]
async fn everything_is_stored_once_though_sessions_and_brokers_are_lost() {
    const MESSAGES: usize = 3_000;
    let first = TestBroker::start().await;
    let second = first.start_another().await;
    let client = client_of(&first, &second).await;
    client.ensure_topic("orders").await.unwrap();
    let producer = client.producer("orders", "shop").register().max_batch_messages(20);
    let producer = producer.open().await.unwrap();
    let mut sent = Vec::new();
    let mut first = Some(first);
    for number in 0..MESSAGES {
        sent.push(producer.send(number.to_string()).await.unwrap());
        if number % 500 == 250 {
            // What is under way is lost with its session.
            second.end_sessions("trunkline writer").await;
        }
        if number == MESSAGES / 2 {
            soon("the first broker stops", first.take().unwrap().stop()).await;
        }
    }
    soon("all is stored", producer.close()).await.unwrap();
    let mut offsets = HashSet::new();
    for (number, sent) in sent.iter().enumerate() {
        let offset = sent.try_offset().unwrap().unwrap();
        assert!(offsets.insert(offset), "{number} has the offset of another one");
    }
    let sql = second.sql().await;
    let rows = "select convert_from(payload, 'utf8') from trunkline.message order by \"offset\"";
    let stored: Vec<String> =
        sql.query(rows, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let expected: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    assert!(stored == expected, "{} stored, or not in order", stored.len());
}

#[tokio::test]
async fn a_consumer_goes_on_at_another_broker_without_a_gap() {
    const MESSAGES: i64 = 2_000;
    for commit in [Commit::Manual, Commit::Auto] {
        let first = TestBroker::start().await;
        let second = first.start_another().await;
        let client = client_of(&first, &second).await;
        first.topic("orders").await;
        let consumer = client.consumer("orders", "billing", commit).register_at(Start::Earliest);
        let mut consumer = consumer.open().await.unwrap();
        let mut first = Some(first);
        for round in 0..20 {
            let payloads: Vec<String> = (0..100).map(|n| (round * 100 + n).to_string()).collect();
            second.try_publish("orders", "producer", payloads).await.unwrap();
        }
        for expected in 0..MESSAGES {
            let message = soon("a message", consumer.next()).await.unwrap().unwrap();
            assert_eq!(message.offset, expected);
            if commit == Commit::Manual {
                consumer.commit(&message);
            }
            match expected {
                500 => second.end_sessions("trunkline lease").await,
                1_000 => soon("the first broker stops", first.take().unwrap().stop()).await,
                _ => {}
            }
        }
        soon("the close", consumer.close()).await.unwrap();
        assert_eq!(second.position("orders", "billing").await, MESSAGES, "{commit:?}");
    }
}

#[tokio::test]
async fn at_most_once_never_repeats() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let payloads: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    broker.try_publish("orders", "producer", payloads).await.unwrap();
    let open = || {
        let consumer = broker.client.consumer("orders", "billing", Commit::AtMostOnce);
        consumer.register_at(Start::Earliest).stop(Stop::Messages(100)).open()
    };
    let mut seen = 0;
    for _ in 0..3 {
        let mut consumer = open().await.unwrap();
        for _ in 0..50 {
            let offset = next_offset(&mut consumer).await;
            assert!(offset >= seen, "{offset} came again");
            seen = offset + 1;
        }
        // Dropped without a word: what was on its way does not come again.
        drop(consumer);
    }
}

#[tokio::test]
async fn standbys_take_overs_and_seeks_are_told() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    let builder =
        |name: &str| broker.client.consumer("orders", "billing", Commit::Manual).client_name(name);
    let mut first = builder("first").open().await.unwrap();
    assert_eq!(event(&mut first).await, Event::Attached { position: 0 });
    let mut second = builder("second").open().await.unwrap();
    assert_eq!(event(&mut second).await, Event::Standby { holder: "first".to_owned() });
    let mut third = builder("third").take_over().open().await.unwrap();
    loop {
        // It may stand by for a moment, until the first one has let go.
        match event(&mut third).await {
            Event::Standby { .. } => {}
            other => break assert_eq!(other, Event::Attached { position: 0 }),
        }
    }
    // The one that lost it waits for it again.
    loop {
        match event(&mut first).await {
            Event::Broken(error) => {
                assert_eq!(error.reason(), Some("LEASE_TAKEN_OVER"));
                break;
            }
            Event::Messages(_) | Event::CaughtUp => {}
            other => panic!("{other:?}"),
        }
    }
    drop(second);
    let Event::Messages(messages) = event(&mut third).await else { panic!("messages expected") };
    let last = messages.last().unwrap();
    assert_eq!(last.offset, 2);
    third.commit(last);
    until("it is committed", async || broker.position("orders", "billing").await == 3).await;
    broker.seek("orders", "billing", Target::Offset(1)).await.unwrap();
    loop {
        match event(&mut third).await {
            Event::CaughtUp => {}
            other => break assert_eq!(other, Event::Repositioned { position: 1 }),
        }
    }
    third.commit(last);
    assert_eq!(next_offset(&mut third).await, 1);
    assert_eq!(broker.position("orders", "billing").await, 1, "what was before the seek is void");
    soon("the close", third.close()).await.unwrap();
    // Now the first one has it, from the position that was sought.
    loop {
        match event(&mut first).await {
            Event::Attached { position } => break assert_eq!(position, 1),
            Event::Standby { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(next_offset(&mut first).await, 1);
}

#[tokio::test]
async fn a_seek_while_nobody_listens_is_followed() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    let consumer = broker.client.consumer("orders", "billing", Commit::Manual);
    let mut consumer = consumer.register_at(Start::Earliest).open().await.unwrap();
    for offset in 0..3 {
        assert_eq!(next_offset(&mut consumer).await, offset);
    }
    // Nothing is committed; the position is sought to where it is, while the stream is broken.
    broker.end_sessions("trunkline lease").await;
    broker.seek("orders", "billing", Target::Offset(0)).await.unwrap();
    for offset in 0..3 {
        assert_eq!(next_offset(&mut consumer).await, offset);
    }
}

#[tokio::test]
async fn one_producer_is_shared_by_many_tasks() {
    const TASKS: usize = 200;
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let producer = broker.client.producer("orders", "shop").register().open().await.unwrap();
    let producer = std::sync::Arc::new(producer);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..TASKS {
        let producer = producer.clone();
        tasks.spawn(async move { producer.publish(number.to_string()).await });
    }
    let offsets: HashSet<i64> =
        soon("all offsets", tasks.join_all()).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(offsets, (0..TASKS as i64).collect());
}

#[tokio::test]
async fn two_that_end_by_themselves_share_the_work_and_repeat_nothing() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let payloads: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    broker.try_publish("orders", "producer", payloads).await.unwrap();
    let open = || {
        let consumer = broker.client.consumer("orders", "billing", Commit::Manual);
        consumer.stop(Stop::Messages(5)).open()
    };
    let mut first = open().await.unwrap();
    assert_eq!(event(&mut first).await, Event::Attached { position: 0 });
    let mut second = open().await.unwrap();
    assert!(matches!(event(&mut second).await, Event::Standby { .. }));
    let mut last = None;
    while let Some(message) = soon("the end", first.next()).await {
        last = Some(message.unwrap());
    }
    // The other one waits until this one has committed.
    let last = last.unwrap();
    assert_eq!(last.offset, 4);
    first.commit(&last);
    soon("the close", first.close()).await.unwrap();
    for offset in 5..10 {
        let message = soon("a message", second.next()).await.unwrap().unwrap();
        assert_eq!(message.offset, offset);
        second.commit(&message);
    }
    assert!(soon("the end", second.next()).await.is_none());
    soon("the close", second.close()).await.unwrap();
    assert_eq!(broker.position("orders", "billing").await, 10);
}

#[tokio::test]
async fn no_more_is_in_flight_than_was_asked_for() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b", "c", "d", "e"]).await;
    let consumer = broker.client.consumer("orders", "billing", Commit::Manual);
    let consumer = consumer.register_at(Start::Earliest).max_in_flight(2).open().await;
    let mut consumer = consumer.unwrap();
    let mut had = Vec::new();
    for offset in 0..2 {
        let message = soon("a message", consumer.next()).await.unwrap().unwrap();
        assert_eq!(message.offset, offset);
        had.push(message);
    }
    let third = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await;
    assert!(third.is_err(), "two are not committed");
    consumer.commit(&had[0]);
    assert_eq!(next_offset(&mut consumer).await, 2);
    assert_eq!(broker.position("orders", "billing").await, 1);
}

#[tokio::test]
async fn calls_follow_to_the_broker_that_is_there() {
    let first = TestBroker::start().await;
    let second = first.start_another().await;
    let client = client_of(&first, &second).await;
    client.ensure_topic("orders").await.unwrap();
    soon("the first broker stops", first.stop()).await;
    let producer = client.producer("orders", "shop").register();
    let producer = soon("it opens", producer.open()).await.unwrap();
    assert_eq!(soon("an offset", producer.publish("a")).await, Ok(0));
    client.ensure_topic("more").await.unwrap();
}

/// Whoever publishes and consumes in tasks of its own must be able to.
#[tokio::test]
async fn everything_can_be_done_in_a_task_that_is_spawned() {
    let broker = TestBroker::start().await;
    let client = broker.client.clone();
    let task = tokio::spawn(async move {
        client.ensure_topic("orders").await?;
        let producer = client.producer("orders", "shop").register().open().await?;
        let sent = producer.send("a").await?;
        assert_eq!(sent.offset().await?, 0);
        producer.flush().await?;
        producer.close().await?;
        let consumer = client.consumer("orders", "billing", Commit::Auto);
        let consumer = consumer.register_at(Start::Earliest).stop(Stop::Messages(1));
        let mut consumer = consumer.open().await?;
        while let Some(message) = consumer.next().await {
            assert_eq!(message?.offset, 0);
        }
        consumer.close().await
    });
    soon("the task ends", task).await.unwrap().unwrap();
}
