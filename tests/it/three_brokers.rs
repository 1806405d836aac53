//! The main use with three brokers on one database, one of which is killed midway.
//!
//! Each consumer has two processes on two brokers: one reads, the other is its standby. Each
//! producer uses sequences, and sends the same request to the next broker when its own does not
//! answer.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::task::JoinSet;
use tonic::{Code, Status};
use trunkline::{client::Client, proto};

use crate::support::{
    TestDatabase, Trunkline,
    logs::{LINES, Line, SHIPMENTS, STREAMING, assert_lines, lines_of, log_file, write_log_files},
    message, soon, until,
};

const REQUEST_LINES: usize = 50;

/// The lines that a consumer received, by offset.
type Received = BTreeMap<i64, Line>;

/// Publishes a file through any broker that answers; returns how often it moved to another one.
async fn ship(
    endpoints: Vec<String>,
    first: usize,
    topic: &str,
    program: &str,
    file: &Path,
    acknowledged: &AtomicUsize,
) -> usize {
    let text = fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut broker = first;
    let mut client = None;
    let mut moves = 0;
    for (number, lines) in lines.chunks(REQUEST_LINES).enumerate() {
        let request = proto::PublishRequest {
            topic: topic.to_owned(),
            producer_id: program.to_owned(),
            messages: lines.iter().map(|line| message(line.to_string())).collect(),
            sequence: Some((number * REQUEST_LINES) as i64),
            ..Default::default()
        };
        loop {
            let endpoint = &endpoints[broker % endpoints.len()];
            let published = match &client {
                Some(client) => publish(client, request.clone()).await,
                None => match Client::connect(endpoint).await {
                    Ok(connected) => {
                        let published = publish(&connected, request.clone()).await;
                        client = Some(connected);
                        published
                    }
                    Err(_) => Err(Status::unavailable("no broker there")),
                },
            };
            match published {
                Ok(_) => break,
                // The broker was killed, before or after it stored the request.
                Err(status) => {
                    let gone = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Internal];
                    assert!(gone.contains(&status.code()), "{status:?}");
                    client = None;
                    broker += 1;
                    moves += 1;
                }
            }
        }
        acknowledged.fetch_add(lines.len(), Ordering::Relaxed);
    }
    moves
}

async fn publish(
    client: &Client,
    request: proto::PublishRequest,
) -> Result<proto::PublishResponse, Status> {
    Ok(client.producers().publish(request).await?.into_inner())
}

/// Collects the output of `consume --json`.
async fn read(endpoint: &str, topic: &str, id: &str, received: Arc<Mutex<Received>>) {
    let arguments =
        ["--endpoint", endpoint, "consume", topic, "--consumer", id, "--register", "--json"];
    let mut process = Trunkline::spawn(&arguments);
    let mut next = 0;
    while let Ok(Some(line)) = process.stdout.next_line().await {
        let message: serde_json::Value = serde_json::from_str(&line).unwrap();
        let offset = message["offset"].as_i64().unwrap();
        assert!(offset >= next, "offset {offset} comes after {next} to one process");
        next = offset + 1;
        let text = |name: &str| message[name].as_str().unwrap().to_owned();
        let line = Line { producer: text("producer"), text: text("payload") };
        received.lock().unwrap().insert(offset, line);
    }
}

/// Pulls a number of messages from a broker that is not killed.
async fn pull(endpoint: &str, topic: &str, id: &str, count: usize) -> Received {
    let client = Client::connect(endpoint).await.unwrap();
    let mut received = Received::new();
    while received.len() < count {
        let request = proto::PullRequest {
            topic: topic.to_owned(),
            consumer_id: id.to_owned(),
            max_messages: 300,
            wait: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
        };
        let pulled = client.consumers().pull(request).await.unwrap().into_inner();
        for message in pulled.messages {
            assert_eq!(message.offset, received.len() as i64);
            let text = String::from_utf8(message.payload.to_vec()).unwrap();
            received.insert(message.offset, Line { producer: message.producer_id, text });
        }
    }
    received
}

/// Checks that offsets are dense, and that every line of each file was received once, in order.
fn assert_complete(dir: &Path, topic: &str, received: &Received) {
    assert!(received.keys().copied().eq(0..received.len() as i64), "offsets are dense");
    assert_lines(dir, topic, received.values());
}

