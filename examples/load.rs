//! A small load for a running broker, to see what it can do on this machine:
//!
//! ```text
//! cargo run --release --example load -- KIND [ENDPOINT]
//! ```
//!
//! KIND is publish-stream, publish-own, publish-counted, publish-one, unary, unary-own,
//! unary-counted, catch-up, latency or idle. In the own ones each stream or caller is a producer of
//! its own, in the counted ones it gives sequences, too; publish-one is one stream that counts.
//!
//! The client library does the same as producer (one of them, a message at a time), producers
//! (eight), publish-calls (thousands of tasks that wait for each message) and consumer.
//!
//! Each kind makes a topic of its own, sends a bounded number of log lines of 100 bytes, and
//! prints one line. Client, broker and database share the machine.

use std::{
    collections::VecDeque,
    error::Error,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use trunkline::{
    client::{Client, Commit, Start, Stop},
    proto::{
        CommitMode, ConsumeRequest, CreateTopicRequest, NewMessage, PublishRequest,
        PublishStreamRequest, RegisterConsumerRequest, RegisterProducerRequest,
        consume_response::Event, publish_stream_response::Result as Answer,
    },
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const PRODUCER: &str = "load";
const STREAMS: u64 = 8;
const REQUESTS_PER_STREAM: u64 = 500;
const LINES_PER_REQUEST: u64 = 1_000;
const UNARY_IN_FLIGHT: u64 = 256;
const UNARY_REQUESTS: u64 = 100_000;
const LATENCY_MESSAGES: u32 = 500;
const IDLE_STREAMS: usize = 1_000;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_default();
    let endpoint = arguments.next().unwrap_or_else(|| "http://127.0.0.1:50051".to_owned());
    match kind.as_str() {
        "publish-stream" | "publish-own" | "publish-counted" | "publish-one" => {
            publish_stream(&endpoint, &kind).await.map(|_| ())
        }
        "unary" | "unary-own" | "unary-counted" => unary(&endpoint, &kind).await,
        "producer" => producer(&endpoint, &kind, 1).await,
        "producers" => producer(&endpoint, &kind, STREAMS).await,
        "publish-calls" => publish_calls(&endpoint).await,
        "consumer" => consumer(&endpoint).await,
        "catch-up" => catch_up(&endpoint).await,
        "latency" => latency(&endpoint).await,
        "idle" => idle(&endpoint).await,
        _ => Err("say a kind; the head of examples/load.rs lists them".into()),
    }
}

/// A line like those of a log, so that compression finds what it would find in real life.
fn line(number: u64) -> Bytes {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let line = format!(
        "2026-11-24T12:00:{:02}.{:06}Z INFO api request id={mixed:016x} path=/orders/{} status=200 took={}us",
        number / 1_000_000 % 60,
        number % 1_000_000,
        mixed % 100_003,
        mixed >> 52,
    );
    let mut line = line.into_bytes();
    line.resize(100, b'.');
    line.into()
}

async fn new_topic(client: &Client, kind: &str) -> Outcome<String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
    let topic = format!("load-{kind}-{now}");
    let create = CreateTopicRequest { topic: topic.clone(), ..Default::default() };
    client.topics().create_topic(create).await?;
    new_producer(client, &topic, PRODUCER).await?;
    Ok(topic)
}

async fn new_producer(client: &Client, topic: &str, id: &str) -> Outcome<()> {
    let (topic, producer_id) = (topic.to_owned(), id.to_owned());
    let producer = RegisterProducerRequest { topic, producer_id, ..Default::default() };
    client.producers().register_producer(producer).await?;
    Ok(())
}

/// The producers of so many streams or callers.
async fn producers(client: &Client, topic: &str, count: u64, kind: &str) -> Outcome<Vec<String>> {
    let mut producers = Vec::new();
    for number in 0..count {
        if kind.ends_with("own") || kind.ends_with("counted") {
            producers.push(format!("{PRODUCER}-{number}"));
            new_producer(client, topic, &producers[number as usize]).await?;
        } else {
            producers.push(PRODUCER.to_owned());
        }
    }
    Ok(producers)
}

async fn new_consumer(client: &Client, topic: &str, id: &str) -> Outcome<()> {
    let (topic, consumer_id) = (topic.to_owned(), id.to_owned());
    let consumer = RegisterConsumerRequest { topic, consumer_id, start: None };
    client.consumers().register_consumer(consumer).await?;
    Ok(())
}

