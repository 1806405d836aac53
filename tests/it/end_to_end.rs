//! The main job on real input: log files in, streams out, and a broker that is killed midway.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use tokio::task::JoinSet;
use trunkline::{
    client::Client,
    proto::{self, PullRequest},
};

use crate::support::{Trunkline, soon, until, write_log_file};

const LINES: usize = 5_000;

/// Which producer ships to which topic: two share one.
const SHIPMENTS: [(&str, &str); 4] =
    [("web", "access"), ("api", "access"), ("auth", "security"), ("batch", "jobs")];

/// Consumers that hold a stream: two of one topic, and one for each of the others.
const STREAMING: [(&str, &str); 4] =
    [("access", "dashboard"), ("access", "archive"), ("security", "alerts"), ("jobs", "reports")];

fn log_file(dir: &Path, program: &str) -> PathBuf {
    dir.join(format!("{program}.log"))
}

fn consume_arguments<'a>(endpoint: &'a str, topic: &'a str, id: &'a str) -> [&'a str; 7] {
    ["--endpoint", endpoint, "consume", topic, "--consumer", id, "--register"]
}

async fn ship(endpoint: &str, dir: &Path) {
    let mut shipping = JoinSet::new();
    for (program, topic) in SHIPMENTS {
        let (endpoint, file) = (endpoint.to_owned(), log_file(dir, program));
        shipping.spawn(async move {
            let file = file.to_str().unwrap();
            let produced = Trunkline::run(&[
                "--endpoint",
                &endpoint,
                "produce",
                topic,
                "--producer",
                program,
                "--register",
                file,
            ])
            .await;
            assert_eq!(produced.code(), 0, "{produced:?}");
            assert!(produced.stderr.contains(&format!("{LINES} messages")), "{produced:?}");
        });
    }
    while let Some(shipped) = shipping.join_next().await {
        shipped.unwrap();
    }
}

/// Checks that what a consumer of a topic got is each file's lines, in the file's order.
fn assert_lines(dir: &Path, topic: &str, received: &[(String, String)]) {
    let mut by_producer: HashMap<&str, Vec<&str>> = HashMap::new();
    for (producer, line) in received {
        by_producer.entry(producer).or_default().push(line);
    }
    let of_topic: Vec<&str> =
        SHIPMENTS.iter().filter(|(_, to)| *to == topic).map(|(program, _)| *program).collect();
    assert_eq!(by_producer.len(), of_topic.len());
    for program in of_topic {
        let file = fs::read_to_string(log_file(dir, program)).unwrap();
        assert!(by_producer[program] == file.lines().collect::<Vec<_>>(), "{program} in {topic}");
    }
}

/// Reads what `consume --json` wrote; its offsets are dense from 0.
fn received(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap();
    let messages =
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    messages
        .enumerate()
        .map(|(number, message)| {
            assert_eq!(message["offset"], number, "offsets are dense");
            let text = |name: &str| message[name].as_str().unwrap().to_owned();
            (text("producer"), text("payload"))
        })
        .collect()
}

async fn pull_all(endpoint: &str, topic: &str, id: &str, count: usize) -> Vec<(String, String)> {
    let client = Client::connect(endpoint).await.unwrap();
    let request = || PullRequest {
        topic: topic.to_owned(),
        consumer_id: id.to_owned(),
        max_messages: 700,
        wait: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
    };
    let mut received = Vec::new();
    while received.len() < count {
        let pulled = client.consumers().pull(request()).await.unwrap().into_inner();
        for message in pulled.messages {
            assert_eq!(message.offset, received.len() as i64);
            let line = String::from_utf8(message.payload.to_vec()).unwrap();
            received.push((message.producer_id, line));
        }
    }
    received
}

