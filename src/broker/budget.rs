//! How many bytes of requests peers may have in a broker, each of them and all together.
//!
//! An owner that has used up its share waits, and so does everybody once all bytes are in use. No
//! owner's share is more than a quarter of the whole, so one owner alone cannot make another wait.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Whom the bytes of a call are charged to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The clients of an address.
    Address(IpAddr),
    /// An authenticated caller.
    Principal(Arc<str>),
}

impl Owner {
    /// The owner of what comes from an address. All addresses of one IPv6 network are one owner, as
    /// its hosts may choose among 2^64.
    pub fn of_address(address: IpAddr) -> Self {
        Self::Address(counted_address(address))
    }
}

/// The address that a client is counted by. One IPv6 client usually has a whole /64 network.
pub fn counted_address(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            Ipv6Addr::from_bits(network).into()
        }
    }
}

/// Bytes that all owners share.
pub struct Budget {
    all: Arc<Semaphore>,
    /// The largest share of an owner.
    each: usize,
    owners: Mutex<Owners>,
}

/// The bytes that are left to each owner.
struct Owners {
    left: HashMap<Owner, Arc<Semaphore>>,
    /// How many there may be until those that use nothing are forgotten.
    sweep_at: usize,
}

/// One owner's share of a budget. Cheap to clone.
#[derive(Clone)]
pub struct Share {
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
    each: usize,
}

/// Bytes that are in use; returned when they are dropped.
#[derive(Debug)]
pub struct Hold {
    all: OwnedSemaphorePermit,
    own: OwnedSemaphorePermit,
}

/// Owners that use nothing are forgotten once there are this many.
const FIRST_SWEEP: usize = 1_024;

impl Budget {
    /// A budget of some bytes, of which each owner may use up to `each`.
    pub fn new(all: usize, each: usize) -> Self {
        let owners = Owners { left: HashMap::new(), sweep_at: FIRST_SWEEP };
        Self { all: Arc::new(Semaphore::new(all)), each, owners: Mutex::new(owners) }
    }

    /// The share of an owner.
    pub fn share(&self, owner: Owner) -> Share {
        let own = self.owners.lock().find(owner, self.each);
        Share { all: self.all.clone(), own, each: self.each }
    }
}

impl Owners {
    fn find(&mut self, owner: Owner, each: usize) -> Arc<Semaphore> {
        if let Some(left) = self.left.get(&owner) {
            return left.clone();
        }
        if self.left.len() >= self.sweep_at {
            // Those in use are also held by a share or by what was taken of it.
            self.left.retain(|_, left| Arc::strong_count(left) > 1);
            self.sweep_at = FIRST_SWEEP.max(2 * self.left.len());
        }
        self.left.entry(owner).or_insert_with(|| Arc::new(Semaphore::new(each))).clone()
    }
}

impl Share {
    /// The most bytes that can be held at once.
    pub fn most(&self) -> usize {
        self.each
    }

    /// Takes bytes if they are free.
    pub fn try_hold(&self, bytes: usize) -> Option<Hold> {
        let bytes = u32::try_from(bytes).ok()?;
        let own = self.own.clone().try_acquire_many_owned(bytes).ok()?;
        let all = self.all.clone().try_acquire_many_owned(bytes).ok()?;
        Some(Hold { all, own })
    }

    /// Waits until bytes are free, and takes them: first those of the owner, so that an owner that
    /// waits for itself keeps nothing from others. Takes no more than the largest share.
    pub async fn hold(self, bytes: usize) -> Hold {
        let bytes = u32::try_from(bytes.min(self.each)).unwrap_or(u32::MAX);
        let own = acquire(self.own, bytes).await;
        let all = acquire(self.all, bytes).await;
        Hold { all, own }
    }
}

async fn acquire(bytes: Arc<Semaphore>, count: u32) -> OwnedSemaphorePermit {
    match bytes.acquire_many_owned(count).await {
        Ok(permit) => permit,
        // It is never closed.
        Err(_) => std::future::pending().await,
    }
}

impl Hold {
    /// How many bytes are held.
    pub fn bytes(&self) -> usize {
        self.own.num_permits()
    }

    /// Adds bytes of the same share.
    pub fn merge(&mut self, other: Self) {
        self.all.merge(other.all);
        self.own.merge(other.own);
    }

    /// Takes some bytes out, or all that there are.
    pub fn split(&mut self, bytes: usize) -> Option<Self> {
        let bytes = bytes.min(self.bytes());
        Some(Self { all: self.all.split(bytes)?, own: self.own.split(bytes)? })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn owner(last: u8) -> Owner {
        Owner::of_address(IpAddr::from([127, 0, 0, last]))
    }

    #[test]
    fn an_owner_that_uses_its_share_up_leaves_the_rest_to_others() {
        let budget = Budget::new(100, 25);
        let greedy = budget.share(owner(1));
        let mut held = greedy.try_hold(25).unwrap();
        assert!(greedy.try_hold(1).is_none());
        assert!(budget.share(owner(1)).hold(1).now_or_never().is_none(), "the same owner");
        assert!(budget.share(owner(2)).hold(25).now_or_never().is_some());
        drop(held.split(10));
        assert_eq!((held.bytes(), greedy.try_hold(10).unwrap().bytes()), (15, 10));
    }

    #[test]
    fn all_owners_together_use_no_more_than_the_whole() {
        let budget = Budget::new(100, 25);
        let mut held: Vec<_> =
            (0..4).map(|last| budget.share(owner(last)).try_hold(25).unwrap()).collect();
        assert!(budget.share(owner(9)).try_hold(1).is_none());
        let waiting = budget.share(owner(9)).hold(1);
        held.pop();
        assert_eq!(waiting.now_or_never().unwrap().bytes(), 1);
        assert_eq!(budget.all.available_permits(), 25);
    }

    #[test]
    fn owners_that_use_nothing_are_forgotten() {
        let budget = Budget::new(100, 25);
        let busy = budget.share(owner(0));
        let _held = busy.try_hold(7);
        for number in 0..10_000_u32 {
            budget.share(Owner::Principal(number.to_string().into()));
        }
        assert!(budget.owners.lock().left.len() <= 2 * FIRST_SWEEP);
        assert!(budget.share(owner(0)).try_hold(19).is_none(), "what is held is remembered");
    }

    #[test]
    fn a_network_of_ipv6_addresses_is_one_owner() {
        let owner = |address: &str| Owner::of_address(address.parse().unwrap());
        assert_eq!(owner("2001:db8:1:2::3"), owner("2001:db8:1:2:ffff::4"));
        assert_ne!(owner("2001:db8:1:2::3"), owner("2001:db8:1:3::3"));
        assert_eq!(owner("::ffff:10.0.0.1"), owner("10.0.0.1"));
    }
}