#[tokio::test]
async fn three_brokers_deliver_every_line_although_one_is_killed_midway() {
    let dir = tempfile::tempdir().unwrap();
    write_log_files(dir.path());
    let database = TestDatabase::create().await;
    let mut brokers = Vec::new();
    let mut endpoints = Vec::new();
    for _ in 0..3 {
        let serve = ["--listen", "127.0.0.1:0", "--database-url", &database.url];
        let (broker, endpoint) = Trunkline::serve(&serve).await;
        brokers.push(broker);
        endpoints.push(endpoint);
    }
    let client = Client::connect(&endpoints[1]).await.unwrap();
    for topic in ["access", "security", "jobs"] {
        let request = proto::CreateTopicRequest { topic: topic.to_owned(), ..Default::default() };
        client.topics().create_topic(request).await.unwrap();
    }
    for (program, topic) in SHIPMENTS {
        let (topic, producer_id) = (topic.to_owned(), program.to_owned());
        let request = proto::RegisterProducerRequest {
            topic,
            producer_id,
            fence: false,
            ..Default::default()
        };
        client.producers().register_producer(request).await.unwrap();
    }
    let (topic, consumer_id) = ("jobs".to_owned(), "poller".to_owned());
    let poller = proto::RegisterConsumerRequest { topic, consumer_id, ..Default::default() };
    client.consumers().register_consumer(poller).await.unwrap();

    // Each consumer's first process reads; the second one, on another broker, is its standby.
    let mut readers = JoinSet::new();
    let mut all_received = Vec::new();
    for (number, (topic, id)) in STREAMING.into_iter().enumerate() {
        let received = Arc::new(Mutex::new(Received::new()));
        all_received.push((topic, received.clone()));
        for place in [number, number + 1] {
            let (endpoint, received) = (endpoints[place % 3].clone(), received.clone());
            readers.spawn(async move { read(&endpoint, topic, id, received).await });
            until("the first process has the lease", async || {
                let (topic, consumer_id) = (topic.to_owned(), id.to_owned());
                let request = proto::GetConsumerRequest { topic, consumer_id };
                let found = client.consumers().get_consumer(request).await;
                let found = found.ok().and_then(|found| found.into_inner().consumer);
                found.is_some_and(|consumer| !consumer.holder.is_empty())
            })
            .await;
        }
    }

    let acknowledged = Arc::new(AtomicUsize::new(0));
    let mut shipping = JoinSet::new();
    for (number, (program, topic)) in SHIPMENTS.into_iter().enumerate() {
        let (endpoints, acknowledged) = (endpoints.clone(), acknowledged.clone());
        let file = log_file(dir.path(), program);
        shipping.spawn(async move {
            ship(endpoints, number, topic, program, &file, &acknowledged).await
        });
    }
    let pulling = {
        let endpoint = endpoints[2].clone();
        tokio::spawn(async move { pull(&endpoint, "jobs", "poller", LINES).await })
    };
    until("half of the lines are shipped", async || {
        acknowledged.load(Ordering::Relaxed) >= SHIPMENTS.len() * LINES / 2
    })
    .await;
    brokers[0].kill().await;

    let mut moves = 0;
    while let Some(shipped) = soon("all lines are shipped", shipping.join_next()).await {
        moves += shipped.unwrap();
    }
    assert!(moves > 0, "no producer used the broker that was killed");
    for (topic, received) in &all_received {
        until("all lines are received", async || received.lock().unwrap().len() == lines_of(topic))
            .await;
        assert_complete(dir.path(), topic, &received.lock().unwrap());
    }
    assert_complete(dir.path(), "jobs", &soon("all lines are pulled", pulling).await.unwrap());

    // A late consumer on a surviving broker and the table itself show the same.
    let late = Arc::new(Mutex::new(Received::new()));
    let (endpoint, received) = (endpoints[1].clone(), late.clone());
    readers.spawn(async move { read(&endpoint, "access", "late", received).await });
    until("all lines are received", async || late.lock().unwrap().len() == lines_of("access"))
        .await;
    assert_complete(dir.path(), "access", &late.lock().unwrap());
    let sql = database.sql().await;
    let rows = "select topic, count(*), max(\"offset\") + 1 from trunkline.message group by topic";
    for row in sql.query(rows, &[]).await.unwrap() {
        let (topic, count, head) =
            (row.get::<_, &str>(0), row.get::<_, i64>(1), row.get::<_, i64>(2));
        assert_eq!((count, head), (lines_of(topic) as i64, count), "{topic}");
    }
}