async fn publish_stream(endpoint: &str, kind: &str) -> Outcome<String> {
    let client = Client::connect(endpoint).await?;
    let topic = new_topic(&client, "stream").await?;
    let count = if kind == "publish-one" { 1 } else { STREAMS };
    let producers = producers(&client, &topic, count, kind).await?;
    let began = Instant::now();
    let mut streams = JoinSet::new();
    for (stream, producer) in (0..count).zip(producers) {
        let client = Client::connect(endpoint).await?;
        streams.spawn(one_stream(
            client,
            topic.clone(),
            producer,
            stream,
            kind.ends_with("counted") || kind.ends_with("one"),
        ));
    }
    while let Some(ended) = streams.join_next().await {
        ended??;
    }
    let messages = count * REQUESTS_PER_STREAM * LINES_PER_REQUEST;
    report(kind, messages, "messages", began.elapsed());
    Ok(topic)
}

async fn one_stream(
    client: Client,
    topic: String,
    producer: String,
    stream: u64,
    counted: bool,
) -> Outcome<()> {
    let (requests, outgoing) = mpsc::channel(8);
    let sending = tokio::spawn(async move {
        for request in 0..REQUESTS_PER_STREAM {
            let first = (stream * REQUESTS_PER_STREAM + request) * LINES_PER_REQUEST;
            let messages = (first..first + LINES_PER_REQUEST)
                .map(|number| NewMessage { payload: line(number), ..Default::default() })
                .collect();
            let request = PublishStreamRequest {
                topic: topic.clone(),
                producer_id: producer.clone(),
                messages,
                sequence: counted.then_some((request * LINES_PER_REQUEST) as i64),
                ..Default::default()
            };
            if requests.send(request).await.is_err() {
                return;
            }
        }
    });
    let mut producers = client.producers();
    let mut answers = producers.publish_stream(ReceiverStream::new(outgoing)).await?.into_inner();
    let mut receipts = 0;
    while let Some(answer) = answers.message().await? {
        match answer.result {
            Some(Answer::Receipt(_)) => receipts += 1,
            other => return Err(format!("refused: {other:?}").into()),
        }
    }
    sending.await?;
    if receipts == REQUESTS_PER_STREAM { Ok(()) } else { Err("answers are missing".into()) }
}

