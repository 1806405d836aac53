//! A transaction that holds rows of a topic for long delays only calls that need these rows.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use trunkline::{
    client::Client,
    proto::{self, consume_response::Event, seek_request::Target},
};

use crate::{
    run::{Run, Setup, register},
    support::{print_always, soon},
};

/// The longest that calls which need none of the held rows may take, as the short attempts of others
/// may delay them. Rows are held for longer.
const BOUND: Duration = Duration::from_secs(2);

/// How long rows are held.
const HELD_FOR: Duration = Duration::from_secs(3);

/// The topics of this test. Rows of the first one are held, as are those of the workload's busiest
/// topic.
const HELD: &str = "held";
const FREE: &str = "free";

/// Promise 8: no client waits for another topic, nor for another consumer of the same topic.
#[tokio::test(flavor = "multi_thread")]
async fn held_rows_delay_only_calls_that_need_them() {
    let run = Run::start("rows-held", Setup::default()).await;
    run.work_until_stored(500).await;
    let client = run.client(0).await;
    for topic in [HELD, FREE] {
        let request = proto::CreateTopicRequest { topic: topic.to_owned(), ..Default::default() };
        client.topics().create_topic(request).await.unwrap();
        register(&client, topic, "beside").await;
    }
    let consumers =
        [(HELD, "held"), (HELD, "free-0"), (HELD, "free-1"), (FREE, "free-0"), (FREE, "free-1")];
    for (topic, consumer) in consumers {
        let (topic, consumer_id) = (topic.to_owned(), consumer.to_owned());
        let request = proto::RegisterConsumerRequest { topic, consumer_id, ..Default::default() };
        client.consumers().register_consumer(request).await.unwrap();
    }
    let topics = "in (select id from trunkline.topic where name in ('hot', 'held'))";
    let held = [
        ("heads", format!("trunkline.topic_head where topic_id {topics}"), FREE),
        ("topics", format!("trunkline.topic where id {topics}"), FREE),
        ("registered producers", format!("trunkline.producer_topic where topic_id {topics}"), FREE),
        (
            "consumers",
            format!(
                "trunkline.consumer_topic
                where topic_id {topics} and consumer_id in ('manual', 'auto', 'held')"
            ),
            HELD,
        ),
    ];
    for (what, rows, free) in held {
        let mut sql = run.sql().await;
        let transaction = sql.transaction().await.unwrap();
        let hold = format!("select 1 from {rows} for update");
        assert!(!transaction.query(&hold, &[]).await.unwrap().is_empty(), "there are no {what}");
        let fault = format!("a transaction holds {what}");
        run.fault(&fault, true);
        let mut calling = call_for_held_rows(&run).await;
        let (first, second) = (run.client(0).await, run.client(1).await);
        tokio::join!(
            assert_not_delayed(&first, (free, "free-0"), what),
            assert_not_delayed(&second, (free, "free-1"), what),
        );
        calling.shutdown().await;
        transaction.rollback().await.unwrap();
        run.fault(&fault, false);
        run.work_until_stored(300).await;
    }
    for topic in [HELD, FREE] {
        let request = proto::DeleteTopicRequest { topic: topic.to_owned() };
        client.topics().delete_topic(request).await.unwrap();
    }
    run.finish().await;
}

/// Clients of each broker that need held rows, more than the broker has sessions.
async fn call_for_held_rows(run: &Run) -> JoinSet<()> {
    let mut calling = JoinSet::new();
    for broker in 0..run.brokers.len() {
        let client = run.client(broker).await;
        for number in 0..12 {
            let client = client.clone();
            calling.spawn(async move {
                loop {
                    call_for_row(&client, number).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
    }
    calling
}

/// Makes a call that needs a row that may be held. Other tests check the outcome.
async fn call_for_row(client: &Client, number: usize) {
    let (topic, consumer_id) = (HELD.to_owned(), "held".to_owned());
    match number % 4 {
        0 | 1 => {
            let target = Some(Target::Offset(0));
            let seek = proto::SeekRequest { topic, consumer_id, target };
            drop(client.consumers().seek(seek).await);
        }
        2 => {
            let producer_id = "fenced".to_owned();
            let fence = proto::RegisterProducerRequest {
                topic,
                producer_id,
                fence: true,
                ..Default::default()
            };
            drop(client.producers().register_producer(fence).await);
        }
        _ => {
            let on_busy = proto::OnBusy::TakeOver.into();
            let request =
                proto::ConsumeRequest { topic, consumer_id, on_busy, ..Default::default() };
            if let Ok(stream) = client.consumers().consume(request).await {
                let mut stream = stream.into_inner();
                while let Ok(Some(_)) = stream.message().await {}
            }
        }
    }
}

/// Publishes, consumes, describes and registers, and asserts that no call takes too long.
async fn assert_not_delayed(client: &Client, (topic, consumer): (&str, &str), held: &str) {
    let request = proto::ConsumeRequest {
        topic: topic.to_owned(),
        consumer_id: consumer.to_owned(),
        ..Default::default()
    };
    let since = Instant::now();
    let mut stream = client.consumers().consume(request).await.unwrap().into_inner();
    let mut slowest = (Duration::ZERO, "");
    while !matches!(
        soon("a frame", stream.message()).await.unwrap().and_then(|frame| frame.event),
        Some(Event::Attached(_))
    ) {}
    let mut took = |what, since: Instant| slowest = slowest.max((since.elapsed(), what));
    took("attach", since);
    let start = Instant::now();
    while start.elapsed() < HELD_FOR {
        let since = Instant::now();
        let publish = proto::PublishRequest {
            topic: topic.to_owned(),
            producer_id: "beside".to_owned(),
            messages: vec![proto::NewMessage { payload: "beside".into(), ..Default::default() }],
            ..Default::default()
        };
        let published = soon("a publish", client.producers().publish(publish)).await;
        let offset = published.unwrap().into_inner().first_offset;
        took("publish", since);
        // The message is delivered once its position is stored.
        let since = Instant::now();
        loop {
            let frame = soon("a frame", stream.message()).await.unwrap().unwrap();
            if let Some(Event::Batch(batch)) = frame.event
                && batch.messages.iter().any(|message| message.offset >= offset)
            {
                break;
            }
        }
        took("consume", since);
        let since = Instant::now();
        let get = proto::GetTopicRequest { topic: topic.to_owned() };
        soon("a topic", client.topics().get_topic(get)).await.unwrap();
        took("describe", since);
        let since = Instant::now();
        let consumer_id = format!("{consumer}-{offset}");
        let register = proto::RegisterConsumerRequest {
            topic: topic.to_owned(),
            consumer_id,
            ..Default::default()
        };
        soon("a consumer", client.consumers().register_consumer(register)).await.unwrap();
        took("register", since);
    }
    assert!(slowest.0 < BOUND, "while {held} are held: {slowest:?}");
    print_always(&format!("while {held} are held, the slowest call: {slowest:?}"));
}
