//! The copies that a broker keeps, and the task that keeps them up to date.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{self, Instant, MissedTickBehavior},
};

use crate::{
    access::{
        owners::Owners,
        snapshot::{KnownToken, Loaded, Snapshot},
        usage::{Usage, Usages},
    },
    model::{Allowance, Principal},
    storage::{self, Storage},
};

/// How often the database is asked whether anything has changed.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long an answer may take, including that to the statements that read what has changed.
const POLL_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the copies count without an answer of the database.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After this long, new calls are refused.
    pub refuse_after: Duration,
    /// After this long, open streams end.
    pub end_after: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { refuse_after: Duration::from_secs(5), end_after: Duration::from_secs(60) }
    }
}

/// Tokens of which it is remembered that they are revoked or have expired. A token beyond them is
/// unknown.
const ENDED_TOKENS: usize = 10_000;

/// What streams watch.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub snapshot: Arc<Snapshot>,
    /// Whether the database has not confirmed the snapshot for so long that streams end.
    pub lapsed: bool,
}

/// The copies.
pub(crate) struct State {
    pub storage: Arc<Storage>,
    pub owners: Owners,
    patience: Patience,
    usages: Usages,
    /// What a principal may have of what no quota limits.
    built_in: Allowance,
    view: watch::Sender<View>,
    began: Instant,
    /// When the database was asked that last confirmed the snapshot, in milliseconds since `began`.
    confirmed: AtomicU64,
    /// Tokens whose use is still to be recorded. There are no more of them than valid tokens.
    used: Mutex<HashSet<Arc<str>>>,
    /// How many sessions the storage has opened. One that was opened since the copies were read may
    /// lead to another server, which lacks registrations that the copies know.
    sessions_opened: Arc<AtomicU64>,
    /// Held by whoever reads the database: how many sessions there were when the copies were read.
    reading: tokio::sync::Mutex<u64>,
}

impl State {
    /// Reads the first copy.
    pub(crate) async fn load(
        storage: Arc<Storage>,
        built_in: Allowance,
        patience: Patience,
    ) -> Result<Self, storage::Error> {
        let view = View { snapshot: Arc::default(), lapsed: false };
        let state = Self {
            sessions_opened: storage.sessions_opened(),
            storage,
            patience,
            owners: Owners::default(),
            usages: Usages::default(),
            built_in,
            view: watch::Sender::new(view),
            began: Instant::now(),
            confirmed: AtomicU64::new(0),
            used: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        };
        state.refresh().await?;
        Ok(state)
    }

    /// The current view. It is replaced, never changed.
    pub(crate) fn watch(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// The current snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.view.borrow().snapshot.clone()
    }

    /// What a principal uses in this broker.
    pub(crate) fn usage(&self, principal: &Principal) -> Arc<Usage> {
        self.usages.find(principal, || self.snapshot())
    }

    /// Whether the database has confirmed the snapshot lately enough for new calls.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.unconfirmed_for() <= self.patience.refuse_after
    }

    /// Notes that a token is used.
    pub(crate) fn record_use(&self, token: &KnownToken) {
        if token.is_use_due(self.began.elapsed()) {
            self.used.lock().insert(token.id.clone());
        }
    }

    /// Keeps the copies up to date.
    pub(crate) async fn keep_up_to_date(&self) {
        let mut tick = time::interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match time::timeout(POLL_TIMEOUT, self.refresh()).await {
                Ok(Ok(())) => self.store_use().await,
                Ok(Err(error)) => tracing::warn!(%error, "poll tokens and grants"),
                Err(_) => tracing::warn!(error = no_answer(), "poll tokens and grants"),
            }
            let lapsed = self.unconfirmed_for() > self.patience.end_after;
            self.view
                .send_if_modified(|view| std::mem::replace(&mut view.lapsed, lapsed) != lapsed);
        }
    }

    /// Reads what has changed.
    pub(crate) async fn refresh(&self) -> Result<(), storage::Error> {
        let mut read_with = self.reading.lock().await;
        let sessions = self.sessions_opened.load(Ordering::Acquire);
        let asked = self.began.elapsed().as_millis() as u64;
        let version = self.storage.find_access_version().await?;
        let known = self.snapshot();
        // Registrations that a fail-over lost change no version.
        let may_have_lost = *read_with != sessions;
        if version != known.version || may_have_lost {
            // Before the snapshot is replaced: streams that it wakes then find their owners.
            if version.owners != known.version.owners || may_have_lost {
                self.owners.read_again(&self.storage, version.owners).await?;
            }
            let tokens = self.storage.load_tokens(ENDED_TOKENS).await?;
            let grants = self.storage.load_grants().await?;
            let quotas = self.storage.load_quotas().await?;
            let loaded = Loaded { version, tokens, grants, quotas };
            let snapshot = Arc::new(Snapshot::new(loaded, self.built_in, &known));
            self.view.send_modify(|view| view.snapshot = snapshot.clone());
            *read_with = sessions;
            if !snapshot.has_quotas_of(&known) {
                // After the snapshot is replaced: who is remembered from now on has its quotas.
                self.usages.renew(&known, &snapshot);
            }
        }
        self.confirmed.fetch_max(asked, Ordering::Relaxed);
        Ok(())
    }

    /// Reads what this broker has just changed. What cannot be read now is found by the next poll.
    pub(crate) async fn refresh_soon(&self) {
        match time::timeout(POLL_TIMEOUT, self.refresh()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "read a change of tokens and grants"),
            Err(_) => tracing::warn!(error = no_answer(), "read a change of tokens and grants"),
        }
    }

    /// Stores which tokens were used.
    pub(crate) async fn store_use(&self) {
        let used = std::mem::take(&mut *self.used.lock());
        if used.is_empty() {
            return;
        }
        let ids: Vec<&str> = used.iter().map(|id| &**id).collect();
        match time::timeout(POLL_TIMEOUT, self.storage.record_use(&ids)).await {
            Ok(Ok(())) => {}
            // The next use that is due is recorded again.
            Ok(Err(error)) => tracing::debug!(%error, "record the use of tokens"),
            Err(_) => tracing::debug!(error = no_answer(), "record the use of tokens"),
        }
    }

    fn unconfirmed_for(&self) -> Duration {
        let confirmed = Duration::from_millis(self.confirmed.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(confirmed)
    }
}

/// Says that the database did not answer, for the log.
fn no_answer() -> String {
    format!("no answer in {POLL_TIMEOUT:?}")
}
