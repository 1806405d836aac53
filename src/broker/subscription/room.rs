//! The subscriptions that this broker owns, and the way to them.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    broker::{
        calls::SessionOwner,
        consume::delivery::Delivery,
        error::Error,
        subscription::{
            deliveries::WorkerId,
            owner::Owner,
            receivers::{Command, Description, Receiver, Worker},
            request::{Receive, Received, Settle, Settlement, Verdict},
            unsent::UnsentAnswer,
            writer::SettlementWriter,
        },
    },
    model::{ConsumerId, Endpoint, TopicName},
};

/// How many commands may wait for an owner. Further callers wait to send theirs.
const QUEUE_LENGTH: usize = 1_024;

/// How many owners a call tries. An owner that ends for want of calls just when one comes is rare enough; that
/// it happens again and again is a fault.
const MAX_OWNERS: usize = 5;

/// A subscription, by its names.
pub(super) type Names = (TopicName, ConsumerId);

/// The subscriptions of this broker.
pub(super) struct Room {
    pub delivery: Arc<Delivery>,
    writer: Arc<SettlementWriter>,
    owners: Mutex<HashMap<Names, Way>>,
    next_worker: AtomicU64,
    /// Where this broker takes calls that others forward to it.
    endpoint: OnceLock<Arc<Endpoint>>,
}

/// The way to an owner.
#[derive(Clone)]
struct Way {
    commands: mpsc::Sender<Command>,
    /// Locked by whoever changes what only the database knows.
    changing: Arc<tokio::sync::Mutex<()>>,
}

/// Hands the messages of shared subscriptions to workers.
pub struct Subscriptions(pub(super) Arc<Room>);

impl Subscriptions {
    pub(crate) fn new(delivery: Arc<Delivery>, writer: Arc<SettlementWriter>) -> Self {
        let (owners, next_worker) = (Mutex::default(), AtomicU64::new(0));
        let endpoint = OnceLock::new();
        Self(Arc::new(Room { delivery, writer, owners, next_worker, endpoint }))
    }

    /// Says where this broker takes calls that others forward to it. Call this once, before anything is
    /// served.
    pub fn take_forwarded_at(&self, endpoint: Arc<Endpoint>) {
        self.0.endpoint.get_or_init(|| endpoint);
    }

    /// Accepts no more settlements.
    pub(crate) fn close(&self) {
        self.0.writer.close();
    }

    /// Takes the next messages. If this is dropped before it is ready, they are taken back.
    pub async fn receive(&self, request: Receive) -> Result<Received, Error> {
        let until = Instant::now() + request.wait;
        let deadline = request.deadline;
        let names = (request.topic, request.subscription);
        let received = self.0.call(&names, |reply| {
            Command::Receive(Receiver {
                worker: Worker::Call(self.0.new_worker()),
                max_messages: request.max_messages,
                answers: request.answers.clone(),
                until: Some(until),
                deadline,
                unsent: Some(self.0.unsent_answer(&names)),
                reply,
            })
        });
        match received.await {
            Ok(received)
                if received.deliveries.is_empty()
                    && deadline.is_some_and(|deadline| deadline <= Instant::now()) =>
            {
                Err(Error::DeadlineExceeded)
            }
            received => received,
        }
    }

    /// Carries out verdicts of workers. Returns how many messages each of them applied to, once that is on
    /// disk.
    pub async fn settle(&self, request: Settle) -> Result<Vec<usize>, Error> {
        let settlements = self.0.with_storable_reasons(request.settlements).await?;
        let names = (request.topic, request.subscription);
        let settle = |reply| Command::Settle { settlements: settlements.clone(), reply };
        self.0.call(&names, settle).await
    }
}

impl Room {
    /// Replaces characters of reasons that the database cannot store: a refusal would keep a worker from
    /// getting rid of its message.
    pub(super) async fn with_storable_reasons(
        &self,
        settlements: Arc<[Settlement]>,
    ) -> Result<Arc<[Settlement]>, Error> {
        match self.check_reasons(&settlements).await {
            Ok(()) => Ok(settlements),
            Err(Error::Invalid(_)) => Ok(settlements.iter().cloned().map(in_ascii).collect()),
            Err(error) => Err(error),
        }
    }

    /// Refuses reasons that the database cannot store.
    async fn check_reasons(&self, settlements: &[Settlement]) -> Result<(), Error> {
        let reasons = settlements.iter().filter_map(|settlement| match &settlement.verdict {
            Verdict::Reject { reason } => Some(&**reason),
            _ => None,
        });
        let Delivery { characters, storage, .. } = &*self.delivery;
        characters.check(&**storage, "reject.reason", reasons).await
    }

    /// Has the owner of a subscription take deliveries back that are not sent.
    fn unsent_answer(self: &Arc<Self>, names: &Names) -> UnsentAnswer {
        let (room, names) = (self.clone(), names.clone());
        UnsentAnswer::new(move |deliveries| room.send(&names, Command::TakeBack(deliveries)))
    }

