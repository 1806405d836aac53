//! The main use on real input: log files are shipped and consumed, and a broker is killed midway.

use std::{fs, path::Path};

use tokio::task::JoinSet;
use trunkline::{
    client::Client,
    proto::{self, PullRequest},
};

use crate::support::{
    Trunkline,
    logs::{LINES, Line, SHIPMENTS, STREAMING, assert_lines, lines_of, log_file, write_log_files},
    soon, until,
};

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

/// Reads the output of `consume --json`, whose offsets must be dense from 0.
fn received(path: &Path) -> Vec<Line> {
    let text = fs::read_to_string(path).unwrap();
    let messages =
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    messages
        .enumerate()
        .map(|(number, message)| {
            assert_eq!(message["offset"], number, "offsets are dense");
            let text = |name: &str| message[name].as_str().unwrap().to_owned();
            Line { producer: text("producer"), text: text("payload") }
        })
        .collect()
}

async fn pull_all(endpoint: &str, topic: &str, id: &str, count: usize) -> Vec<Line> {
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
            let text = String::from_utf8(message.payload.to_vec()).unwrap();
            received.push(Line { producer: message.producer_id, text });
        }
    }
    received
}

#[tokio::test]
async fn shipped_log_files_are_consumed_completely_also_across_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    write_log_files(dir.path());
    let data_dir = dir.path().join("data");
    let data_dir = data_dir.to_str().unwrap();
    let (mut broker, endpoint) =
        Trunkline::serve(&["--listen", "127.0.0.1:0", "--data-dir", data_dir]).await;
    let address = endpoint.trim_start_matches("http://").to_owned();

    // The streams are open before the first line is shipped.
    let out = |topic: &str, id: &str| dir.path().join(format!("{topic}-{id}.json"));
    let mut streaming = JoinSet::new();
    for (topic, id) in STREAMING {
        let (endpoint, path) = (endpoint.clone(), out(topic, id));
        streaming.spawn(async move {
            let count = lines_of(topic).to_string();
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
    // So is a consumer that polls.
    let (topic, consumer_id) = ("jobs".to_owned(), "poller".to_owned());
    let poller = proto::RegisterConsumerRequest { topic, consumer_id, ..Default::default() };
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
    // A late consumer starts at the earliest message.
    let late = out("access", "late");
    let arguments = consume_arguments(&endpoint, "access", "late");
    let arguments = [&arguments[..], &["--json", "--until-caught-up"]].concat();
    assert!(Trunkline::run_into(&arguments, &late).await.success());
    assert_lines(dir.path(), "access", &received(&late));

    // Half of the next lines are consumed, then the broker is killed and started again.
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
    // The same process continues: no line is lost, and none comes twice.
    for number in 50..100 {
        let line = soon("a line", reader.stdout.next_line()).await.unwrap();
        assert_eq!(line, Some(format!("more {number}")));
    }
    drop(reader);
    // A pull continues at the poller's position.
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
