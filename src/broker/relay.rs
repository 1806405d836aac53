//! The relay: one broker at a time moves messages that were published from SQL out of the outbox and
//! into the log.
//!
//! It polls the outbox. Publishers wake it only while it polls slowly: a notification takes a lock of
//! the whole cluster when its transaction commits.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{backoff::POLL_INTERVAL, log::topics::TopicLogs, notify::outbox::Outbox},
    metrics::BrokerMetrics,
    model::{LogEnds, Offset, TopicId},
    storage::{self, LeaseSession, OutboxLeft, OutboxPass, OutboxScope, Storage},
};

/// How often it polls while there is work. Publishers rely on that for a second after each move, and
/// send no notification.
const QUICK_INTERVAL: Duration = Duration::from_millis(2);

/// A pass costs about as much for a hundred messages as for one. So it polls less often the more it has
/// moved: the messages that come meanwhile share a pass.
const PAUSE_OF_A_MESSAGE: Duration = Duration::from_micros(100);
const LONGEST_QUICK_INTERVAL: Duration = Duration::from_millis(20);

/// How often it polls where publishers wake nobody.
const UNNOTIFIED_INTERVAL: Duration = Duration::from_millis(50);

/// How long it polls quickly after it has moved something.
const QUICK_FOR: Duration = Duration::from_secs(1);

/// A topic whose messages cannot be stored is tried again after the shorter pause, which doubles each time
/// up to the longer one. It holds up no other meanwhile.
const SHORT_PAUSE: Duration = Duration::from_millis(250);
const LONG_PAUSE: Duration = Duration::from_secs(4);

/// A pass that looks at the whole outbox, and not only at what is new. It finds what no other can: rows
/// that came from another cluster while this broker ran. It is put off while it would have to walk over
/// more than so many rows that were moved and wait for a vacuum.
const WHOLE_INTERVAL: Duration = Duration::from_secs(600);
const WHOLE_DEAD_ROWS: i64 = 200_000;

/// How soon such a pass is tried again if it failed or was put off.
const WHOLE_RETRY: Duration = Duration::from_secs(60);

/// A vacuum runs once this many messages were moved.
const VACUUM_MESSAGES: usize = 100_000;

/// Moves messages out of the outbox, while no other broker does so.
pub(crate) struct Relay {
    pub storage: Arc<Storage>,
    pub logs: Arc<TopicLogs>,
    /// Where other brokers are notified of heads.
    pub notifications: Outbox,
    /// The lease session, which also holds the lock that admits one relay at a time.
    pub session: watch::Receiver<Option<Arc<LeaseSession>>>,
    /// Notified when messages were published while nobody polled quickly.
    pub wake: Arc<Notify>,
    pub metrics: Arc<BrokerMetrics>,
    pub tasks: TaskTracker,
    pub stopping: CancellationToken,
}

/// What a relay knows of the outbox. Void with the session that it was found under.
#[derive(Default)]
struct Known {
    /// The last pass that is over, if there was one.
    since: Option<OutboxPass>,
    /// How often to poll while there is no work; `None` until that is known.
    interval: Option<Duration>,
    /// When the whole outbox was last looked at, or a pass of this server was found instead.
    whole_at: Option<Instant>,
    /// Topics whose messages could not be stored.
    blocked: HashMap<TopicId, Blocked>,
}

/// A topic whose messages could not be stored.
struct Blocked {
    retry_at: Instant,
    /// The pause until then.
    pause: Duration,
    /// The pass before the one that left them.
    since: Option<OutboxPass>,
    since_when: Instant,
}

impl Known {
    /// Notes topics whose messages a pass left, after the pass `since`.
    fn note_blocked(&mut self, left: Vec<OutboxLeft>, since: Option<&OutboxPass>) {
        let now = Instant::now();
        for OutboxLeft { topic, problem } in left {
            if let Some(error) = problem {
                let topic_number = topic.0;
                tracing::warn!(topic_number, error, "leave messages of a topic in the outbox");
            }
            let blocked = self.blocked.entry(topic).or_insert_with(|| Blocked {
                retry_at: now,
                pause: SHORT_PAUSE / 2,
                since: since.cloned(),
                since_when: now,
            });
            blocked.pause = (blocked.pause * 2).min(LONG_PAUSE);
            blocked.retry_at = now + blocked.pause;
        }
    }
}

impl Relay {
    /// Starts the relay.
    pub(crate) fn start(self) {
        let (tasks, stopping) = (self.tasks.clone(), self.stopping.clone());
        tasks.spawn(stopping.run_until_cancelled_owned(self.run()));
    }

