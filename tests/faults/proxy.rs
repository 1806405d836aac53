//! A TCP proxy that breaks connections, each kind by itself.
//!
//! A broker names its connections to PostgreSQL (`trunkline writer`, `trunkline lease`, …) in their
//! first packet, so that one proxy before the server can tell them apart. Connections of anything
//! else, such as a gRPC client's, are all of one kind.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// All kinds of connections that a proxy has seen.
pub const ALL: &str = "*";

/// What becomes of the bytes of a kind of connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// They are passed on.
    Pass,
    /// They are passed on, each piece so much later.
    Delay(Duration),
    /// They are kept, as are the connections' ends, in both directions.
    Hold,
    /// New connections are reset.
    Refuse,
}

/// How a kind of connection is treated.
#[derive(Clone, Copy, Debug)]
struct Way {
    mode: Mode,
    /// How often connections were cut; each cut ends those that were open.
    cuts: u64,
    /// After how many more bytes to the client; at once if none.
    cut_after: Option<usize>,
}

type Ways = Arc<Mutex<HashMap<String, watch::Sender<Way>>>>;

/// Which kinds there are.
#[derive(Clone, Copy, PartialEq)]
enum Told {
    /// By the application's name in PostgreSQL's first packet.
    ByName,
    /// One kind, with an empty name.
    No,
}

/// Passes connections on to a port; ends when it is dropped.
pub struct Proxy {
    port: u16,
    target: watch::Sender<u16>,
    ways: Ways,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A proxy before a PostgreSQL, which comes to it from an address of the loopback of its own.
    pub async fn before_postgres(target: u16, source: Ipv4Addr) -> Self {
        Self::start(target, source, Told::ByName).await
    }

    /// A proxy before a broker.
    pub async fn before_broker(target: u16) -> Self {
        Self::start(target, Ipv4Addr::LOCALHOST, Told::No).await
    }

    async fn start(target: u16, source: Ipv4Addr, told: Told) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (target, _) = watch::channel(target);
        let ways = Ways::default();
        let route = Route { target: target.subscribe(), source };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, route, ways.clone(), told));
        Self { port, target, ways, _tasks: tasks }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where new connections lead from now on.
    pub fn lead_to(&self, port: u16) {
        self.target.send_replace(port);
    }

    /// Treats all connections of a kind, also new ones, in this way; [`ALL`] are all kinds seen.
    pub fn set(&self, kind: &str, mode: Mode) {
        self.change(kind, |way| way.mode = mode);
    }

    /// Resets the open connections of a kind, each once so many more bytes have come back over it:
    /// the bytes behind those are lost. Without a number, at once.
    pub fn cut(&self, kind: &str, after: Option<usize>) {
        self.change(kind, |way| {
            way.cuts += 1;
            way.cut_after = after;
        });
    }

    /// Passes everything on again, and cuts nothing that was not cut yet.
    pub fn heal(&self) {
        self.change(ALL, |way| {
            way.mode = Mode::Pass;
            way.cut_after = Some(usize::MAX);
        });
    }

    fn change(&self, kind: &str, change: impl Fn(&mut Way)) {
        let mut ways = self.ways.lock().unwrap();
        match kind {
            ALL => ways.values().for_each(|way| way.send_modify(&change)),
            kind => ways.entry(kind.to_owned()).or_insert_with(way).send_modify(change),
        }
    }
}

fn way() -> watch::Sender<Way> {
    watch::Sender::new(Way { mode: Mode::Pass, cuts: 0, cut_after: None })
}

/// Whence and whither connections are passed on.
#[derive(Clone)]
struct Route {
    target: watch::Receiver<u16>,
    source: Ipv4Addr,
}

impl Route {
    async fn connect(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.source, 0).into())?;
        let target = *self.target.borrow();
        socket.connect((Ipv4Addr::LOCALHOST, target).into()).await
    }
}

