//! Connections of clients: their limit, and what closes them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::sys::signal::Signal;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use trunkline::{client::Client, proto};

use crate::support::{
    PRODUCER, RawHttp2, TestBroker, TestDatabase, Trunkline, http2, message, soon, until,
};

const PUBLISH: &str = "trunkline.v1.ProducerService/Publish";
const CONSUME: &str = "trunkline.v1.ConsumerService/Consume";

/// Reads until a payload arrives on a stream; panics if the connection ends before that.
async fn receive_payload(connection: &mut RawHttp2, stream: u32, payload: &str) {
    loop {
        let frame = connection.next().await.expect("the connection stays open");
        assert!(!frame.is_goaway(), "{:?}", String::from_utf8_lossy(&frame.payload));
        let found = frame.payload.windows(payload.len()).any(|part| part == payload.as_bytes());
        if frame.kind == http2::DATA && frame.stream == stream && found {
            return;
        }
    }
}

#[tokio::test]
async fn cancelled_calls_do_not_end_the_streams_of_their_connection() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut connection = RawHttp2::connect(&broker.endpoint).await;
    let consume = TestBroker::request("orders", "billing").encode_to_vec();
    let stream = connection.call(CONSUME, &[], &consume);
    for (round, cancelled) in [50, 2_000, 50, 2_000, 4_000, 50].into_iter().enumerate() {
        for _ in 0..cancelled {
            connection.cancelled_call(PUBLISH, &[]);
        }
        assert!(connection.flush().await);
        let payload = format!("after round {round}");
        broker.publish("orders", [payload.as_str()]).await;
        receive_payload(&mut connection, stream, &payload).await;
    }
}

#[tokio::test]
async fn a_flood_of_cancelled_calls_ends_only_its_own_connection() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let mut flood = RawHttp2::connect(&broker.endpoint).await;
    // A busy machine takes its time for tens of thousands of calls.
    let ended = tokio::time::timeout(Duration::from_secs(180), async {
        loop {
            for _ in 0..1_000 {
                flood.cancelled_call(PUBLISH, &[]);
            }
            if !flood.flush().await {
                break;
            }
        }
    });
    ended.await.expect("the flooded connection ends");
    assert_eq!(broker.publish("orders", ["still there"]).await, 0);
}

#[tokio::test]
async fn a_connection_that_does_not_speak_http2_is_closed_at_once() {
    let broker = TestBroker::start().await;
    let address = broker.endpoint.strip_prefix("http://").unwrap();
    for greeting in
        ["GET / HTTP/1.1\r\n\r\n", "\u{16}\u{3}\u{1}", "PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(greeting.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // Well before the time limit for silent connections.
        let reading = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest));
        let _ = reading.await.unwrap_or_else(|_| panic!("{greeting:?} was not refused"));
    }
}

#[tokio::test]
async fn an_idle_connection_of_a_live_client_stays_open_and_a_silent_one_is_closed() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let address = broker.endpoint.strip_prefix("http://").unwrap();
    let mut idle = broker.topics();
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"PRI * HTTP").await.unwrap();
    // This one speaks HTTP/2 and does not answer pings.
    let mut deaf = TcpStream::connect(address).await.unwrap();
    deaf.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    for stream in [&mut silent, &mut slow, &mut deaf] {
        let mut rest = Vec::new();
        let _ = soon("the end of a connection", stream.read_to_end(&mut rest)).await;
    }
    let request = proto::GetTopicRequest { topic: "orders".to_owned() };
    idle.get_topic(request).await.unwrap();
}

#[tokio::test]
async fn a_client_that_lives_and_does_not_read_loses_its_connection_and_its_lease() {
    /// More than the broker's time limit, which is longer than other waits of tests.
    const PATIENCE: Duration = Duration::from_secs(60);
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut deaf = RawHttp2::connect(&broker.endpoint).await;
    // HTTP/2's windows are open as far as they go, so that only the socket holds data up.
    let largest = [&4_u16.to_be_bytes()[..], &0x7fff_ffff_u32.to_be_bytes()].concat();
    deaf.frame(http2::SETTINGS, 0, 0, &largest);
    deaf.frame(http2::WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes());
    deaf.call(CONSUME, &[], &TestBroker::request("orders", "billing").encode_to_vec());
    assert!(deaf.flush().await);
    until("the client has the lease", async || {
        !broker.get_consumer("orders", "billing").await.holder.is_empty()
    })
    .await;
    // More than the buffers of sockets and of the stream hold.
    for _ in 0..60 {
        broker.try_publish("orders", PRODUCER, [vec![7; 512 * 1024]]).await.unwrap();
    }
    let request = TestBroker::request("orders", "billing");
    let mut standby = broker.consumers().consume(request).await.unwrap().into_inner();
    let attached = async {
        loop {
            let frame = standby.message().await.unwrap().expect("the stream goes on");
            if matches!(frame.event, Some(proto::consume_response::Event::Attached(_))) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, attached).await.expect("the lease is free in time");
    drop(deaf);
}

/// The processor time that a process has used, in seconds.
fn processor_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The fields follow the name, which may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // Linux reports hundredths of a second to user space on every platform.
    ticks as f64 / 100.0
}

#[tokio::test]
async fn silent_connections_leave_room_for_the_database_and_for_clients() {
    let database = TestDatabase::create().await;
    let (broker, endpoint) = Trunkline::serve_with_files(
        100,
        &["--listen", "127.0.0.1:0", "--database-url", &database.url],
    )
    .await;
    let client = Client::connect(&endpoint).await.unwrap();
    let request = proto::CreateTopicRequest { topic: "orders".to_owned(), ..Default::default() };
    client.topics().create_topic(request).await.unwrap();
    let request = proto::RegisterProducerRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        ..Default::default()
    };
    client.producers().register_producer(request).await.unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let (pid, mut broker, written) = (broker.pid(), broker, log.clone());
    let reading = tokio::spawn(async move {
        while let Ok(Some(line)) = broker.stderr.next_line().await {
            written.lock().unwrap().push(line);
        }
        broker
    });

    let address = endpoint.strip_prefix("http://").unwrap();
    let mut silent = Vec::new();
    for _ in 0..150 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let before = processor_seconds(pid);
    let started = std::time::Instant::now();
    // Publishes go on, one after the other, for long enough to detect a busy loop.
    let mut published = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    while started.elapsed() < Duration::from_secs(3) {
        let publish = proto::PublishRequest {
            topic: "orders".to_owned(),
            producer_id: PRODUCER.to_owned(),
            messages: vec![message("still published")],
            ..Default::default()
        };
        soon("an answer", client.producers().publish(publish)).await.unwrap();
        published += 1;
        tick.tick().await;
    }
    let used = processor_seconds(pid) - before;
    assert!(used < 1.5, "{used} s of processor time in 3 s, and {published} publishes");
    let refusals = {
        let log = log.lock().unwrap();
        log.iter().filter(|line| line.contains("refuse connections")).count()
    };
    assert_eq!(refusals, 1, "{:?}", log.lock().unwrap());

    until("a new client can connect", async || Client::connect(&endpoint).await.is_ok()).await;
    drop(client);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGTERM).unwrap();
    let mut broker = soon("the end of the log", reading).await.unwrap();
    assert!(broker.wait().await.success());
}
