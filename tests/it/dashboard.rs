//! The dashboard for Grafana shows something: each of its queries is answered by a real Prometheus that
//! scrapes a broker at work.

use std::{collections::BTreeSet, fs, net::TcpListener, process::Stdio, time::Duration};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::process::{Child, Command};
use trunkline::proto;

use crate::support::{
    http::{HttpBroker, get},
    root, until,
};

/// Panels that are empty while all is well.
const EMPTY: [&str; 1] = ["Series left out"];

/// How long Prometheus may take to have scraped everything, some of it twice.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Prometheus; killed when dropped.
struct Prometheus {
    address: String,
    _process: Child,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Scrapes a broker, as ops/prometheus/prometheus.yml has it but more often.
    async fn start(target: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: trunkline, \
             static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        // Prometheus does not say which port it got, so a free one is chosen for it.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let process = Command::new("prometheus")
            .current_dir(folder.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let prometheus = Self { address, _process: process, _folder: folder };
        until("Prometheus is ready", async || {
            let address = prometheus.address.clone();
            tokio::net::TcpStream::connect(address).await.is_ok()
                && get(&prometheus.address, "/-/ready", &[("Host", "localhost")]).await.status
                    == 200
        })
        .await;
        prometheus
    }

    /// What a query finds now.
    async fn query(&self, query: &str) -> Vec<Value> {
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let path = format!("/api/v1/query?query={query}");
        let answer = get(&self.address, &path, &[("Host", "localhost")]).await;
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(answer["status"], "success", "{answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }
}

/// The queries of the dashboard by panel, for a broker of the job `trunkline`.
fn queries() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("ops/grafana/trunkline.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let nested = panels.iter().filter_map(|panel| panel["panels"].as_array()).flatten();
    let targets = panels.iter().chain(nested).flat_map(|panel| {
        let title = panel["title"].as_str().unwrap_or_default().to_owned();
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    });
    let filled = targets.map(|(title, query)| {
        let query = query
            .replace("$job", "trunkline")
            .replace("$topic", ".*")
            .replace("$consumer", ".*")
            .replace("$__rate_interval", "10s");
        assert!(!query.contains('$'), "{title}: {query}");
        (title, query)
    });
    filled.collect()
}

/// Makes what the panels show.
async fn work(broker: &HttpBroker) {
    let calls = &broker.calls;
    calls.topic("orders").await;
    calls.consumer("orders", "billing").await;
    let sql = calls.sql().await;
    sql.batch_execute("vacuum trunkline.batch, trunkline.topic_head").await.unwrap();
    calls.consumer("orders", "audit").await;
    let mut held = calls.consume("orders", "audit").await;
    held.attached().await;
    let mut standby = calls.consume("orders", "audit").await;
    standby.standby().await;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        let mut holder = calls.take_over("orders", "billing", "ann").await;
        holder.attaches().await;
        calls.publish("orders", ["one", "two"]).await;
        holder.messages(2).await;
        let get = proto::GetTopicRequest { topic: "nothing".to_owned() };
        calls.topics().get_topic(get).await.unwrap_err();
        let read = proto::ReadMessagesRequest { topic: "orders".to_owned(), ..Default::default() };
        calls.topics().read_messages(read).await.unwrap();
    }
}

#[tokio::test]
#[cfg_attr(not(has_prometheus), ignore = "Prometheus is not on this machine")]
async fn each_query_of_the_dashboard_finds_something() {
    let queries = queries();
    assert!(queries.len() > 70, "{}", queries.len());
    let broker = HttpBroker::start(&[]).await;
    let prometheus = Prometheus::start(&broker.http).await;
    let mut unanswered: BTreeSet<_> =
        queries.into_iter().filter(|(title, _)| !EMPTY.contains(&title.as_str())).collect();
    let looking = async {
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        while !unanswered.is_empty() {
            tick.tick().await;
            for (title, query) in unanswered.clone() {
                let found = prometheus.query(&query).await;
                if found.iter().any(|one| one["value"][1] != "NaN") {
                    unanswered.remove(&(title, query));
                }
            }
        }
    };
    let shown = async {
        tokio::select! {
            () = looking => {}
            () = work(&broker) => unreachable!("it goes on"),
        }
    };
    let shown = tokio::time::timeout(PATIENCE, shown).await;
    assert!(shown.is_ok(), "after {PATIENCE:?}, these find nothing: {unanswered:#?}");
}
