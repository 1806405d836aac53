//! A broker in a process of its own that serves HTTP, and requests to it.

use std::{collections::HashMap, sync::Arc};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{TestBroker, TestDatabase, Trunkline, soon};

/// A broker in a process of its own that serves HTTP.
pub struct HttpBroker {
    /// Makes calls on it.
    pub calls: TestBroker,
    pub process: Trunkline,
    /// The address of its HTTP port.
    pub http: String,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl HttpBroker {
    /// Starts a broker on a new database.
    pub async fn start(flags: &[&str]) -> Self {
        Self::start_on(Arc::new(TestDatabase::create().await), flags).await
    }

    /// Starts a broker on a database that other brokers may share.
    pub async fn start_on(database: Arc<TestDatabase>, flags: &[&str]) -> Self {
        let url = database.url.clone();
        Self::start_at(database, &url, flags).await
    }

    /// Starts a broker on a database that it reaches at another URL.
    pub async fn start_at(database: Arc<TestDatabase>, url: &str, flags: &[&str]) -> Self {
        let start = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--database-url", url];
        let (mut process, endpoint) = Trunkline::serve(&[&start, flags].concat()).await;
        let http = http_address(&mut process, "http").await;
        Self { calls: TestBroker::at(database, &endpoint).await, process, http }
    }

    pub async fn get(&self, path: &str) -> Answer {
        get(&self.http, path, &[("Host", "localhost")]).await
    }

    /// The values of all series, by name and labels.
    pub async fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics::parse(&answer.body)
    }
}

/// Where a broker that has just started serves HTTP.
pub async fn http_address(process: &mut Trunkline, scheme: &str) -> String {
    let line = process.line().await;
    let address = line.strip_prefix(&format!("console on {scheme}://"));
    address.unwrap_or_else(|| panic!("{line}")).to_owned()
}

/// Asks for a path on a connection of its own.
pub async fn get(address: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    get_over(stream, path, headers).await
}

pub async fn get_over(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    headers: &[(&str, &str)],
) -> Answer {
    ask(stream, "GET", path, headers, "").await
}

/// Sends a form on a connection of its own.
pub async fn post(
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    fields: &[(&str, &str)],
) -> Answer {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let field = |(name, value): &(&str, &str)| format!("{}={}", encode(name), encode(value));
    let body: Vec<String> = fields.iter().map(field).collect();
    let kind = [("Content-Type", "application/x-www-form-urlencoded")];
    let stream = TcpStream::connect(address).await.unwrap();
    ask(stream, "POST", path, &[headers, &kind].concat(), &body.join("&")).await
}

async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: HashMap<String, String> = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        })
        .collect();
    let body = match headers.get("transfer-encoding").map(String::as_str) {
        Some("chunked") => unchunked(body),
        _ => body.to_owned(),
    };
    Answer { status, headers, body }
}

/// The text of a body that came in parts, each behind its length.
fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        text.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    text
}

/// The values of all series, by name and labels: `trunkline_topic_head{topic="orders"}`.
#[derive(Debug)]
pub struct Metrics(HashMap<String, f64>);

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        });
        Self(series.collect())
    }

    pub fn get(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    #[track_caller]
    pub fn value(&self, series: &str) -> f64 {
        self.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.names()))
    }

    /// Whether any series has a name or label like this.
    pub fn mention(&self, text: &str) -> bool {
        self.0.keys().any(|series| series.contains(text))
    }

    fn names(&self) -> Vec<&String> {
        let mut names: Vec<_> = self.0.keys().filter(|name| !name.contains("le=")).collect();
        names.sort_unstable();
        names
    }
}
