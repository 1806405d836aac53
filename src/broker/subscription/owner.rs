//! The owner of a subscription: the one broker that hands its messages to workers.
//!
//! It holds the lease of the subscription's consumer. So another broker takes over as soon as this one is
//! gone, and nothing that this one then tries to store is accepted. It is one task, which gets the requests of
//! all workers in turn, and ends when nobody has asked for anything for a while.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{
        consume::delivery::Delivery,
        error::Error,
        lease::{
            acquisition::{Acquired, Acquisition, Lease, LeaseEvent},
            queue::Priority,
            registry::Waiter,
            state::LeaseEnd,
        },
        subscription::{
            dead_letters::{Copier, Source},
            deliveries::DeliveryId,
            exceptions::{Exception, Exceptions},
            handing_out::{Handout, MAX_EXCEPTIONS},
            receivers::{Command, Description, Receiver},
            reservation::Reservation,
            settled::Settled,
            state::State,
            storing::{Caller, Lost, Storing},
            writer::SettlementWriter,
        },
    },
    model::{ConsumerId, ConsumerKey, Endpoint, Epoch, Offset, TopicName},
    storage::StoredReservation,
};

/// How the lease's holder is called.
const HOLDER: &str = "a broker that hands messages to workers";

/// An owner ends after so long without a request, unless workers have messages.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a new owner waits for the lease session, and for the owner before it to release the lease.
const LEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often it asks for the lease meanwhile.
const LEASE_POLL: Duration = Duration::from_millis(100);

/// How long an owner that ends waits for what it stores.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many commands it carries out before it looks for what else it has to do.
const MAX_COMMANDS: usize = 256;

/// The task of an owner.
pub(super) struct Owner {
    pub delivery: Arc<Delivery>,
    pub writer: Arc<SettlementWriter>,
    pub topic: TopicName,
    pub consumer: ConsumerId,
    /// Where this broker takes calls that others forward to it.
    pub endpoint: Option<Arc<Endpoint>>,
    pub commands: mpsc::Receiver<Command>,
}

/// What an owner works with while it holds the lease.
struct Serving {
    lease: Box<Lease>,
    deleted: CancellationToken,
    handout: Handout,
    storing: Storing,
    copier: Arc<Copier>,
    /// How many messages the metrics count as being with workers.
    outstanding: usize,
}

/// Why an owner ends.
enum End {
    /// Nobody needs it.
    Idle,
    /// What it knows is void, and is to be read again: the position was moved from outside.
    Void,
    Error(Error),
}

impl Owner {
    pub(super) async fn run(mut self) {
        let mut receivers = VecDeque::new();
        let end = loop {
            match self.own(&mut receivers).await {
                End::Void => {}
                end => break end,
            }
        };
        // Whoever sends a command from now on begins another owner. So does whoever gets no answer.
        self.commands.close();
        let End::Error(error) = end else { return };
        let error = error.logged("hand out a subscription's messages");
        while let Ok(command) = self.commands.try_recv() {
            command.refuse(&error);
        }
        for receiver in receivers {
            receiver.answer(Err(error.clone()));
        }
    }

    /// Acquires the lease, reads what is stored, and serves workers for as long as that is valid.
    async fn own(&mut self, receivers: &mut VecDeque<Receiver>) -> End {
        let waiter = self.delivery.leases.waiter(&self.topic, &self.consumer);
        let mut serving = match self.begin(&waiter).await {
            Ok(serving) => serving,
            Err(error) => return End::Error(error),
        };
        serving.handout.receivers = std::mem::take(receivers);
        let metrics = &self.delivery.metrics.subscriptions;
        metrics.begin();
        let end = self.serve(&mut serving).await;
        let metrics = &self.delivery.metrics.subscriptions;
        metrics.count(serving.handout.state.take_counts());
        metrics.count(serving.storing.take_counts());
        metrics.end(serving.outstanding);
        *receivers = std::mem::take(&mut serving.handout.receivers);
        serving.storing.abandon();
        serving.lease.release().await;
        end
    }