#[tokio::test]
async fn log_files_in_streams_out_and_on_again_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (program, _) in SHIPMENTS {
        write_log_file(&log_file(dir.path(), program), program, LINES);
    }
    let data_dir = dir.path().join("data");
    let data_dir = data_dir.to_str().unwrap();
    let (mut broker, endpoint) =
        Trunkline::serve(&["--listen", "127.0.0.1:0", "--data-dir", data_dir]).await;
    let address = endpoint.trim_start_matches("http://").to_owned();

    // The streams are open before the first line is shipped, and get it as it comes.
    let out = |topic: &str, id: &str| dir.path().join(format!("{topic}-{id}.json"));
    let mut streaming = JoinSet::new();
    for (topic, id) in STREAMING {
        let (endpoint, path) = (endpoint.clone(), out(topic, id));
        let count = SHIPMENTS.iter().filter(|(_, to)| *to == topic).count() * LINES;
        streaming.spawn(async move {
            let count = count.to_string();
            let arguments = consume_arguments(&endpoint, topic, id);
            let arguments = [&arguments[..], &["--json", "-n", &count]].concat();
            assert!(Trunkline::run_into(&arguments, &path).await.success());
        });
    }
    let client = Client::connect(&endpoint).await.unwrap();
    until("all streams are attached", async || {
        let mut attached = 0;
        for (topic, id) in STREAMING {
            let (topic, consumer_id) = (topic.to_owned(), id.to_owned());
            let request = proto::GetConsumerRequest { topic, consumer_id };
            let found = client.consumers().get_consumer(request).await;
            let found = found.ok().and_then(|found| found.into_inner().consumer);
            attached += usize::from(found.is_some_and(|consumer| !consumer.holder.is_empty()));
        }
        attached == STREAMING.len()
    })
    .await;
    // One that polls joins before, too.
    let (topic, consumer_id) = ("jobs".to_owned(), "poller".to_owned());
    let poller = proto::RegisterConsumerRequest { topic, consumer_id, start: None };
    client.consumers().register_consumer(poller).await.unwrap();
    let (pulled, ()) =
        tokio::join!(pull_all(&endpoint, "jobs", "poller", LINES), ship(&endpoint, dir.path()));
    assert_lines(dir.path(), "jobs", &pulled);
    while let Some(ended) = streaming.join_next().await {
        ended.unwrap();
    }
    for (topic, id) in STREAMING {
        assert_lines(dir.path(), topic, &received(&out(topic, id)));
    }
    // One that joins late reads from the earliest on.
    let late = out("access", "late");
    let arguments = consume_arguments(&endpoint, "access", "late");
    let arguments = [&arguments[..], &["--json", "--until-caught-up"]].concat();
    assert!(Trunkline::run_into(&arguments, &late).await.success());
    assert_lines(dir.path(), "access", &received(&late));

    // Half of the next lines are read, then the broker is killed and started again.
    let mut reader = Trunkline::spawn(&consume_arguments(&endpoint, "jobs", "reports"));
    let more: String = (0..100).map(|number| format!("more {number}\n")).collect();
    let produce = ["--endpoint", &endpoint, "produce", "jobs", "--producer", "batch"];
    let (first, rest) = more.split_at(more.find("more 50\n").unwrap());
    assert_eq!(Trunkline::run_with_input(&produce, first.as_bytes()).await.code(), 0);
    for number in 0..50 {
        let line = soon("a line", reader.stdout.next_line()).await.unwrap();
        assert_eq!(line, Some(format!("more {number}")));
    }
    let (topic, consumer_id) = ("jobs".to_owned(), "reports".to_owned());
    let reports = proto::GetConsumerRequest { topic, consumer_id };
    until("the lines are committed", async || {
        let found = client.consumers().get_consumer(reports.clone()).await.unwrap().into_inner();
        found.consumer.unwrap().lag == 0
    })
    .await;
    broker.kill().await;
    let (mut broker, endpoint) =
        Trunkline::serve(&["--listen", &address, "--data-dir", data_dir]).await;
    let produce = ["--endpoint", &endpoint, "produce", "jobs", "--producer", "batch"];
    assert_eq!(Trunkline::run_with_input(&produce, rest.as_bytes()).await.code(), 0);
    // The same process goes on where it was: nothing is lost, nothing comes twice.
    for number in 50..100 {
        let line = soon("a line", reader.stdout.next_line()).await.unwrap();
        assert_eq!(line, Some(format!("more {number}")));
    }
    drop(reader);
    // A pull goes on where the poller was.
    let client = Client::connect(&endpoint).await.unwrap();
    let pull = PullRequest {
        topic: "jobs".to_owned(),
        consumer_id: "poller".to_owned(),
        ..Default::default()
    };
    let pulled = client.consumers().pull(pull).await.unwrap().into_inner();
    assert_eq!(pulled.messages[0].offset, LINES as i64);
    assert_eq!(pulled.messages.len(), 100);
    broker.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(broker.wait().await.success());
}
