//! Admits connections, within limits that keep one client from using up what all need.
//!
//! Guarantees that no more connections are open than the limits allow, in all and of each client
//! address, and that a few addresses cannot hold up the handshakes of others. Clients behind one
//! proxy count as one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{broker::counted_address, http::ConnectionCounts};

/// How many handshakes may be under way at a time. Others wait.
const HANDSHAKES: usize = 256;

/// How many of these may be of one address.
const HANDSHAKES_PER_ADDRESS: usize = 64;

/// How many of an address need nothing but room among all. The others of an address are a burst.
const FIRST_OF_ADDRESS: usize = 4;

/// How many handshakes may belong to bursts, of all addresses together. The rest of the room is for
/// the first ones of each address: only 32 addresses together can take all of it.
const BURSTS: usize = HANDSHAKES / 2;

/// How many connections may be open at a time.
#[derive(Clone, Copy)]
pub(super) struct ConnectionLimits {
    pub(super) total: usize,
    pub(super) per_address: usize,
}

/// Which limit refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Total(usize),
    Address(usize),
}

/// Counts the open connections.
pub(super) struct Admission {
    limits: ConnectionLimits,
    open: Mutex<Open>,
    handshakes: Semaphore,
    bursts: Semaphore,
    /// How many connections each limit has refused.
    refused_by_total: AtomicU64,
    refused_by_address: AtomicU64,
}

#[derive(Default)]
struct Open {
    total: usize,
    /// Holds only the addresses that have connections, so its size has the limit of the total.
    by_address: HashMap<IpAddr, OfAddress>,
}

struct OfAddress {
    connections: usize,
    handshakes: Arc<OfAddressHandshakes>,
}

/// The handshakes of one address.
struct OfAddressHandshakes {
    all: Semaphore,
    first: Semaphore,
    /// Whoever has it stands in the queue for a place among the bursts, so that addresses get those
    /// places in turn.
    burst_line: tokio::sync::Mutex<()>,
}

/// A connection that is counted until this is dropped.
pub(super) struct Admitted {
    admission: Arc<Admission>,
    address: IpAddr,
    handshakes: Arc<OfAddressHandshakes>,
}

/// A handshake that is counted until this is dropped.
pub(super) struct Handshake<'a> {
    _of_address: Option<SemaphorePermit<'a>>,
    _first_or_burst: Option<SemaphorePermit<'a>>,
    _of_all: Option<SemaphorePermit<'a>>,
}

impl Admission {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        let (handshakes, bursts) = (Semaphore::new(HANDSHAKES), Semaphore::new(BURSTS));
        Arc::new(Self {
            limits,
            open: Mutex::default(),
            handshakes,
            bursts,
            refused_by_total: AtomicU64::new(0),
            refused_by_address: AtomicU64::new(0),
        })
    }

    /// How many connections are open, may be, and were refused.
    pub(super) fn counts(&self) -> ConnectionCounts {
        ConnectionCounts {
            open: self.open.lock().total,
            limit: self.limits.total,
            refused_by_total: self.refused_by_total.load(Relaxed),
            refused_by_address: self.refused_by_address.load(Relaxed),
        }
    }

    /// Counts a connection, unless a limit is reached.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Admitted, Full> {
        let address = counted_address(peer);
        let mut open = self.open.lock();
        if open.total >= self.limits.total {
            self.refused_by_total.fetch_add(1, Relaxed);
            return Err(Full::Total(self.limits.total));
        }
        let of_address = open.by_address.entry(address).or_insert_with(|| OfAddress {
            connections: 0,
            handshakes: Arc::new(OfAddressHandshakes {
                all: Semaphore::new(HANDSHAKES_PER_ADDRESS),
                first: Semaphore::new(FIRST_OF_ADDRESS),
                burst_line: tokio::sync::Mutex::default(),
            }),
        });
        // An address without connections is below any limit, so no entry is left over here.
        if of_address.connections >= self.limits.per_address.max(1) {
            self.refused_by_address.fetch_add(1, Relaxed);
            return Err(Full::Address(self.limits.per_address));
        }
        of_address.connections += 1;
        let handshakes = of_address.handshakes.clone();
        open.total += 1;
        Ok(Admitted { admission: self.clone(), address, handshakes })
    }
}