    async fn begin(&self, waiter: &Arc<Waiter>) -> Result<Serving, Error> {
        let (stored, log) = self.delivery.open_log(&self.topic, &self.consumer).await?;
        if !stored.is_shared {
            return Err(self.not_a_subscription());
        }
        let Acquired { lease, position } = self.acquire(waiter, stored.key).await?;
        // So every Commit counts as beyond it, and is refused.
        lease.record_delivered(Offset(-1));
        match self.load(&lease, position).await {
            Ok((state, storing)) => {
                let deleted = log.deleted();
                let (delivery, topic, log) =
                    (self.delivery.clone(), self.topic.clone(), Arc::new(log));
                let source = Source { topic: topic.clone(), subscription: self.consumer.clone() };
                let copier = Copier { delivery: delivery.clone(), log: log.clone(), source };
                let handout = Handout::new(delivery, topic, log, state, position);
                let copier = Arc::new(copier);
                Ok(Serving { lease, deleted, handout, storing, copier, outstanding: 0 })
            }
            Err(error) => {
                lease.release().await;
                Err(error)
            }
        }
    }

    /// Acquires the lease. If another broker has it, that one may just be dying.
    async fn acquire(&self, waiter: &Arc<Waiter>, key: ConsumerKey) -> Result<Acquired, Error> {
        let give_up_at = Instant::now() + LEASE_TIMEOUT;
        let open = self.delivery.leases.session_is_open();
        time::timeout_at(give_up_at, open).await.unwrap_or(Err(Error::unavailable()))?;
        let granted = time::timeout_at(give_up_at, waiter.enqueue(Priority::Normal)).await;
        let granted = granted.map_err(|_| Error::unavailable())?;
        let mut permit = granted.map_err(|_| Error::internal())?;
        loop {
            let (still_ours, refusal) = match waiter.acquire(permit, key, HOLDER, None).await? {
                Acquisition::Acquired(acquired) => return Ok(acquired),
                Acquisition::Unregistered => {
                    let catalogue = &self.delivery.catalogue;
                    return Err(catalogue.why_gone(&self.topic, &self.consumer).await);
                }
                Acquisition::Busy(permit) => (permit, self.find_elsewhere(key).await?),
                Acquisition::RowLocked(permit) => (permit, Error::unavailable()),
            };
            // Whoever calls asks the other broker, and comes back if that one is gone.
            let is_known =
                matches!(&refusal, Error::SubscriptionElsewhere { endpoint: Some(_), .. });
            if is_known || Instant::now() >= give_up_at {
                return Err(refusal);
            }
            permit = still_ours;
            tokio::select! {
                () = waiter.released_elsewhere() => {}
                () = time::sleep(LEASE_POLL) => {}
            }
        }
    }

    /// Why the subscription cannot be owned here, and where the other broker takes calls.
    async fn find_elsewhere(&self, key: ConsumerKey) -> Result<Error, Error> {
        let Some(own) = &self.endpoint else { return Ok(self.is_elsewhere(None)) };
        let found = self.delivery.storage.find_endpoint(key).await.map_err(Error::of_read)?;
        // The other broker may not have said yet that it is the owner now.
        let other = found.filter(|found| found.broker != own.broker);
        Ok(self.is_elsewhere(other.map(Arc::new)))
    }

    fn is_elsewhere(&self, endpoint: Option<Arc<Endpoint>>) -> Error {
        let (topic, consumer) = (self.topic.clone(), self.consumer.clone());
        Error::SubscriptionElsewhere { topic, consumer, endpoint }
    }

    fn not_a_subscription(&self) -> Error {
        let (topic, consumer) = (self.topic.clone(), self.consumer.clone());
        Error::NotASubscription { topic, consumer }
    }

