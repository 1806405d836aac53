//! Accepts connections, as many as there is room for.
//!
//! Guarantees that a lack of descriptors or memory neither ends the broker nor keeps it busy, and
//! that no more connections are open than [`Admission`] allows. A client that comes while there is
//! no room is turned away.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tracing::{
    debug,
    field::{DisplayValue, display},
    warn,
};

use crate::http::ConnectionCounts;

use super::admission::{Admission, Admitted, ConnectionLimits, Full};

/// How often a silent client is asked whether it is there. Otherwise a client that vanished would
/// hold its lease for ever.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long sent data may stay unacknowledged by a client's host.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(30);

/// How often refused connections are logged, for each limit.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(10);

/// How long to pause when the system has no descriptor or memory left. The pause doubles each time,
/// up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts connections from a listener.
pub(super) struct Acceptor {
    listener: TcpListener,
    admission: Arc<Admission>,
    /// The next pause.
    pause: Duration,
    /// When connections were last said to be refused, by the total and by address.
    refusals: [Option<Instant>; 2],
}

/// An accepted connection.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// Makes room for another connection when it is dropped.
    pub(super) admitted: Admitted,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener, limits: ConnectionLimits) -> Self {
        let admission = Admission::new(limits);
        Self { listener, admission, pause: SHORTEST_PAUSE, refusals: [None; 2] }
    }

    /// Counts the connections.
    pub(super) fn counts(&self) -> impl Fn() -> ConnectionCounts + Send + Sync + 'static {
        let admission = self.admission.clone();
        move || admission.counts()
    }

    /// Waits for the next connection that there is room for.
    pub(super) async fn next(&mut self) -> Accepted {
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tokio::time::sleep(self.pause_after(&error)).await;
                    continue;
                }
            };
            self.pause = SHORTEST_PAUSE;
            // Closed rather than left to wait, so that its client can go to another broker.
            let admitted = match self.admission.admit(peer.ip()) {
                Ok(admitted) => admitted,
                Err(full) => {
                    self.log_refusal(full, peer);
                    continue;
                }
            };
            if let Err(error) = prepare(&stream) {
                debug!(%peer, %error, "prepare a connection");
                continue;
            }
            return Accepted { stream, peer, admitted };
        }
    }

    /// Logs a refused connection, unless others of the same limit were logged a moment ago.
    fn log_refusal(&mut self, full: Full, peer: SocketAddr) {
        let logged = match full {
            Full::Total(_) => &mut self.refusals[0],
            Full::Address(_) => &mut self.refusals[1],
        };
        let now = Instant::now();
        if logged.is_none_or(|at| now.duration_since(at) >= REFUSAL_INTERVAL) {
            *logged = Some(now);
            let (listen, scope, limit) = (self.listen(), full.scope(), full.limit());
            warn!(%peer, listen, scope, limit, "refuse connections");
        }
    }

    /// The address that tells the ports of a broker apart in its log.
    fn listen(&self) -> Option<DisplayValue<SocketAddr>> {
        self.listener.local_addr().ok().map(display)
    }

    /// How long to pause after an error: not at all if it concerns a single connection, and longer
    /// each time if it concerns the system and would occur again at once.
    fn pause_after(&mut self, error: &io::Error) -> Duration {
        if is_of_one_connection(error) {
            debug!(%error, "accept a connection");
            return Duration::ZERO;
        }
        warn!(%error, listen = self.listen(), "pause accepting connections");
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// Whether an error concerns a connection that ended before it was accepted, and not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
    )
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_INTERVAL);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ConnectionLimits = ConnectionLimits { total: 1, per_address: 1 };

    #[tokio::test]
    async fn a_client_that_comes_while_there_is_no_room_is_turned_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut acceptor = Acceptor::new(listener, ONE);
        let _first = TcpStream::connect(address).await.unwrap();
        let accepted = acceptor.next().await;

        let refused = TcpStream::connect(address).await.unwrap();
        let refusing = async {
            let mut byte = [0];
            refused.peek(&mut byte).await
        };
        tokio::select! {
            _ = acceptor.next() => panic!("there is no room"),
            read = refusing => assert!(matches!(read, Ok(0) | Err(_))),
        }

        drop(accepted);
        let third = TcpStream::connect(address).await.unwrap();
        assert_eq!(acceptor.next().await.peer, third.local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_lack_of_descriptors_is_followed_by_longer_and_longer_pauses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut acceptor = Acceptor::new(listener, ONE);
        let mut pause =
            |error| acceptor.pause_after(&io::Error::from_raw_os_error(error)).as_millis();
        let lacking = [nix::libc::EMFILE, nix::libc::ENFILE, nix::libc::ENOMEM, nix::libc::ENOBUFS];
        assert_eq!(lacking.map(&mut pause), [100, 200, 400, 800]);
        assert_eq!(pause(nix::libc::EMFILE), 1_000);
        assert_eq!(pause(nix::libc::ECONNABORTED), 0);
    }
}