async fn unary(endpoint: &str, kind: &str) -> Outcome<()> {
    let client = Client::connect(endpoint).await?;
    let topic: Arc<str> = new_topic(&client, "unary").await?.into();
    let ids = producers(&client, &topic, UNARY_IN_FLIGHT, kind).await?;
    let began = Instant::now();
    let counted = kind.ends_with("counted");
    let mut callers = JoinSet::new();
    for (caller, id) in (0..UNARY_IN_FLIGHT).zip(ids) {
        let mut producers = client.producers();
        let topic = topic.clone();
        callers.spawn(async move {
            let numbers = (caller..UNARY_REQUESTS).step_by(UNARY_IN_FLIGHT as usize);
            for (sequence, number) in (0..).zip(numbers) {
                let request = PublishRequest {
                    topic: topic.to_string(),
                    producer_id: id.clone(),
                    messages: vec![NewMessage { payload: line(number), ..Default::default() }],
                    sequence: counted.then_some(sequence),
                    ..Default::default()
                };
                producers.publish(request).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    report(kind, UNARY_REQUESTS, "requests", began.elapsed());
    Ok(())
}

/// The client library, a message at a time.
async fn producer(endpoint: &str, kind: &str, count: u64) -> Outcome<()> {
    let client = Client::connect(endpoint).await?;
    let topic = new_topic(&client, kind).await?;
    let messages = REQUESTS_PER_STREAM * LINES_PER_REQUEST * if count == 1 { 4 } else { 1 };
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let producer = client.producer(&topic, &format!("p-{number}")).register().open().await?;
        tasks.spawn(async move {
            let mut sent = VecDeque::new();
            for line_number in number * messages..(number + 1) * messages {
                sent.push_back(producer.send(line(line_number)).await?);
                while let Some(Some(stored)) = sent.front().map(|first| first.try_offset()) {
                    stored?;
                    sent.pop_front();
                }
            }
            producer.close().await?;
            Outcome::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    report(kind, messages * count, "messages", began.elapsed());
    Ok(())
}

/// The client library, with many tasks that each wait for one message after the other.
async fn publish_calls(endpoint: &str) -> Outcome<()> {
    const TASKS: u64 = 20_000;
    const CALLS: u64 = 50;
    let client = Client::connect(endpoint).await?;
    let topic = new_topic(&client, "calls").await?;
    let producer = Arc::new(client.producer(&topic, "p").register().open().await?);
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let producer = producer.clone();
        tasks.spawn(async move {
            for call in 0..CALLS {
                producer.publish(line(task * CALLS + call)).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    report("publish-calls", TASKS * CALLS, "messages", began.elapsed());
    Ok(())
}

/// The client library, catching up as a stream of messages.
async fn consumer(endpoint: &str) -> Outcome<()> {
    let topic = publish_stream(endpoint, "publish-stream").await?;
    let client = Client::connect(endpoint).await?;
    for commit in [Commit::Auto, Commit::Manual, Commit::AtMostOnce] {
        let id = format!("{commit:?}");
        let began = Instant::now();
        let mut consumer = client
            .consumer(&topic, &id, commit)
            .register_at(Start::Earliest)
            .stop(Stop::CaughtUp)
            .open()
            .await?;
        let mut messages = 0;
        while let Some(message) = consumer.next().await {
            let message = message?;
            if commit == Commit::Manual {
                consumer.commit(&message);
            }
            messages += 1;
        }
        consumer.close().await?;
        report(&format!("consumer {id}"), messages, "messages", began.elapsed());
    }
    Ok(())
}

async fn catch_up(endpoint: &str) -> Outcome<()> {
    let topic = publish_stream(endpoint, "publish-stream").await?;
    let client = Client::connect(endpoint).await?;
    for mode in [CommitMode::Auto, CommitMode::Manual] {
        let id = mode.as_str_name();
        new_consumer(&client, &topic, id).await?;
        let began = Instant::now();
        let messages = read_to_end(&client, &topic, id, mode).await?;
        report(&format!("catch-up {id}"), messages, "messages", began.elapsed());
    }
    Ok(())
}

async fn read_to_end(client: &Client, topic: &str, id: &str, mode: CommitMode) -> Outcome<u64> {
    let request = ConsumeRequest {
        topic: topic.to_owned(),
        consumer_id: id.to_owned(),
        commit_mode: mode.into(),
        ..Default::default()
    };
    let mut consumers = client.consumers().max_decoding_message_size(4 * 1024 * 1024);
    let mut stream = consumers.consume(request).await?.into_inner();
    let mut messages = 0;
    while let Some(frame) = stream.message().await? {
        match frame.event {
            Some(Event::Batch(batch)) => messages += batch.messages.len() as u64,
            Some(Event::CaughtUp(_)) => break,
            _ => {}
        }
    }
    Ok(messages)
}

async fn latency(endpoint: &str) -> Outcome<()> {
    let client = Client::connect(endpoint).await?;
    let topic = new_topic(&client, "latency").await?;
    new_consumer(&client, &topic, "latency").await?;
    let request = ConsumeRequest {
        topic: topic.clone(),
        consumer_id: "latency".to_owned(),
        ..Default::default()
    };
    let mut stream = client.consumers().consume(request).await?.into_inner();
    let mut producers = client.producers();
    let mut took = Vec::new();
    for number in 0..LATENCY_MESSAGES {
        let messages = vec![NewMessage { payload: line(number.into()), ..Default::default() }];
        let (topic, producer_id) = (topic.clone(), PRODUCER.to_owned());
        let began = Instant::now();
        let publish = producers.publish(PublishRequest {
            topic,
            producer_id,
            messages,
            ..Default::default()
        });
        let deliver = async {
            while let Some(frame) = stream.message().await? {
                if matches!(frame.event, Some(Event::Batch(_))) {
                    return Ok(began.elapsed());
                }
            }
            Err("the stream ended".into())
        };
        let (published, delivered) = tokio::join!(publish, deliver);
        published?;
        let delivered: Outcome<Duration> = delivered;
        took.push(delivered?);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!(
        "latency, publish to delivery, idle: p50 {:?}, p90 {:?}, p99 {:?}",
        at(50),
        at(90),
        at(99)
    );
    Ok(())
}

async fn idle(endpoint: &str) -> Outcome<()> {
    let client = Client::connect(endpoint).await?;
    let topic = new_topic(&client, "idle").await?;
    let mut streams = Vec::new();
    for number in 0..IDLE_STREAMS {
        let id = format!("idle-{number}");
        new_consumer(&client, &topic, &id).await?;
        let (topic, consumer_id) = (topic.clone(), id);
        let request = ConsumeRequest { topic, consumer_id, ..Default::default() };
        let mut stream = client.consumers().consume(request).await?.into_inner();
        while let Some(frame) = stream.message().await? {
            if matches!(frame.event, Some(Event::CaughtUp(_))) {
                break;
            }
        }
        streams.push(stream);
    }
    println!("{} streams are idle for 10 s; count the database's sessions now", streams.len());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (messages, producer_id) =
        (vec![NewMessage { payload: line(0), ..Default::default() }], PRODUCER.to_owned());
    let began = Instant::now();
    client
        .producers()
        .publish(PublishRequest { topic, producer_id, messages, ..Default::default() })
        .await?;
    for stream in &mut streams {
        while let Some(frame) = stream.message().await? {
            if matches!(frame.event, Some(Event::Batch(_))) {
                break;
            }
        }
    }
    println!("one message reached all {} streams in {:?}", streams.len(), began.elapsed());
    Ok(())
}

fn report(kind: &str, count: u64, what: &str, took: Duration) {
    let rate = count as f64 / took.as_secs_f64();
    println!("{kind}: {count} {what} in {:.2} s, {rate:.0}/s", took.as_secs_f64());
}
