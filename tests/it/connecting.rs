//! A database URL with several servers, of which some say nothing.

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{self, UnixStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::support::{PRODUCER, TestBroker, TestDatabase, Trunkline};

/// A database behind servers that listen on these ports of the loopback.
fn behind(ports: &[u16], database: &TestDatabase) -> String {
    let hosts = "127.0.0.1,".repeat(ports.len());
    let ports: String = ports.iter().map(|port| format!("{port},")).collect();
    format!(
        "host={hosts}{} port={ports}5432 user={} dbname={}",
        database.socket_dir.display(),
        database.user,
        database.name
    )
}

/// As a frozen primary does: the kernel accepts, and nobody answers.
#[tokio::test]
async fn hosts_that_accept_and_say_nothing_keep_no_broker_from_the_next_one() {
    let database = TestDatabase::create().await;
    let silent: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> =
        silent.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    for ports in [&ports[..1], &ports] {
        let began = Instant::now();
        let url = behind(ports, &database);
        let (mut broker, _) =
            Trunkline::serve(&["--listen", "127.0.0.1:0", "--database-url", &url]).await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(10), "{} silent: {took:?}", ports.len());
        broker.kill().await;
    }
}

#[tokio::test]
async fn a_single_server_that_says_nothing_is_named() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let url = format!("postgresql://u@{address}/d");
    let mut broker =
        Trunkline::spawn(&["serve", "--listen", "127.0.0.1:0", "--database-url", &url]);
    let line = broker.log_line("wait for the database").await;
    assert!(line.contains(&format!("{address}: no answer in 4.0s")), "{line}");
    broker.kill().await;
}

/// Passes all on until it is frozen: then it accepts and holds what comes, and says nothing.
struct FreezingProxy {
    port: u16,
    frozen: CancellationToken,
    _tasks: JoinSet<()>,
}

impl FreezingProxy {
    async fn start(database: &TestDatabase) -> Self {
        let listener = net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = database.socket_dir.join(".s.PGSQL.5432");
        let frozen = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let freezes = frozen.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let (socket, freezes) = (socket.clone(), freezes.clone());
                connections.spawn(async move {
                    let mut server = UnixStream::connect(&socket).await.unwrap();
                    tokio::select! {
                        () = freezes.cancelled() => std::future::pending().await,
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    }
                });
            }
        });
        Self { port, frozen, _tasks: tasks }
    }
}

#[tokio::test]
async fn a_running_broker_goes_over_from_a_server_that_freezes() {
    let database = Arc::new(TestDatabase::create().await);
    let proxy = FreezingProxy::start(&database).await;
    let url = behind(&[proxy.port], &database);
    let drain = Duration::from_secs(5);
    let broker = TestBroker::start_with(database, &url, None, drain).await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["before"]).await;
    let mut stream = broker.consume("orders", "billing").await;
    assert_eq!(stream.payloads(1).await, ["before"]);
    drop(stream);

    proxy.frozen.cancel();
    // Each of the two sessions that publish is given up after ten seconds.
    let publishing = async {
        while broker.try_publish("orders", PRODUCER, ["after"]).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(45), publishing).await.unwrap();
    // So is each of those that read, of which there is one or two.
    let reading = async {
        let request = || trunkline::proto::GetConsumerRequest {
            topic: "orders".to_owned(),
            consumer_id: "billing".to_owned(),
        };
        while broker.consumers().get_consumer(request()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading).await.unwrap();
}
