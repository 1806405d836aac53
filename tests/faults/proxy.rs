//! A TCP proxy that breaks connections by kind.
//!
//! A broker names its connections to PostgreSQL (`trunkline writer`, `trunkline lease`, …) in the
//! startup packet, so that a proxy in front of the server can distinguish them. All other
//! connections, such as those of gRPC clients, are of one kind.

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

/// All kinds of connections that have gone through a proxy.
pub const ALL: &str = "*";

/// What a proxy does with the bytes of a kind of connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Forwards them.
    Pass,
    /// Forwards each chunk after a delay.
    Delay(Duration),
    /// Holds them back in both directions, and also does not close connections.
    Hold,
    /// Resets new connections.
    Refuse,
}

/// How a proxy treats a kind of connection.
#[derive(Clone, Copy, Debug)]
struct Treatment {
    mode: Mode,
    /// The number of cuts so far; each applies to the connections that were open.
    cuts: u64,
    /// How many more bytes to the client the last cut lets pass; `None` cuts at once.
    cut_after: Option<usize>,
}

type Treatments = Arc<Mutex<HashMap<String, watch::Sender<Treatment>>>>;

/// How a proxy distinguishes kinds of connections.
#[derive(Clone, Copy, PartialEq)]
enum Kinds {
    /// By the application name in PostgreSQL's startup packet.
    ByName,
    /// All are of one kind, with an empty name.
    One,
}

/// Forwards connections to a port; stops when dropped.
pub struct Proxy {
    port: u16,
    target: watch::Sender<u16>,
    treatments: Treatments,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy in front of PostgreSQL that connects from a given loopback address.
    pub async fn before_postgres(target: u16, source: Ipv4Addr) -> Self {
        Self::start(target, source, Kinds::ByName).await
    }

    /// Starts a proxy in front of a broker.
    pub async fn before_broker(target: u16) -> Self {
        Self::start(target, Ipv4Addr::LOCALHOST, Kinds::One).await
    }

    async fn start(target: u16, source: Ipv4Addr, kinds: Kinds) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (target, _) = watch::channel(target);
        let treatments = Treatments::default();
        let route = Route { target: target.subscribe(), source };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, route, treatments.clone(), kinds));
        Self { port, target, treatments, _tasks: tasks }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the port that new connections are forwarded to.
    pub fn retarget(&self, port: u16) {
        self.target.send_replace(port);
    }

    /// Sets the mode of a kind of connection, open and new; or of [`ALL`] kinds so far.
    pub fn set(&self, kind: &str, mode: Mode) {
        self.change(kind, |treatment| treatment.mode = mode);
    }

    /// Resets the open connections of a kind, each after this many more bytes of answers, or at
    /// once. Further bytes are lost.
    pub fn cut(&self, kind: &str, after: Option<usize>) {
        self.change(kind, |treatment| {
            treatment.cuts += 1;
            treatment.cut_after = after;
        });
    }

    /// Forwards everything again, and cancels cuts that have not happened yet.
    pub fn heal(&self) {
        self.change(ALL, |treatment| {
            treatment.mode = Mode::Pass;
            treatment.cut_after = Some(usize::MAX);
        });
    }

    fn change(&self, kind: &str, change: impl Fn(&mut Treatment)) {
        let mut treatments = self.treatments.lock().unwrap();
        match kind {
            ALL => treatments.values().for_each(|treatment| treatment.send_modify(&change)),
            kind => treatments.entry(kind.to_owned()).or_insert_with(untreated).send_modify(change),
        }
    }
}

fn untreated() -> watch::Sender<Treatment> {
    watch::Sender::new(Treatment { mode: Mode::Pass, cuts: 0, cut_after: None })
}

/// Where connections are forwarded to, and from which address.
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

async fn accept(listener: TcpListener, route: Route, treatments: Treatments, kinds: Kinds) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(pass(client, route.clone(), treatments.clone(), kinds));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection until both directions have ended, or it is cut.
async fn pass(mut client: TcpStream, route: Route, treatments: Treatments, kinds: Kinds) {
    let first = match kinds {
        Kinds::ByName => match first_packet(&mut client).await {
            Ok(packet) => packet,
            Err(_) => return,
        },
        Kinds::One => Vec::new(),
    };
    let kind = application_name(&first);
    let treatment = treatments.lock().unwrap().entry(kind).or_insert_with(untreated).subscribe();
    if treatment.borrow().mode == Mode::Refuse {
        return reset_on_close(&client);
    }
    let Ok(mut server) = route.connect().await else {
        return reset_on_close(&client);
    };
    // The startup packet is forwarded whole.
    if server.write_all(&first).await.is_err() {
        return;
    }
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let cuts = treatment.borrow().cuts;
    let requests = Pump {
        from: from_client,
        to: to_server,
        treatment: treatment.clone(),
        cuts,
        carries_answers: false,
    };
    let answers = Pump { from: from_server, to: to_client, treatment, cuts, carries_answers: true };
    // If one direction is cut, dropping both closes the sockets.
    let _ = tokio::try_join!(requests.run(), answers.run());
}

/// Forwards one direction.
struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    treatment: watch::Receiver<Treatment>,
    /// The number of cuts before this connection was opened.
    cuts: u64,
    carries_answers: bool,
}

/// The connection is to be reset.
struct Cut;

impl Pump {
    /// Returns the sockets once one end has closed and the other was told.
    async fn run(mut self) -> Result<(OwnedReadHalf, OwnedWriteHalf), Cut> {
        let mut buffer = vec![0; 64 * 1024];
        // The latest cut, and the bytes forwarded since then.
        let (mut cut, mut passed) = (self.cuts, 0);
        loop {
            let treatment = *self.treatment.borrow_and_update();
            let mut room = usize::MAX;
            if treatment.cuts > self.cuts {
                if treatment.cuts > cut {
                    (cut, passed) = (treatment.cuts, 0);
                }
                match treatment.cut_after {
                    Some(after) if self.carries_answers => room = after.saturating_sub(passed),
                    Some(_) => {}
                    None => return Err(self.cut()),
                }
            }
            if treatment.mode == Mode::Hold {
                changed(&mut self.treatment).await;
                continue;
            }
            let read = tokio::select! {
                read = self.from.read(&mut buffer) => read.unwrap_or(0),
                () = changed(&mut self.treatment) => continue,
            };
            if let Mode::Delay(time) = treatment.mode {
                tokio::time::sleep(time).await;
            }
            // The mode may have changed to `Hold` after these bytes were read.
            while self.treatment.borrow().mode == Mode::Hold {
                changed(&mut self.treatment).await;
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

/// Waits until the treatment changes.
async fn changed(treatment: &mut watch::Receiver<Treatment>) {
    if treatment.changed().await.is_err() {
        // The run is ending, and this task with it.
        std::future::pending::<()>().await;
    }
}

/// Makes closing a socket reset its connection.
fn reset_on_close(socket: &TcpStream) {
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// PostgreSQL's startup packet: a length that includes itself, and a body.
async fn first_packet(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = client.read_u32().await?;
    let mut packet = length.to_be_bytes().to_vec();
    packet.resize((length as usize).clamp(4, 10_000), 0);
    client.read_exact(&mut packet[4..]).await?;
    Ok(packet)
}

/// The application name in the startup packet, or an empty text. After the length and the version
/// come names and values, each terminated by a zero byte.
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