impl Admitted {
    /// Waits until a handshake may begin: first among those of the same address, then among all.
    pub(super) async fn begin_handshake(&self) -> Handshake<'_> {
        // The semaphores are never closed.
        let of_address = self.handshakes.all.acquire().await.ok();
        let burst = async {
            let _first_in_line = self.handshakes.burst_line.lock().await;
            self.admission.bursts.acquire().await.ok()
        };
        let first_or_burst = tokio::select! {
            biased;
            first = self.handshakes.first.acquire() => first.ok(),
            burst = burst => burst,
        };
        let of_all = self.admission.handshakes.acquire().await.ok();
        Handshake { _of_address: of_address, _first_or_burst: first_or_burst, _of_all: of_all }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock();
        open.total -= 1;
        if let Some(of_address) = open.by_address.get_mut(&self.address) {
            of_address.connections -= 1;
            if of_address.connections == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

impl Full {
    /// What the limit counts, as metrics name it.
    pub(super) fn scope(self) -> &'static str {
        match self {
            Self::Total(_) => "total",
            Self::Address(_) => "address",
        }
    }

    pub(super) fn limit(self) -> usize {
        match self {
            Self::Total(limit) | Self::Address(limit) => limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn refusal(admitted: Result<Admitted, Full>) -> Option<Full> {
        admitted.err()
    }

    #[test]
    fn connections_are_limited_in_all_and_by_address_and_their_end_makes_room() {
        let admission = Admission::new(ConnectionLimits { total: 3, per_address: 2 });
        let first = admission.admit(address("10.0.0.1")).unwrap();
        let _second = admission.admit(address("10.0.0.1")).unwrap();
        let full = admission.admit(address("10.0.0.1"));
        assert_eq!(refusal(full), Some(Full::Address(2)));
        let _third = admission.admit(address("10.0.0.2")).unwrap();
        let full = admission.admit(address("10.0.0.3"));
        assert_eq!(refusal(full), Some(Full::Total(3)));
        drop(first);
        let _fourth = admission.admit(address("10.0.0.1")).unwrap();
        assert_eq!(admission.open.lock().by_address.len(), 2);
    }

    #[test]
    fn an_address_without_connections_is_forgotten() {
        let admission = Admission::new(ConnectionLimits { total: 3, per_address: 2 });
        drop(admission.admit(address("10.0.0.1")).unwrap());
        assert!(admission.open.lock().by_address.is_empty());
        assert_eq!(admission.open.lock().total, 0);
    }

    #[test]
    fn an_ipv6_client_is_counted_by_its_network() {
        assert_eq!(counted_address(address("2001:db8::1:2:3:4")), address("2001:db8::"));
        assert_ne!(
            counted_address(address("2001:db8:0:1::1")),
            counted_address(address("2001:db8:0:2::1"))
        );
        assert_eq!(counted_address(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }

    #[tokio::test]
    async fn the_handshakes_of_one_address_leave_room_for_those_of_others() {
        let admission = Admission::new(ConnectionLimits { total: 1_000, per_address: 1_000 });
        let many: Vec<_> =
            (0..500).map(|_| admission.admit(address("10.0.0.1")).unwrap()).collect();
        let mut under_way = Vec::new();
        for one in &many[..HANDSHAKES_PER_ADDRESS] {
            under_way.push(one.begin_handshake().await);
        }
        // tokio lets a task take only so much at a time.
        tokio::task::yield_now().await;
        let mut waiting = std::pin::pin!(many[HANDSHAKES_PER_ADDRESS].begin_handshake());
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        let other = admission.admit(address("10.0.0.2")).unwrap();
        assert!(futures::poll!(std::pin::pin!(other.begin_handshake())).is_ready());
        under_way.pop();
        assert!(futures::poll!(waiting.as_mut()).is_ready());
    }

    #[tokio::test]
    async fn many_addresses_with_bursts_leave_room_for_the_first_handshakes_of_others() {
        let admission = Admission::new(ConnectionLimits { total: 10_000, per_address: 1_000 });
        let admitted: Vec<_> = (0..31 * 64)
            .map(|n| admission.admit(address(&format!("10.0.1.{}", n / 64))).unwrap())
            .collect();
        let mut under_way = Vec::new();
        let mut waiting = 0;
        for one in &admitted {
            // Dropping one that waits takes it out of the queues.
            let mut beginning = Box::pin(one.begin_handshake());
            match tokio::task::unconstrained(futures::future::poll_immediate(&mut beginning)).await
            {
                Some(begun) => under_way.push(begun),
                None => waiting += 1,
            }
        }
        assert_eq!((under_way.len(), waiting), (BURSTS + 31 * FIRST_OF_ADDRESS, 1_984 - 252));
        for _ in 0..FIRST_OF_ADDRESS {
            let other = admission.admit(address("10.0.2.1")).unwrap();
            let mut beginning = Box::pin(other.begin_handshake());
            let begun = futures::future::poll_immediate(&mut beginning);
            assert!(tokio::task::unconstrained(begun).await.is_some());
        }
    }

    #[tokio::test]
    async fn addresses_get_places_for_bursts_in_turn() {
        let admission = Admission::new(ConnectionLimits { total: 1_000, per_address: 1_000 });
        let admit = |peer| admission.admit(address(peer)).unwrap();
        let greedy: Vec<_> = (0..12).map(|_| admit("10.0.0.1")).collect();
        let other: Vec<_> = (0..=FIRST_OF_ADDRESS).map(|_| admit("10.0.0.2")).collect();
        let mut places = admission.bursts.acquire_many(BURSTS as u32).await.unwrap();
        let mut first = Vec::new();
        for one in greedy[..FIRST_OF_ADDRESS].iter().chain(&other[1..]) {
            first.push(one.begin_handshake().await);
        }
        let mut of_greedy: Vec<_> =
            greedy[FIRST_OF_ADDRESS..].iter().map(|one| Box::pin(one.begin_handshake())).collect();
        for waiting in &mut of_greedy {
            assert!(futures::poll!(waiting).is_pending());
        }
        let mut of_other = std::pin::pin!(other[0].begin_handshake());
        assert!(futures::poll!(of_other.as_mut()).is_pending());
        drop(places.split(2));
        let mut begun = Vec::new();
        for (n, waiting) in of_greedy.iter_mut().enumerate() {
            begun.push(futures::poll!(waiting));
            assert_eq!(begun[n].is_ready(), n == 0);
        }
        assert!(futures::poll!(of_other.as_mut()).is_ready());
    }

    #[tokio::test]
    async fn a_burst_goes_on_when_a_first_handshake_of_its_address_ends() {
        let admission = Admission::new(ConnectionLimits { total: 1_000, per_address: 1_000 });
        let admitted: Vec<_> =
            (0..=FIRST_OF_ADDRESS).map(|_| admission.admit(address("10.0.0.1")).unwrap()).collect();
        let _bursts = admission.bursts.acquire_many(BURSTS as u32).await.unwrap();
        let mut first = Vec::new();
        for one in &admitted[1..] {
            first.push(one.begin_handshake().await);
        }
        let mut waiting = std::pin::pin!(admitted[0].begin_handshake());
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        first.pop();
        assert!(futures::poll!(waiting.as_mut()).is_ready());
    }
}
