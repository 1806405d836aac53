//! The client library against a real broker.

use std::{collections::HashSet, time::Duration};

use tokio_stream::StreamExt as _;
use tonic::Code;
use trunkline::{
    client::{Client, Commit, Error, Event, Start, Stop},
    proto::{NewMessage, seek_request::Target},
};

use crate::support::{
    TestBroker,
    library_consumer::{next, next_event},
    soon, until,
};

/// A client with the endpoints of both brokers.
async fn client_of(first: &TestBroker, second: &TestBroker) -> Client {
    Client::connect(&format!("{},{}", first.endpoint, second.endpoint)).await.unwrap()
}

#[tokio::test]
async fn published_messages_are_consumed_unchanged() {
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
    let first = next(&mut consumer).await;
    assert_eq!((first.offset, &first.payload[..]), (0, "grüße".as_bytes()));
    assert_eq!(first.key.as_deref(), Some("schlüssel".as_bytes()));
    assert_eq!((first.headers["name"].as_str(), &*first.producer_id), ("wert", "shop"));
    assert!(first.publish_time.elapsed().unwrap() < Duration::from_secs(60));
    let second = next(&mut consumer).await;
    assert!(second.payload == large);
    consumer.commit(&second);
    assert!(soon("the end", consumer.next()).await.is_none());
    soon("the close", consumer.close()).await.unwrap();
    assert_eq!(broker.position("orders", "billing").await, 2);
}

#[tokio::test]
async fn missing_topics_producers_and_consumers_are_reported() {
    let broker = TestBroker::start().await;
    let client = &broker.client;
    let refused = |error: Error| (error.code(), error.reason().unwrap_or_default().to_owned());
    let no_topic = client.producer("nope", "shop").register().open().await.unwrap_err();
    assert_eq!(refused(no_topic), (Some(Code::NotFound), "TOPIC_NOT_FOUND".to_owned()));
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
    // Deleting a topic ends its producers.
    let producer = client.producer("orders", "shop").register().open().await.unwrap();
    soon("an offset", producer.publish("a")).await.unwrap();
    broker.delete_topic("orders").await;
    let error = soon("the error", producer.publish("b")).await.unwrap_err();
    assert_eq!(refused(error), (Some(Code::NotFound), "TOPIC_NOT_FOUND".to_owned()));
}

#[tokio::test]
async fn a_newer_instance_of_a_producer_fences_the_older_one() {
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
async fn every_message_is_stored_once_although_sessions_and_brokers_are_lost() {
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
            // Requests in flight fail with their session.
            second.end_sessions("trunkline writer").await;
        }
        if number == MESSAGES / 2 {
            soon("the first broker stops", first.take().unwrap().stop()).await;
        }
    }
    soon("all messages are stored", producer.close()).await.unwrap();
    let mut offsets = HashSet::new();
    for (number, sent) in sent.iter().enumerate() {
        let offset = sent.try_offset().unwrap().unwrap();
        assert!(offsets.insert(offset), "message {number} has the offset of another one");
    }
    let sql = second.sql().await;
    let rows = "select convert_from(payload, 'utf8') from trunkline.message order by \"offset\"";
    let stored: Vec<String> =
        sql.query(rows, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let expected: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    assert!(stored == expected, "{} stored, or not in order", stored.len());
}

#[tokio::test]
async fn a_consumer_continues_on_another_broker_without_a_gap() {
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
            let message = next(&mut consumer).await;
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
async fn at_most_once_never_repeats_a_message() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let payloads: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    broker.try_publish("orders", "producer", payloads).await.unwrap();
    let open = || {
        let consumer = broker.client.consumer("orders", "billing", Commit::AtMostOnce);
        consumer.register_at(Start::Earliest).stop(Stop::Messages(100)).open()
    };
    let mut next_expected = 0;
    for _ in 0..3 {
        let mut consumer = open().await.unwrap();
        for _ in 0..50 {
            let offset = next(&mut consumer).await.offset;
            assert!(offset >= next_expected, "{offset} came again");
            next_expected = offset + 1;
        }
        // Dropped without closing: messages in flight do not come again.
        drop(consumer);
    }
}