    /// Reads what is stored.
    async fn load(&self, lease: &Lease, floor: Offset) -> Result<(State, Storing), Error> {
        let storage = &self.delivery.storage;
        let claimed =
            storage.claim_subscription(lease.key(), lease.epoch(), self.endpoint.as_deref()).await;
        claimed.map_err(Error::of_read)?;
        let began_at = Instant::now();
        let loaded = storage.load_subscription(lease.key()).await;
        let stored = loaded.map_err(Error::of_read)?.ok_or_else(|| self.not_a_subscription())?;
        let mut settled = Settled::before(floor);
        let (key, epoch) = (lease.key(), lease.epoch());
        let storing = Storing::load(key, epoch, stored.deltas, stored.head, &mut settled)?;
        let (now, mut exceptions) = (Instant::now(), Exceptions::default());
        for retry in stored.retries {
            let (attempts, due) = (retry.attempts, Some(now + retry.due_in));
            // Beyond the head, offsets are used again.
            if retry.offset < stored.head {
                exceptions.put(retry.offset, Exception { attempts, due, is_stored: true });
            }
        }
        let first = first_delivery(lease.epoch());
        let mut state = State::new(stored.policy, settled, exceptions, first);
        state.continue_lost(stored.lost);
        let Some(StoredReservation { end, left }) = stored.reservation else {
            return Ok((state, storing));
        };
        // By how much the time was earlier than now at which so much was left, nobody knows.
        let reserved = Reservation { end, until: began_at + left };
        Ok((state.take_over(reserved, now + left), storing))
    }

    async fn serve(&mut self, serving: &mut Serving) -> End {
        let Serving { lease, deleted, handout, storing, copier, outstanding } = serving;
        let draining = self.delivery.calls.draining().clone();
        let mut idle_since = Instant::now();
        let mut commands = Vec::new();
        loop {
            let now = Instant::now();
            handout.state.expire(now);
            handout.state.end_hold(now, handout.head());
            match self.unreadable_filter(handout) {
                None => handout.hand_out(now),
                Some(refusal) => handout.refuse_all(&refusal),
            }
            handout.answer_late(now);
            let metrics = &self.delivery.metrics.subscriptions;
            metrics.count(handout.state.take_counts());
            metrics.count(storing.take_counts());
            let before = std::mem::replace(outstanding, handout.state.outstanding().messages);
            metrics.outstanding_changed(before, *outstanding);
            storing.begin(&mut handout.state, &self.writer, copier, now);
            if handout.is_busy() || storing.is_busy() {
                idle_since = now;
            }
            let idle_at = idle_since + IDLE_TIMEOUT;
            let wake_at = [handout.next_event(), storing.retry_at()].into_iter().flatten().min();
            tokio::select! {
                event = lease.event() => return self.end_of(event),
                () = deleted.cancelled() => {
                    return End::Error(Error::TopicNotFound { topic: self.topic.clone() });
                }
                () = draining.cancelled() => {
                    self.store_the_rest(handout, storing, copier).await;
                    return End::Error(Error::Draining);
                }
                progress = storing.progress() => {
                    match storing.conclude(progress, &mut handout.state, Instant::now()) {
                        Ok(()) => {}
                        Err(Lost::Fenced) => return End::Void,
                        Err(Lost::Failing(error)) => return End::Error(error),
                    }
                }
                received = self.commands.recv_many(&mut commands, MAX_COMMANDS) => {
                    if received == 0 {
                        return End::Idle;
                    }
                    let now = Instant::now();
                    for command in commands.drain(..) {
                        carry_out(command, lease, handout, storing, now);
                    }
                }
                woken = handout.woken() => handout.wake(woken),
                () = time::sleep_until(wake_at.unwrap_or(idle_at).min(idle_at)) => {
                    let is_idle = !handout.is_busy() && !storing.is_busy();
                    if is_idle && Instant::now() >= idle_at {
                        self.store_the_rest(handout, storing, copier).await;
                        return End::Idle;
                    }
                }
            }
        }
    }

    /// Why nothing can be handed out, if the filter cannot be read. It can still be set.
    fn unreadable_filter(&self, handout: &Handout) -> Option<Error> {
        let problem = handout.state.policy().filter.as_ref()?.problem()?.to_string();
        let (topic, consumer) = (self.topic.clone(), self.consumer.clone());
        Some(Error::FilterUnreadable { topic, consumer, problem })
    }

