//! What each owner has in the broker: open calls, bytes of requests and of answers, and a line for
//! the sessions of the database. One look-up finds all of it.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::{
    broker::{Budget, Owner, SessionOwner, Share},
    grpc::open_calls::{AllCalls, CallLimits, OpenCalls},
};

/// How many bytes of requests that do not publish may arrive at once. They are small and decoded at
/// once, so this only limits those that are sent slowly.
const CALL_BYTES: usize = 64 * 1024 * 1024;

/// The share of each owner.
const CALL_BYTES_EACH: usize = CALL_BYTES / 4;

/// How many bytes of answers may wait for their clients, and the share of each owner.
const ANSWER_BYTES: usize = 256 * 1024 * 1024;
const ANSWER_BYTES_EACH: usize = ANSWER_BYTES / 4;

/// Owners that have nothing in the broker are forgotten once there are this many.
const FIRST_SWEEP: usize = 1_024;

/// What one owner has in the broker.
pub(super) struct Account {
    /// What publishes are charged to, and other requests.
    pub(super) publishes: Share,
    pub(super) calls: Share,
    pub(super) answers: Share,
    pub(super) sessions: SessionOwner,
    pub(super) open: OpenCalls,
    /// Whether its calls come from clients that have not proved who they are, although others must.
    pub(super) is_of_strangers: bool,
}

/// The accounts of all owners.
pub(super) struct Accounts {
    publishes: Arc<Budget>,
    answers: Budget,
    /// Clients that have proved who they are, or all if none has to.
    known: Kind,
    /// Clients that need not prove who they are for the few calls that are open to all, so that
    /// strangers keep no room from principals.
    strangers: Kind,
    /// Whether clients must prove who they are.
    authenticates: bool,
    owners: Mutex<Owners>,
}

/// What differs between kinds of owners.
struct Kind {
    calls: Budget,
    open: Arc<AllCalls>,
}

struct Owners {
    accounts: HashMap<Owner, Arc<Account>>,
    /// How many there may be until those that are unused are forgotten.
    sweep_at: usize,
}

impl Kind {
    fn new(limits: CallLimits) -> Self {
        let calls = Budget::new(CALL_BYTES, CALL_BYTES_EACH);
        Self { calls, open: AllCalls::new(limits) }
    }
}

impl Accounts {
    /// Accounts of a broker that serves so many streams.
    pub(super) fn new(publishes: Arc<Budget>, streams: usize, authenticates: bool) -> Self {
        let owners = Owners { accounts: HashMap::new(), sweep_at: FIRST_SWEEP };
        Self {
            publishes,
            answers: Budget::new(ANSWER_BYTES, ANSWER_BYTES_EACH),
            known: Kind::new(CallLimits::for_streams(streams)),
            strangers: Kind::new(CallLimits::OF_STRANGERS),
            authenticates,
            owners: Mutex::new(owners),
        }
    }

    /// How many calls are open.
    pub(super) fn open_calls(&self) -> usize {
        self.known.open.count() + self.strangers.open.count()
    }

    /// The account of an owner.
    pub(super) fn find(&self, owner: Owner) -> Arc<Account> {
        let mut owners = self.owners.lock();
        if let Some(account) = owners.accounts.get(&owner) {
            return account.clone();
        }
        owners.sweep_when_due();
        let account = Arc::new(self.open(&owner));
        owners.accounts.insert(owner, account.clone());
        account
    }

    fn open(&self, owner: &Owner) -> Account {
        let is_of_strangers = self.authenticates && matches!(owner, Owner::Address(_));
        let Kind { calls, open } = if is_of_strangers { &self.strangers } else { &self.known };
        Account {
            publishes: self.publishes.new_share(),
            calls: calls.new_share(),
            answers: self.answers.new_share(),
            sessions: SessionOwner::default(),
            open: OpenCalls::new(open.clone()),
            is_of_strangers,
        }
    }
}

impl Owners {
    fn sweep_when_due(&mut self) {
        if self.accounts.len() >= self.sweep_at {
            self.accounts.retain(|_, account| !account.is_unused());
            self.sweep_at = FIRST_SWEEP.max(2 * self.accounts.len());
        }
    }
}

impl Account {
    /// Whether nothing is left of all that was charged to it, some of which outlives its call.
    fn is_unused(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
            && [&self.publishes, &self.calls, &self.answers].into_iter().all(Share::is_unused)
            && self.sessions.is_unused()
            && self.open.is_unused()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::new(Arc::new(Budget::new(100, 25)), 1, false)
    }

    fn owner(name: &str) -> Owner {
        Owner::Principal(name.into())
    }

    #[test]
    fn an_owner_has_one_account() {
        let accounts = accounts();
        let first = accounts.find(owner("shop"));
        assert!(Arc::ptr_eq(&first, &accounts.find(owner("shop"))));
        assert!(!Arc::ptr_eq(&first, &accounts.find(owner("bank"))));
    }

    #[test]
    fn owners_that_have_nothing_are_forgotten() {
        let accounts = accounts();
        let held = accounts.find(owner("held")).publishes.try_hold(7);
        let open = accounts.find(owner("open"));
        for number in 0..10_000 {
            accounts.find(owner(&number.to_string()));
        }
        assert!(accounts.owners.lock().accounts.len() <= 2 * FIRST_SWEEP);
        assert!(accounts.find(owner("held")).publishes.try_hold(19).is_none());
        assert!(Arc::ptr_eq(&open, &accounts.find(owner("open"))));
        drop(held);
    }
}
