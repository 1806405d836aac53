//! How many connections may be open, and how long.

use std::net::SocketAddr;

use futures_util::StreamExt as _;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use trunkline::{
    client::{Client, Commit},
    proto,
};

use crate::support::{
    Authority, PRODUCER, RawHttp2, TestBroker, TestDatabase, TlsFolder, Trunkline, message, soon,
    until,
};

const CONSUME: &str = "trunkline.v1.ConsumerService/Consume";

/// A broker with options of its own.
struct Limited {
    process: Trunkline,
    endpoint: String,
    _database: TestDatabase,
}

impl Limited {
    async fn start(flags: &[&str]) -> Self {
        let database = TestDatabase::create().await;
        let arguments = ["--listen", "127.0.0.1:0", "--database-url", &database.url];
        let (process, endpoint) = Trunkline::serve(&[&arguments, flags].concat()).await;
        Self { process, endpoint, _database: database }
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Connects from one of the addresses that the local host has.
    async fn connect_from(&self, client: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(client.parse().unwrap(), 0)).unwrap();
        socket.connect(self.address()).await.unwrap()
    }

    /// Creates the topic `orders`, its producer and its consumer `billing`.
    async fn prepare(&self) -> Client {
        let client = Client::connect(&self.endpoint).await.unwrap();
        let topic = || "orders".to_owned();
        let request = proto::CreateTopicRequest { topic: topic(), ..Default::default() };
        client.topics().create_topic(request).await.unwrap();
        let request = proto::RegisterProducerRequest {
            topic: topic(),
            producer_id: PRODUCER.to_owned(),
            ..Default::default()
        };
        client.producers().register_producer(request).await.unwrap();
        let request = proto::RegisterConsumerRequest {
            topic: topic(),
            consumer_id: "billing".to_owned(),
            ..Default::default()
        };
        client.consumers().register_consumer(request).await.unwrap();
        client
    }
}

async fn publish(client: &Client, payload: &'static str) {
    let request = proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: vec![message(payload)],
        ..Default::default()
    };
    client.producers().publish(request).await.unwrap();
}

/// Whether a connection serves HTTP/2, rather than being closed.
async fn is_served(stream: TcpStream) -> bool {
    let mut stream = stream;
    let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    if stream.write_all(greeting).await.is_err() {
        return false;
    }
    soon("an answer or the end", stream.read(&mut [0])).await.is_ok_and(|count| count > 0)
}

/// Waits for a connection's GOAWAY without an error. Frames of calls may come before it.
async fn receive_goaway(connection: &mut RawHttp2) {
    loop {
        let frame = connection.next().await.expect("a GOAWAY before the end");
        if frame.is_goaway() {
            assert_eq!(frame.payload[4..8], [0; 4], "{:?}", frame.payload);
            return;
        }
    }
}

/// Reads until a stream's payload, whatever comes before it.
async fn receive_payload(connection: &mut RawHttp2, payload: &str) {
    loop {
        let frame = connection.next().await.expect("the connection stays open");
        if frame.payload.windows(payload.len()).any(|part| part == payload.as_bytes()) {
            return;
        }
    }
}

async fn receive_end(connection: &mut RawHttp2) {
    while connection.next().await.is_some() {}
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let mut broker = Limited::start(&["--max-connections-per-address", "3"]).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(broker.connect_from("127.0.0.2").await);
    }
    assert!(!is_served(broker.connect_from("127.0.0.2").await).await);
    let line = broker.process.log_line("refuse connections").await;
    assert!(
        line.contains("scope=\"address\" limit=3")
            && line.contains(&format!("listen={}", broker.address())),
        "{line}"
    );
    assert!(is_served(broker.connect_from("127.0.0.3").await).await);
    held.pop();
    until("the end of a connection makes room", async || {
        is_served(broker.connect_from("127.0.0.2").await).await
    })
    .await;
}

#[tokio::test]
async fn connections_are_limited_in_all() {
    let mut broker = Limited::start(&["--max-connections", "2"]).await;
    let _first = broker.connect_from("127.0.0.2").await;
    let _second = broker.connect_from("127.0.0.3").await;
    assert!(!is_served(broker.connect_from("127.0.0.4").await).await);
    let line = broker.process.log_line("refuse connections").await;
    assert!(line.contains("scope=\"total\" limit=2"), "{line}");
    drop(_first);
    until("the end of a connection makes room", async || {
        is_served(broker.connect_from("127.0.0.4").await).await
    })
    .await;
}