    /// The number of a new worker.
    pub(super) fn new_worker(&self) -> WorkerId {
        WorkerId(self.next_worker.fetch_add(1, Ordering::Relaxed))
    }

    /// How a subscription stands.
    pub(super) async fn describe(&self, names: &Names) -> Result<Description, Error> {
        self.call(names, Command::Describe).await
    }

    /// Sends a command to the owner of a subscription, and waits for the answer. Begins an owner if there is
    /// none.
    pub(super) async fn call<T>(
        &self,
        names: &Names,
        command: impl Fn(oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        let answered = async {
            for _ in 0..MAX_OWNERS {
                // Without an answer, the owner ended before it began with the command.
                if let Some(answer) = self.ask(names, &command).await?
                    && let Ok(answer) = answer.await
                {
                    return answer;
                }
            }
            Err(Error::internal())
        };
        self.delivery.calls.track(answered).await
    }

    /// Sends a command to the owner of a subscription, or to a new one. Returns where the answer comes, or
    /// `None` if the owner has just ended.
    pub(super) async fn ask<T>(
        &self,
        names: &Names,
        command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Result<Option<oneshot::Receiver<Result<T, Error>>>, Error> {
        self.delivery.calls.admit()?;
        let owner = self.way(names).commands;
        let (reply, answer) = oneshot::channel();
        Ok(owner.send(command(reply)).await.is_ok().then_some(answer))
    }

    /// Asks the owner of a subscription something, if there is one that can answer.
    pub(super) async fn ask_running<T>(
        &self,
        names: &Names,
        command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Option<T> {
        let owner = self.owners.lock().get(names).cloned()?;
        let (reply, answer) = oneshot::channel();
        owner.commands.send(command(reply)).await.ok()?;
        answer.await.ok()?.ok()
    }

    /// The subscriptions that have owners here, in order.
    pub(super) fn running(&self) -> Vec<Names> {
        let owners = self.owners.lock();
        let running = owners.iter().filter(|(_, way)| !way.commands.is_closed());
        let mut running: Vec<Names> = running.map(|(names, _)| names.clone()).collect();
        running.sort_unstable();
        running
    }

    /// Sends a command that has no answer to the owner of a subscription, if there is one.
    pub(super) fn send(&self, names: &Names, command: Command) {
        let owner = self.owners.lock().get(names).cloned();
        let Some(owner) = owner else { return };
        if let Err(mpsc::error::TrySendError::Full(command)) = owner.commands.try_send(command) {
            // If it ends meanwhile, it knows nothing any more.
            let send = async move { drop(owner.commands.send(command).await) };
            self.delivery.calls.spawn(send);
        }
    }

    /// Where this broker takes calls that others forward to it.
    pub(super) fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.endpoint.get().cloned()
    }

    /// Waits for the turn to change what only the database knows of a subscription.
    pub(super) async fn change(&self, names: &Names) -> tokio::sync::OwnedMutexGuard<()> {
        self.way(names).changing.lock_owned().await
    }

    /// The way to a subscription's owner. Begins an owner if there is none.
    fn way(&self, names: &Names) -> Way {
        let mut owners = self.owners.lock();
        let known = owners.get(names).cloned();
        if let Some(way) = known.as_ref().filter(|way| !way.commands.is_closed()) {
            return way.clone();
        }
        owners.retain(|_, way| way.is_needed());
        let (commands, received) = mpsc::channel(QUEUE_LENGTH);
        let (topic, consumer) = names.clone();
        let owner = Owner {
            delivery: self.delivery.clone(),
            writer: self.writer.clone(),
            topic,
            consumer,
            endpoint: self.endpoint(),
            commands: received,
        };
        // It works for all its callers, and for none of them in particular.
        self.delivery.calls.spawn(SessionOwner::default().scope(owner.run()));
        let changing = known.map(|way| way.changing).unwrap_or_default();
        let way = Way { commands, changing };
        owners.insert(names.clone(), way.clone());
        way
    }
}

impl Way {
    /// Whether the owner works, or somebody changes something or waits to: whoever changes something next must
    /// find the same lock.
    fn is_needed(&self) -> bool {
        !self.commands.is_closed() || Arc::strong_count(&self.changing) > 1
    }
}

/// A settlement whose reason, if it has one, any database can store.
fn in_ascii(settlement: Settlement) -> Settlement {
    let verdict = match settlement.verdict {
        Verdict::Reject { reason } => {
            let reason = reason.chars().map(|it| if it.is_ascii() { it } else { '?' });
            Verdict::Reject { reason: reason.collect::<String>().into() }
        }
        verdict => verdict,
    };
    Settlement { verdict, ..settlement }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_lock_of_a_change_is_kept_after_the_owner_has_ended() {
        let (commands, received) = mpsc::channel(1);
        let way = Way { commands, changing: Arc::default() };
        assert!(way.is_needed());
        drop(received);
        assert!(!way.is_needed());
        let waits = way.changing.clone();
        assert!(way.is_needed());
        let changes = waits.lock_owned().await;
        assert!(way.is_needed());
        drop(changes);
        assert!(!way.is_needed());
    }
}
