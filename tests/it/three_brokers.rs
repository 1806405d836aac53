//! The main job on three brokers over one database, one of which is killed midway.
//!
//! Each consumer has two processes, on two brokers: one reads, the other is its standby. Each
//! producer counts its messages, and goes to the next broker with the same request when its own
//! does not answer.

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

use crate::support::{TestDatabase, Trunkline, message, soon, until, write_log_file};

const LINES: usize = 5_000;
const REQUEST_LINES: usize = 50;

/// Which producer ships to which topic: two share one.
const SHIPMENTS: [(&str, &str); 4] =
    [("web", "access"), ("api", "access"), ("auth", "security"), ("batch", "jobs")];

/// Consumers that hold a stream.
const STREAMING: [(&str, &str); 4] =
    [("access", "dashboard"), ("access", "archive"), ("security", "alerts"), ("jobs", "reports")];

/// What a consumer got, by offset: who published it, and what it says.
type Received = BTreeMap<i64, (String, String)>;

/// Publishes a file line by line, at whatever broker answers.
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
                    Err(_) => Err(Status::unavailable("nobody there")),
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

/// Reads what `consume --json` prints into what its consumer got.
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
        received.lock().unwrap().insert(offset, (text("producer"), text("payload")));
    }
}

/// Takes all there is, at a broker that is not killed.
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
            let line = String::from_utf8(message.payload.to_vec()).unwrap();
            received.insert(message.offset, (message.producer_id, line));
        }
    }
    received
}

/// Checks that offsets are dense, and that each file of the topic came whole, once, in its order.
fn assert_whole(dir: &Path, topic: &str, received: &Received) {
    assert!(received.keys().copied().eq(0..received.len() as i64), "offsets are dense");
    for (program, _) in SHIPMENTS.iter().filter(|(_, to)| *to == topic) {
        let lines = received.values().filter(|(producer, _)| producer == program);
        let lines: Vec<&str> = lines.map(|(_, line)| line.as_str()).collect();
        let file = fs::read_to_string(dir.join(program)).unwrap();
        assert!(lines == file.lines().collect::<Vec<_>>(), "{program} in {topic}");
    }
}

fn count_of(topic: &str) -> usize {
    SHIPMENTS.iter().filter(|(_, to)| *to == topic).count() * LINES
}

#[tokio::test]
async fn three_brokers_do_the_job_though_one_is_killed_midway() {
    let dir = tempfile::tempdir().unwrap();
    for (program, _) in SHIPMENTS {
        write_log_file(&dir.path().join(program), program, LINES);
    }
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
        let request = proto::RegisterProducerRequest { topic, producer_id, fence: false };
        client.producers().register_producer(request).await.unwrap();
    }
    let (topic, consumer_id) = ("jobs".to_owned(), "poller".to_owned());
    let poller = proto::RegisterConsumerRequest { topic, consumer_id, start: None };
    client.consumers().register_consumer(poller).await.unwrap();

    // Each consumer's first process reads; the second one, elsewhere, stands by.
    let mut readers = JoinSet::new();
    let mut all_received = Vec::new();
    for (number, (topic, id)) in STREAMING.into_iter().enumerate() {
        let received = Arc::new(Mutex::new(Received::new()));
        all_received.push((topic, received.clone()));
        for place in [number, number + 1] {
            let (endpoint, received) = (endpoints[place % 3].clone(), received.clone());
            readers.spawn(async move { read(&endpoint, topic, id, received).await });
            until("the first one has the lease", async || {
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
        let file = dir.path().join(program);
        shipping.spawn(async move {
            ship(endpoints, number, topic, program, &file, &acknowledged).await
        });
    }
    let pulling = {
        let endpoint = endpoints[2].clone();
        tokio::spawn(async move { pull(&endpoint, "jobs", "poller", LINES).await })
    };
    until("half of it is shipped", async || {
        acknowledged.load(Ordering::Relaxed) >= SHIPMENTS.len() * LINES / 2
    })
    .await;
    brokers[0].kill().await;

    let mut moves = 0;
    while let Some(shipped) = soon("all is shipped", shipping.join_next()).await {
        moves += shipped.unwrap();
    }
    assert!(moves > 0, "nobody was at the broker that was killed");
    for (topic, received) in &all_received {
        until("all lines have come", async || received.lock().unwrap().len() == count_of(topic))
            .await;
        assert_whole(dir.path(), topic, &received.lock().unwrap());
    }
    assert_whole(dir.path(), "jobs", &soon("all is pulled", pulling).await.unwrap());

    // One that joins late, at a broker that saw it all, and the table itself say the same.
    let late = Arc::new(Mutex::new(Received::new()));
    let (endpoint, received) = (endpoints[1].clone(), late.clone());
    readers.spawn(async move { read(&endpoint, "access", "late", received).await });
    until("all lines have come", async || late.lock().unwrap().len() == count_of("access")).await;
    assert_whole(dir.path(), "access", &late.lock().unwrap());
    let sql = database.sql().await;
    let rows = "select topic, count(*), max(\"offset\") + 1 from trunkline.message group by topic";
    for row in sql.query(rows, &[]).await.unwrap() {
        let (topic, count, head) =
            (row.get::<_, &str>(0), row.get::<_, i64>(1), row.get::<_, i64>(2));
        assert_eq!((count, head), (count_of(topic) as i64, count), "{topic}");
    }
}