#[tokio::test]
async fn a_limit_of_zero_is_refused() {
    for flag in ["--max-connections", "--max-connections-per-address"] {
        let finished = Trunkline::run(&["serve", flag, "0"]).await;
        assert_eq!(finished.code(), 2, "{finished:?}");
        assert!(finished.stderr.contains(flag), "{finished:?}");
    }
}

#[tokio::test]
async fn clients_that_do_not_finish_their_handshake_hold_up_nobody_else_and_are_closed() {
    let authority = Authority::new();
    let folder = TlsFolder::new(&authority);
    let flags = folder.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let broker = Limited::start(&flags).await;
    // More than may be under way of one address.
    let mut halves = Vec::new();
    for _ in 0..80 {
        let mut half = broker.connect_from("127.0.0.2").await;
        // The beginning of a TLS record.
        half.write_all(&[22, 3, 1, 1, 0, 1]).await.unwrap();
        halves.push(half);
    }
    let endpoint = broker.endpoint.replace("http://", "https://");
    Client::builder(&endpoint).ca_certificate(authority.pem()).connect().await.unwrap();
    for half in &mut halves {
        let mut rest = Vec::new();
        let _ = soon("the end of a half handshake", half.read_to_end(&mut rest)).await;
    }
}

#[tokio::test]
async fn a_connection_without_calls_is_asked_to_end_and_one_with_a_stream_is_not() {
    let broker = Limited::start(&["--max-idle", "300ms"]).await;
    let client = broker.prepare().await;
    let mut streaming = RawHttp2::connect(&broker.endpoint).await;
    streaming.call(CONSUME, &[], &TestBroker::request("orders", "billing").encode_to_vec());
    assert!(streaming.flush().await);
    publish(&client, "first").await;
    receive_payload(&mut streaming, "first").await;

    let mut idle = RawHttp2::connect(&broker.endpoint).await;
    assert!(idle.flush().await);
    receive_goaway(&mut idle).await;
    receive_end(&mut idle).await;
    // By now the stream has been open for longer than a connection may be idle. The client's own
    // connection has ended, and it opens another one.
    publish(&client, "second").await;
    receive_payload(&mut streaming, "second").await;
}

#[tokio::test]
async fn a_connection_that_is_too_old_is_asked_to_end_and_its_streams_have_time() {
    let flags = ["--max-connection-age", "1s", "--max-connection-age-grace", "2s"];
    let broker = Limited::start(&flags).await;
    broker.prepare().await;
    let mut streaming = RawHttp2::connect(&broker.endpoint).await;
    streaming.call(CONSUME, &[], &TestBroker::request("orders", "billing").encode_to_vec());
    assert!(streaming.flush().await);
    receive_goaway(&mut streaming).await;
    // The connection of the client is as old, and may close just as a call begins.
    let client = Client::connect(&broker.endpoint).await.unwrap();
    publish(&client, "within the grace").await;
    receive_payload(&mut streaming, "within the grace").await;
    receive_end(&mut streaming).await;
}

#[tokio::test]
async fn the_client_library_goes_on_when_its_connections_become_too_old() {
    let flags = ["--max-connection-age", "300ms", "--max-connection-age-grace", "100ms"];
    let broker = Limited::start(&flags).await;
    let client = broker.prepare().await;
    let mut consumer = client.consumer("orders", "billing", Commit::Manual).open().await.unwrap();
    for payload in ["first", "second", "third"] {
        // Ends after the connections that are open now.
        let mut other = RawHttp2::connect(&broker.endpoint).await;
        assert!(other.flush().await);
        receive_end(&mut other).await;
        let mut publishing = Client::connect(&broker.endpoint).await.unwrap();
        until("a publish", async || {
            let request = proto::PublishRequest {
                topic: "orders".to_owned(),
                producer_id: PRODUCER.to_owned(),
                messages: vec![message(payload)],
                ..Default::default()
            };
            let published = publishing.producers().publish(request).await;
            if published.is_err() {
                publishing = Client::connect(&broker.endpoint).await.unwrap();
            }
            published.is_ok()
        })
        .await;
        // A publish whose answer was cut off may have been stored twice.
        while soon("a message", consumer.next()).await.unwrap().unwrap().payload != payload {}
    }
}
