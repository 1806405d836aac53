//! How many bytes of requests peers may have in a broker, each of them and all together.
//!
//! An owner that has used up its share waits, and so does everybody once all bytes are in use. No
//! owner's share is more than a quarter of the whole, so one owner alone cannot make another wait.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use tokio::sync::{Semaphore, SemaphorePermit};

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

/// How much of something is used, and how much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// How much is used.
    pub used: usize,
    /// How much there is.
    pub limit: usize,
}

/// Bytes that all owners share.
pub struct Budget {
    all: Arc<Semaphore>,
    size: usize,
    /// The largest share of an owner.
    each: usize,
}

/// One owner's share of a budget. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Share(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    all: Arc<Semaphore>,
    own: Semaphore,
    each: usize,
}

/// Bytes that are in use; returned when they are dropped.
#[derive(Debug)]
pub struct Hold {
    share: Share,
    /// Taken from both semaphores.
    bytes: usize,
}

impl Budget {
    /// A budget of some bytes, of which each owner may use up to `each`.
    pub fn new(size: usize, each: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(size)), size, each }
    }

    /// The share of an owner that has none yet. Every clone of it is the same share.
    pub fn new_share(&self) -> Share {
        let own = Semaphore::new(self.each);
        Share(Arc::new(Shared { all: self.all.clone(), own, each: self.each }))
    }

    /// How many bytes are in use.
    pub fn held(&self) -> usize {
        self.size - self.all.available_permits()
    }

    /// How many bytes are in use, and how many there are.
    pub fn used(&self) -> Used {
        Used { used: self.held(), limit: self.size }
    }
}

impl Share {
    /// The most bytes that can be held at once.
    pub fn most(&self) -> usize {
        self.0.each
    }

    /// Whether nobody else holds bytes of it, waits for them, or could.
    pub fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Takes bytes if they are free.
    pub fn try_hold(&self, bytes: usize) -> Option<Hold> {
        let count = u32::try_from(bytes).ok()?;
        let own = self.0.own.try_acquire_many(count).ok()?;
        let all = self.0.all.try_acquire_many(count).ok()?;
        own.forget();
        all.forget();
        Some(Hold { share: self.clone(), bytes })
    }

    /// Waits until bytes are free, and takes them: first those of the owner, so that an owner that
    /// waits for itself keeps nothing from others. Takes no more than the largest share.
    pub async fn hold(self, bytes: usize) -> Hold {
        let count = u32::try_from(bytes.min(self.0.each)).unwrap_or(u32::MAX);
        let own = acquire(&self.0.own, count).await;
        let all = acquire(&self.0.all, count).await;
        own.forget();
        all.forget();
        Hold { share: self, bytes: count as usize }
    }
}

async fn acquire(bytes: &Semaphore, count: u32) -> SemaphorePermit<'_> {
    match bytes.acquire_many(count).await {
        Ok(permit) => permit,
        // It is never closed.
        Err(_) => std::future::pending().await,
    }
}

impl Hold {
    /// How many bytes are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds bytes of the same share.
    pub fn merge(&mut self, mut other: Self) {
        assert!(Arc::ptr_eq(&self.share.0, &other.share.0));
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Takes some bytes out, or all that there are.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { share: self.share.clone(), bytes }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.share.0.own.add_permits(self.bytes);
            self.share.0.all.add_permits(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn an_owner_that_uses_its_share_up_leaves_the_rest_to_others() {
        let budget = Budget::new(100, 25);
        let greedy = budget.new_share();
        let mut held = greedy.try_hold(25).unwrap();
        assert!(greedy.try_hold(1).is_none());
        assert!(greedy.clone().hold(1).now_or_never().is_none(), "the same owner");
        assert!(budget.new_share().hold(25).now_or_never().is_some());
        drop(held.split(10));
        assert_eq!((held.bytes(), greedy.try_hold(10).unwrap().bytes()), (15, 10));
        assert_eq!(budget.held(), 15);
    }

    #[test]
    fn all_owners_together_use_no_more_than_the_whole() {
        let budget = Budget::new(100, 25);
        let mut held: Vec<_> = (0..4).map(|_| budget.new_share().try_hold(25).unwrap()).collect();
        let other = budget.new_share();
        assert!(other.try_hold(1).is_none());
        let waiting = other.hold(1);
        held.pop();
        assert_eq!(waiting.now_or_never().unwrap().bytes(), 1);
        assert_eq!(budget.held(), 75);
    }

    #[test]
    fn a_share_is_unused_once_nothing_of_it_is_held() {
        let share = Budget::new(100, 25).new_share();
        let held = share.try_hold(7);
        assert!(!share.is_unused());
        drop(held);
        assert!(share.is_unused());
    }

    #[test]
    fn a_network_of_ipv6_addresses_is_one_owner() {
        let owner = |address: &str| Owner::of_address(address.parse().unwrap());
        assert_eq!(owner("2001:db8:1:2::3"), owner("2001:db8:1:2:ffff::4"));
        assert_ne!(owner("2001:db8:1:2::3"), owner("2001:db8:1:3::3"));
        assert_eq!(owner("::ffff:10.0.0.1"), owner("10.0.0.1"));
    }
}
