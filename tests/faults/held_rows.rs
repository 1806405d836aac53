//! A transaction holds rows of a topic for long: work that does not need them goes on.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use trunkline::{
    client::Client,
    proto::{self, consume_response::Event, seek_request::Target},
};

use crate::{
    run::{Run, Setup, register},
    support::{say, soon},
};

/// The longest wait for what needs none of the held rows, which others' short tries may delay. Rows
/// are held for longer.
const BOUND: Duration = Duration::from_secs(2);

/// How long rows are held.
const HELD_FOR: Duration = Duration::from_secs(3);

/// Topics of this test. Rows of the first are held, as are those of the workload's busiest topic.
const HELD: &str = "held";
const FREE: &str = "free";

/// Promise 8: nobody waits for somebody else's topic, nor for another consumer of the same topic.
#[tokio::test(flavor = "multi_thread")]
async fn somebody_holds_rows_that_others_need() {
    let run = Run::start("rows-held", Setup::default()).await;
    run.works(500).await;
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
        let request = proto::RegisterConsumerRequest { topic, consumer_id, start: None };
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
    for (what, rows, goes_on) in held {
        let mut sql = run.sql().await;
        let transaction = sql.transaction().await.unwrap();
        let hold = format!("select 1 from {rows} for update");
        assert!(!transaction.query(&hold, &[]).await.unwrap().is_empty(), "{what} are there");
        let fault = format!("a transaction holds {what}");
        run.fault(&fault, true);
        let mut asking = ask_for_what_is_held(&run).await;
        let (first, second) = (run.client(0).await, run.client(1).await);
        tokio::join!(
            goes_on_beside(&first, (goes_on, "free-0"), what),
            goes_on_beside(&second, (goes_on, "free-1"), what),
        );
        asking.shutdown().await;
        transaction.rollback().await.unwrap();
        run.fault(&fault, false);
        run.works(300).await;
    }
    for topic in [HELD, FREE] {
        let request = proto::DeleteTopicRequest { topic: topic.to_owned() };
        client.topics().delete_topic(request).await.unwrap();
    }
    run.finish().await;
}

/// Clients of each broker that need held rows: more of them than the broker has sessions.
async fn ask_for_what_is_held(run: &Run) -> JoinSet<()> {
    let mut asking = JoinSet::new();
    for broker in 0..run.brokers.len() {
        let client = run.client(broker).await;
        for number in 0..12 {
            let client = client.clone();
            asking.spawn(async move {
                loop {
                    ask(&client, number).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
    }
    asking
}

/// Makes a call that needs rows that are, or may be, held. Other tests check the outcome.
async fn ask(client: &Client, number: usize) {
    let (topic, consumer_id) = (HELD.to_owned(), "held".to_owned());
    match number % 4 {
        0 | 1 => {
            let target = Some(Target::Offset(0));
            let seek = proto::SeekRequest { topic, consumer_id, target };
            drop(client.consumers().seek(seek).await);
        }
        2 => {
            let producer_id = "fenced".to_owned();
            let fence = proto::RegisterProducerRequest { topic, producer_id, fence: true };
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

/// Publishes, consumes, describes and registers, and asserts that none of it takes too long.
async fn goes_on_beside(client: &Client, (topic, consumer): (&str, &str), held: &str) {
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
    let began = Instant::now();
    while began.elapsed() < HELD_FOR {
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
        // It comes once its position is stored.
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
        let (consumer_id, start) = (format!("{consumer}-{offset}"), None);
        let register =
            proto::RegisterConsumerRequest { topic: topic.to_owned(), consumer_id, start };
        soon("a consumer", client.consumers().register_consumer(register)).await.unwrap();
        took("register", since);
    }
    assert!(slowest.0 < BOUND, "beside held {held}: {slowest:?}");
    say(&format!("beside held {held}, the slowest: {slowest:?}"));
}