#[tokio::test]
async fn a_consumer_reports_standby_take_over_and_seek() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    let builder =
        |name: &str| broker.client.consumer("orders", "billing", Commit::Manual).client_name(name);
    let mut first = builder("first").open().await.unwrap();
    assert_eq!(next_event(&mut first).await, Event::Attached { position: 0 });
    let mut second = builder("second").open().await.unwrap();
    assert_eq!(next_event(&mut second).await, Event::Standby { holder: "first".to_owned() });
    let mut third = builder("third").take_over().open().await.unwrap();
    loop {
        // It may be on standby until the first consumer has released the lease.
        match next_event(&mut third).await {
            Event::Standby { .. } => {}
            other => break assert_eq!(other, Event::Attached { position: 0 }),
        }
    }
    // The consumer that lost the lease waits for it again.
    loop {
        match next_event(&mut first).await {
            Event::Broken(error) => {
                assert_eq!(error.reason(), Some("LEASE_TAKEN_OVER"));
                break;
            }
            Event::Messages(_) | Event::CaughtUp => {}
            other => panic!("{other:?}"),
        }
    }
    drop(second);
    let Event::Messages(messages) = next_event(&mut third).await else {
        panic!("messages expected")
    };
    let last = messages.last().unwrap();
    assert_eq!(last.offset, 2);
    third.commit(last);
    until("the commit is stored", async || broker.position("orders", "billing").await == 3).await;
    broker.seek("orders", "billing", Target::Offset(1)).await.unwrap();
    loop {
        match next_event(&mut third).await {
            Event::CaughtUp => {}
            other => break assert_eq!(other, Event::Repositioned { position: 1 }),
        }
    }
    third.commit(last);
    assert_eq!(next(&mut third).await.offset, 1);
    assert_eq!(
        broker.position("orders", "billing").await,
        1,
        "messages from before the seek cannot be committed"
    );
    soon("the close", third.close()).await.unwrap();
    // The first consumer gets the lease next, at the position of the seek.
    loop {
        match next_event(&mut first).await {
            Event::Attached { position } => break assert_eq!(position, 1),
            Event::Standby { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(next(&mut first).await.offset, 1);
}

#[tokio::test]
async fn a_seek_takes_effect_while_the_stream_is_broken() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    let consumer = broker.client.consumer("orders", "billing", Commit::Manual);
    let mut consumer = consumer.register_at(Start::Earliest).open().await.unwrap();
    for offset in 0..3 {
        assert_eq!(next(&mut consumer).await.offset, offset);
    }
    // Nothing is committed, and the seek goes to the current position while the stream is broken.
    broker.end_sessions("trunkline lease").await;
    broker.seek("orders", "billing", Target::Offset(0)).await.unwrap();
    for offset in 0..3 {
        assert_eq!(next(&mut consumer).await.offset, offset);
    }
}

#[tokio::test]
async fn many_tasks_can_share_one_producer() {
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
async fn two_consumers_with_stop_conditions_share_the_messages_and_repeat_none() {
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
    assert_eq!(next_event(&mut first).await, Event::Attached { position: 0 });
    let mut second = open().await.unwrap();
    assert!(matches!(next_event(&mut second).await, Event::Standby { .. }));
    let mut last = None;
    while let Some(message) = soon("the end", first.next()).await {
        last = Some(message.unwrap());
    }
    // The second consumer waits until the first has committed.
    let last = last.unwrap();
    assert_eq!(last.offset, 4);
    first.commit(&last);
    soon("the close", first.close()).await.unwrap();
    for offset in 5..10 {
        let message = next(&mut second).await;
        assert_eq!(message.offset, offset);
        second.commit(&message);
    }
    assert!(soon("the end", second.next()).await.is_none());
    soon("the close", second.close()).await.unwrap();
    assert_eq!(broker.position("orders", "billing").await, 10);
}

#[tokio::test]
async fn no_more_messages_than_the_limit_are_in_flight() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.publish("orders", ["a", "b", "c", "d", "e"]).await;
    let consumer = broker.client.consumer("orders", "billing", Commit::Manual);
    let consumer = consumer.register_at(Start::Earliest).max_in_flight(2).open().await;
    let mut consumer = consumer.unwrap();
    let mut received = Vec::new();
    for offset in 0..2 {
        let message = next(&mut consumer).await;
        assert_eq!(message.offset, offset);
        received.push(message);
    }
    let third = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await;
    assert!(third.is_err(), "two are not committed");
    consumer.commit(&received[0]);
    assert_eq!(next(&mut consumer).await.offset, 2);
    assert_eq!(broker.position("orders", "billing").await, 1);
}

#[tokio::test]
async fn calls_fail_over_to_the_broker_that_is_left() {
    let first = TestBroker::start().await;
    let second = first.start_another().await;
    let client = client_of(&first, &second).await;
    client.ensure_topic("orders").await.unwrap();
    soon("the first broker stops", first.stop()).await;
    let producer = client.producer("orders", "shop").register();
    let producer = soon("the producer opens", producer.open()).await.unwrap();
    assert_eq!(soon("an offset", producer.publish("a")).await, Ok(0));
    client.ensure_topic("more").await.unwrap();
}

/// The library's futures must be `Send`.
#[tokio::test]
async fn producers_and_consumers_work_in_spawned_tasks() {
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