    /// Why the lease's change ends the owner.
    fn end_of(&self, event: LeaseEvent) -> End {
        let (topic, consumer) = (self.topic.clone(), self.consumer.clone());
        match event {
            LeaseEvent::Sought => End::Void,
            LeaseEvent::SessionLost => End::Error(Error::unavailable()),
            LeaseEvent::Ended(LeaseEnd::TakenOver { .. }) => End::Error(self.is_elsewhere(None)),
            LeaseEvent::Ended(LeaseEnd::Unregistered) => {
                End::Error(Error::ConsumerNotFound { topic, consumer })
            }
        }
    }

    /// Stores everything before an owner ends that hands out nothing any more.
    async fn store_the_rest(
        &self,
        handout: &mut Handout,
        storing: &mut Storing,
        copier: &Arc<Copier>,
    ) {
        handout.state.shrink_reservation(Instant::now());
        let stored = async {
            loop {
                storing.begin(&mut handout.state, &self.writer, copier, Instant::now());
                if !storing.is_busy() {
                    return;
                }
                let retry_at = storing.retry_at();
                tokio::select! {
                    progress = storing.progress() => {
                        if storing.conclude(progress, &mut handout.state, Instant::now()).is_err() {
                            return;
                        }
                    }
                    () = time::sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {}
                }
            }
        };
        // What is not stored by then is delivered again.
        let _ = time::timeout(LAST_WRITE_TIMEOUT, stored).await;
    }
}

/// Does what a command asks for.
fn carry_out(
    command: Command,
    lease: &Lease,
    handout: &mut Handout,
    storing: &mut Storing,
    now: Instant,
) {
    match command {
        Command::Receive(receiver) => handout.receivers.push_back(receiver),
        Command::Settle { settlements, reply } => {
            let applied = handout.settle(&settlements, now);
            storing.add(Caller::Settles { applied, reply });
        }
        Command::TakeBack(deliveries) => {
            deliveries.into_iter().for_each(|id| handout.state.take_back(id, now));
        }
        Command::Leave { worker, unsent } => {
            handout.receivers.retain(|receiver| receiver.worker.id() != worker);
            unsent.into_iter().for_each(|id| handout.state.take_back(id, now));
            handout.state.leave(worker, now);
        }
        // They were found before, or have become something else since.
        Command::Replay { epoch, reply, .. } | Command::Discard { epoch, reply, .. }
            if epoch != lease.epoch() =>
        {
            drop(reply.send(Ok(None)));
        }
        Command::Replay { parked, reply, .. } => {
            if handout.state.exceptions() + parked.len() > MAX_EXCEPTIONS {
                let refusal = Error::TooManyRetried { limit: MAX_EXCEPTIONS };
                // A caller that has gone does not receive it.
                return drop(reply.send(Err(refusal)));
            }
            let count = handout.state.replay(&parked, now);
            storing.add(Caller::Unparks { count, reply });
        }
        Command::Discard { parked, reply, .. } => {
            let count = handout.state.discard(&parked);
            storing.add(Caller::Unparks { count, reply });
        }
        Command::SetPolicy { epoch, policy, reply } => {
            // A later epoch has begun with what is stored.
            if epoch != lease.epoch() {
                return drop(reply.send(Ok(())));
            }
            let begins_exactly_once = policy.exactly_once && !handout.state.policy().exactly_once;
            handout.state.set_policy(policy, now);
            match begins_exactly_once {
                // Once it is stored what workers have.
                true => storing.add(Caller::Changes { reply }),
                false => drop(reply.send(Ok(()))),
            }
        }
        Command::Describe(reply) => {
            let description = Description {
                key: lease.key(),
                epoch: lease.epoch(),
                policy: handout.state.policy().clone(),
                floor: handout.state.floor(),
                head: handout.head(),
            };
            drop(reply.send(Ok(description)));
        }
        Command::Stand(reply) => drop(reply.send(Ok(handout.standing(now)))),
    }
}

/// The number of an epoch's first delivery. It is greater than those of all earlier epochs.
fn first_delivery(epoch: Epoch) -> DeliveryId {
    DeliveryId(epoch.0.unsigned_abs() << 36)
}