async fn accept(listener: TcpListener, route: Route, ways: Ways, told: Told) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(pass(client, route.clone(), ways.clone(), told));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection. It ends when both directions have, or when it is cut.
async fn pass(mut client: TcpStream, route: Route, ways: Ways, told: Told) {
    let first = match told {
        Told::ByName => match first_packet(&mut client).await {
            Ok(packet) => packet,
            Err(_) => return,
        },
        Told::No => Vec::new(),
    };
    let kind = application_name(&first);
    let way = ways.lock().unwrap().entry(kind).or_insert_with(way).subscribe();
    if way.borrow().mode == Mode::Refuse {
        return reset_on_close(&client);
    }
    let Ok(mut server) = route.connect().await else {
        return reset_on_close(&client);
    };
    // The first packet says who it is, and nothing that could be cut.
    if server.write_all(&first).await.is_err() {
        return;
    }
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let cuts = way.borrow().cuts;
    let asking = Pump { from: from_client, to: to_server, way: way.clone(), cuts, answers: false };
    let answering = Pump { from: from_server, to: to_client, way, cuts, answers: true };
    // When one is cut, what is dropped here closes both sockets.
    let _ = tokio::try_join!(asking.run(), answering.run());
}

/// Passes one direction on.
struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    way: watch::Receiver<Way>,
    /// The number of cuts that do not concern this connection.
    cuts: u64,
    answers: bool,
}

/// The connection is to be reset.
struct Cut;

impl Pump {
    /// Returns its sockets when one side has ended and the other was told.
    async fn run(mut self) -> Result<(OwnedReadHalf, OwnedWriteHalf), Cut> {
        let mut buffer = vec![0; 64 * 1024];
        // Since which cut how much was passed.
        let (mut cut, mut passed) = (self.cuts, 0);
        loop {
            let way = *self.way.borrow_and_update();
            let mut room = usize::MAX;
            if way.cuts > self.cuts {
                if way.cuts > cut {
                    (cut, passed) = (way.cuts, 0);
                }
                match way.cut_after {
                    Some(after) if self.answers => room = after.saturating_sub(passed),
                    Some(_) => {}
                    None => return Err(self.cut()),
                }
            }
            if way.mode == Mode::Hold {
                changed(&mut self.way).await;
                continue;
            }
            let read = tokio::select! {
                read = self.from.read(&mut buffer) => read.unwrap_or(0),
                () = changed(&mut self.way) => continue,
            };
            if let Mode::Delay(time) = way.mode {
                tokio::time::sleep(time).await;
            }
            // What is held now was read before anybody knew.
            while self.way.borrow().mode == Mode::Hold {
                changed(&mut self.way).await;
            }
            if read == 0 {
                let _ = self.to.shutdown().await;
                return Ok((self.from, self.to));
            }
            let passes = read.min(room);
            if self.to.write_all(&buffer[..passes]).await.is_err() || passes < read {
                return Err(self.cut());
            }
            if room < usize::MAX {
                passed += passes;
            }
        }
    }

    fn cut(&self) -> Cut {
        reset_on_close(self.from.as_ref());
        reset_on_close(self.to.as_ref());
        Cut
    }
}

/// Waits until the way is another one.
async fn changed(way: &mut watch::Receiver<Way>) {
    if way.changed().await.is_err() {
        // The run ends, and this task with it.
        std::future::pending::<()>().await;
    }
}

/// Has a socket's end say that what was under way is lost.
fn reset_on_close(socket: &TcpStream) {
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// PostgreSQL's first packet: a length that counts itself, and a body.
async fn first_packet(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = client.read_u32().await?;
    let mut packet = length.to_be_bytes().to_vec();
    packet.resize((length as usize).clamp(4, 10_000), 0);
    client.read_exact(&mut packet[4..]).await?;
    Ok(packet)
}

/// The application's name in the first packet: names and values, each up to a zero, behind the
/// length and the version. Empty if there is none.
fn application_name(packet: &[u8]) -> String {
    let mut words = packet.get(8..).unwrap_or_default().split(|byte| *byte == 0);
    while let Some(name) = words.next() {
        let value = words.next().unwrap_or_default();
        if name == b"application_name" {
            return String::from_utf8_lossy(value).into_owned();
        }
    }
    String::new()
}