    async fn run(self) {
        let (mut known, mut session) = (Known::default(), None);
        let (mut quick_until, mut unvacuumed) = (Instant::now(), 0);
        let vacuums = Arc::new(AtomicBool::new(false));
        let mut pause = POLL_INTERVAL;
        loop {
            tokio::select! {
                () = time::sleep(pause) => {}
                () = self.wake.notified() => {}
            }
            pause = known.interval.unwrap_or(POLL_INTERVAL);
            let current = self.session.borrow().clone();
            let Some(current) = current else {
                self.metrics.relay.blocked_topics(0);
                continue;
            };
            if session.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &current)) {
                known = Known::default();
                session = Some(current.clone());
            }
            let relayed = async {
                match current.lock_relay().await? {
                    true => self.relay(&mut known).await,
                    false => Ok(0),
                }
            };
            let relayed = relayed.await;
            self.metrics.relay.blocked_topics(known.blocked.len());
            let moved = match relayed {
                Ok(messages) => messages,
                Err(error) => {
                    tracing::warn!(%error, "move messages out of the outbox");
                    continue;
                }
            };
            if moved > 0 {
                quick_until = Instant::now() + QUICK_FOR;
                unvacuumed += moved;
            }
            if unvacuumed >= VACUUM_MESSAGES && !vacuums.swap(true, Ordering::AcqRel) {
                unvacuumed = 0;
                let vacuum = vacuum(self.storage.clone(), vacuums.clone());
                self.tasks.spawn(self.stopping.clone().run_until_cancelled_owned(vacuum));
            }
            let now = Instant::now();
            if now < quick_until {
                pause = PAUSE_OF_A_MESSAGE
                    .saturating_mul(u32::try_from(moved).unwrap_or(u32::MAX))
                    .clamp(QUICK_INTERVAL, LONGEST_QUICK_INTERVAL);
            }
            let retries = known.blocked.values().map(|blocked| blocked.retry_at - now);
            pause = retries.fold(pause, Duration::min).max(QUICK_INTERVAL);
        }
    }

    /// Moves what is new, and what was blocked; returns how many messages it moved.
    async fn relay(&self, known: &mut Known) -> Result<usize, storage::Error> {
        if known.interval.is_none() {
            known.interval = Some(match self.storage.prepares_transactions().await? {
                true => UNNOTIFIED_INTERVAL,
                false => POLL_INTERVAL,
            });
        }
        let now = Instant::now();
        let since = self.pass_before(known, now).await?;
        let is_whole = since.is_none();
        let skipped = known.blocked.keys().copied().collect();
        let scope = OutboxScope { only: Vec::new(), skipped };
        let (pass, mut moved) = self.pass(since, scope, known).await?;
        if pass.is_some() {
            known.since = pass;
            if is_whole || known.whole_at.is_none() {
                known.whole_at = Some(now);
            }
        }
        let due: Vec<TopicId> = known
            .blocked
            .iter()
            .filter(|(_, blocked)| blocked.retry_at <= now)
            .map(|(topic, _)| *topic)
            .collect();
        if !due.is_empty() {
            let oldest =
                due.iter().map(|topic| &known.blocked[topic]).min_by_key(|it| it.since_when);
            let since = oldest.and_then(|oldest| oldest.since.clone());
            let scope = OutboxScope { only: due.clone(), skipped: Vec::new() };
            let (pass, messages) = self.pass(since, scope, known).await?;
            moved += messages;
            if pass.is_some() {
                // What it left was noted again.
                known.blocked.retain(|topic, it| !due.contains(topic) || it.retry_at > now);
            }
        }
        Ok(moved)
    }

    /// The pass after which the next one looks for what is new; `None` for the whole outbox.
    async fn pass_before(
        &self,
        known: &mut Known,
        now: Instant,
    ) -> Result<Option<OutboxPass>, storage::Error> {
        match known.whole_at {
            None => return self.storage.find_outbox_pass().await,
            Some(at) if now - at < WHOLE_INTERVAL => return Ok(known.since.clone()),
            // Tried again after a while if it fails.
            Some(_) => known.whole_at = Some(now - WHOLE_INTERVAL + WHOLE_RETRY),
        }
        let dead = self.storage.count_dead_outbox_rows().await?;
        Ok(known.since.clone().filter(|_| dead > WHOLE_DEAD_ROWS))
    }

    /// Moves everything that is visible now and was not by the end of the pass `since`. Returns no pass
    /// if another broker is at it.
    async fn pass(
        &self,
        since: Option<OutboxPass>,
        mut scope: OutboxScope,
        known: &mut Known,
    ) -> Result<(Option<OutboxPass>, usize), storage::Error> {
        let (mut progress, mut messages) = (None, 0);
        loop {
            let observation = self.logs.begin();
            let moved = self.storage.move_outbox(since.as_ref(), progress.as_ref(), &scope).await?;
            let Some(moved) = moved else { return Ok((None, messages)) };
            for &(topic, head) in &moved.heads {
                observation.observe(topic, LogEnds { start: Offset(0), head });
                self.notifications.head_moved(topic, head);
            }
            messages += moved.messages;
            self.metrics.relay.moved(moved.messages);
            if moved.dropped > 0 {
                self.metrics.relay.dropped(moved.dropped);
                let messages = moved.dropped;
                tracing::warn!(messages, "dropped messages of deleted topics from the outbox");
            }
            // The rest of the pass leaves a blocked topic out: its messages keep their order.
            scope.skipped.extend(moved.blocked.iter().map(|left| left.topic));
            known.note_blocked(moved.blocked, since.as_ref());
            if moved.is_complete {
                return Ok((Some(moved.progress.pass), messages));
            }
            progress = Some(moved.progress);
        }
    }
}

async fn vacuum(storage: Arc<Storage>, vacuums: Arc<AtomicBool>) {
    if let Err(error) = storage.vacuum_outbox().await {
        tracing::warn!(%error, "vacuum the outbox");
    }
    vacuums.store(false, Ordering::Release);
}
