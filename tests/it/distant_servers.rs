//! Servers with a long round trip.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixStream},
    task::JoinSet,
};
use trunkline::storage::{Error, Storage};

use crate::support::{LIMITS, TestDatabase};

/// Forwards everything, but what the server sends only after a delay.
struct DistantServer {
    port: u16,
    delay: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl DistantServer {
    async fn start(database: &TestDatabase, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = database.socket_dir.join(".s.PGSQL.5432");
        let milliseconds = Arc::new(AtomicU64::new(delay.as_millis() as u64));
        let delay = milliseconds.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let delay = delay.clone();
                connections.spawn(async move {
                    // Either end may disconnect at any time.
                    let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                    let _ = to_server.shutdown().await;
                });
                connections.spawn(async move {
                    let mut data = vec![0; 64 * 1024];
                    while let Ok(length @ 1..) = from_server.read(&mut data).await {
                        let delay = Duration::from_millis(delay.load(Ordering::Relaxed));
                        tokio::time::sleep(delay).await;
                        if to_client.write_all(&data[..length]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, delay: milliseconds, _tasks: tasks }
    }
}

/// The URL of a database with several servers.
fn url_through(servers: &[DistantServer], database: &TestDatabase) -> String {
    let servers: Vec<String> =
        servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    format!("postgresql://{}@{}/{}", database.user, servers.join(","), database.name)
}

/// Connecting takes 0.8 s, which is longer than the head start of each server. The start also
/// asks so little that its answers are in time.
#[tokio::test]
async fn sessions_can_be_opened_however_many_distant_servers_there_are() {
    let database = TestDatabase::create().await;
    let mut servers = Vec::new();
    for _ in 0..8 {
        servers.push(DistantServer::start(&database, Duration::from_millis(400)).await);
    }
    let storage = Storage::open(&url_through(&servers, &database), None, LIMITS).await.unwrap();
    assert!(storage.notifies());
    storage.close();
}

/// A new session is given up after five seconds, whichever step takes that long.
#[tokio::test]
async fn a_session_that_takes_too_long_to_set_up_is_abandoned() {
    let database = TestDatabase::create().await;
    let servers = [DistantServer::start(&database, Duration::ZERO).await];
    let storage = Storage::open(&url_through(&servers, &database), None, LIMITS).await.unwrap();
    storage.retire_sessions();
    servers[0].delay.store(1_800, Ordering::Relaxed);
    let started = Instant::now();
    let error = storage.read_ends(&[]).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    assert!(error.to_string().contains("no session was set up in 5s"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(7), "{:?}", started.elapsed());
    storage.close();
}
