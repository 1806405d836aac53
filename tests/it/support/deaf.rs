//! A proxy to a database that drops notifications, as poolers and servers without NOTIFY do. It
//! also records the startup packets of sessions.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, UnixStream},
    task::JoinSet,
};

use super::TestDatabase;

/// Forwards everything but notifications; stops when dropped.
pub struct DeafProxy {
    pub url: String,
    /// The startup packet of each session: names and values, each terminated by a zero byte.
    pub requests: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl DeafProxy {
    pub async fn start(database: &TestDatabase) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (user, name) = (&database.user, &database.name);
        let url = format!("postgresql://{user}@{address}/{name}");
        let socket = database.socket_dir.join(".s.PGSQL.5432");
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let mut tasks = JoinSet::new();
        let recorded = requests.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                connections.spawn(forward(from_client, to_server, recorded.clone()));
                connections.spawn(forward_without_notifications(from_server, to_client));
            }
        });
        Self { url, requests, _tasks: tasks }
    }
}

/// Records the startup packet, a length that includes itself and a body, and forwards everything.
async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    requests: Arc<Mutex<Vec<String>>>,
) {
    let Ok(length) = from.read_u32().await else { return };
    let mut request = vec![0; length as usize - 4];
    if from.read_exact(&mut request).await.is_err() {
        return;
    }
    requests.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
    let request = [&length.to_be_bytes(), request.as_slice()].concat();
    // Either end may disconnect at any time.
    let _ = to.write_all(&request).await;
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

/// Every message of a server is a letter, a length that includes itself, and a body.
async fn forward_without_notifications(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) {
    let mut message = Vec::new();
    loop {
        let mut head = [0; 5];
        if from.read_exact(&mut head).await.is_err() {
            return;
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        message.clear();
        message.extend(head);
        message.resize(1 + length, 0);
        if from.read_exact(&mut message[5..]).await.is_err() {
            return;
        }
        if head[0] != b'A' && to.write_all(&message).await.is_err() {
            return;
        }
    }
}
