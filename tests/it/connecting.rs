//! Database URLs with several servers, some of which do not answer.

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

/// The URL of a database, after servers on these ports of the loopback interface.
fn url_after(ports: &[u16], database: &TestDatabase) -> String {
    let hosts = "127.0.0.1,".repeat(ports.len());
    let ports: String = ports.iter().map(|port| format!("{port},")).collect();
    format!(
        "host={hosts}{} port={ports}5432 user={} dbname={}",
        database.socket_dir.display(),
        database.user,
        database.name
    )
}

/// A frozen primary behaves like this: its kernel accepts connections, and nothing answers.
#[tokio::test]
async fn a_broker_gets_past_hosts_that_accept_connections_and_do_not_answer() {
    let database = TestDatabase::create().await;
    let silent: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> =
        silent.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    for ports in [&ports[..1], &ports] {
        let started = Instant::now();
        let url = url_after(ports, &database);
        let (mut broker, _) =
            Trunkline::serve(&["--listen", "127.0.0.1:0", "--database-url", &url]).await;
        let took = started.elapsed();
        assert!(took < Duration::from_secs(10), "{} silent: {took:?}", ports.len());
        broker.kill().await;
    }
}

#[tokio::test]
async fn a_single_server_that_does_not_answer_is_named_in_the_log() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let url = format!("postgresql://u@{address}/d");
    let mut broker =
        Trunkline::spawn(&["serve", "--listen", "127.0.0.1:0", "--database-url", &url]);
    let line = broker.log_line("wait for the database").await;
    assert!(line.contains(&format!("{address}: no answer in 4.0s")), "{line}");
    broker.kill().await;
}

/// Forwards everything until it is frozen; from then on it accepts connections and stays silent.
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
        let freeze = frozen.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let (socket, freeze) = (socket.clone(), freeze.clone());
                connections.spawn(async move {
                    let mut server = UnixStream::connect(&socket).await.unwrap();
                    tokio::select! {
                        () = freeze.cancelled() => std::future::pending().await,
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    }
                });
            }
        });
        Self { port, frozen, _tasks: tasks }
    }
}

#[tokio::test]
async fn a_running_broker_fails_over_from_a_server_that_freezes() {
    let database = Arc::new(TestDatabase::create().await);
    let proxy = FreezingProxy::start(&database).await;
    let url = url_after(&[proxy.port], &database);
    let drain = Duration::from_secs(5);
    let broker = TestBroker::start_with(database, &url, None, drain).await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["before"]).await;
    let mut stream = broker.consume("orders", "billing").await;
    assert_eq!(stream.payloads(1).await, ["before"]);
    drop(stream);

    proxy.frozen.cancel();
    // Each of the two writer sessions is abandoned after ten seconds.
    let publishing = async {
        while broker.try_publish("orders", PRODUCER, ["after"]).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(45), publishing).await.unwrap();
    // So is each of the one or two query sessions.
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
