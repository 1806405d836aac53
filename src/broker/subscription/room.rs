//! The subscriptions that this broker owns, and the way to them.

use std::{collections::HashMap, sync::Arc};

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
            handing_out::{Command, Receiver},
            owner::Owner,
            request::{Receive, Received, Settle},
            writer::SettlementWriter,
        },
    },
    model::{ConsumerId, TopicName},
};

/// How many commands may wait for an owner. Further callers wait to send theirs.
const QUEUE_LENGTH: usize = 1_024;

/// How many owners a call tries. An owner that ends for want of calls just when one comes is rare enough; that
/// it happens again and again is a fault.
const MAX_OWNERS: usize = 5;

/// The subscriptions of this broker.
pub(crate) struct Room {
    pub delivery: Arc<Delivery>,
    pub writer: Arc<SettlementWriter>,
    owners: Mutex<HashMap<(TopicName, ConsumerId), mpsc::Sender<Command>>>,
}

/// Hands the messages of shared subscriptions to workers.
pub struct Subscriptions(Room);

impl Subscriptions {
    pub(crate) fn new(delivery: Arc<Delivery>, writer: Arc<SettlementWriter>) -> Self {
        Self(Room { delivery, writer, owners: Mutex::default() })
    }

    /// Accepts no more settlements.
    pub(crate) fn close(&self) {
        self.0.writer.close();
    }

    /// Takes the next messages.
    pub async fn receive(&self, request: Receive) -> Result<Received, Error> {
        let until = Instant::now() + request.wait;
        let deadline = request.deadline.filter(|deadline| *deadline < until);
        let received = self.0.call(&request.topic, &request.subscription, |reply| {
            let until = deadline.unwrap_or(until);
            Command::Receive(Receiver { request: request.clone(), until, reply })
        });
        match received.await {
            Ok(received) if received.deliveries.is_empty() && deadline.is_some() => {
                Err(Error::DeadlineExceeded)
            }
            received => received,
        }
    }

    /// Carries out verdicts of workers. Returns how many messages each of them applied to, once that is on
    /// disk.
    pub async fn settle(&self, request: Settle) -> Result<Vec<usize>, Error> {
        let settled = self.0.call(&request.topic, &request.subscription, |reply| Command::Settle {
            settlements: request.settlements.clone(),
            reply,
        });
        settled.await
    }
}

impl Room {
    /// Sends a command to the owner of a subscription, and waits for the answer. Begins an owner if there is
    /// none.
    async fn call<T>(
        &self,
        topic: &TopicName,
        subscription: &ConsumerId,
        command: impl Fn(oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        let answered = async {
            for _ in 0..MAX_OWNERS {
                self.delivery.calls.admit()?;
                let owner = self.owner(topic, subscription);
                let (reply, answer) = oneshot::channel();
                // Without an answer, the owner ended before it began with the command.
                if owner.send(command(reply)).await.is_ok()
                    && let Ok(answer) = answer.await
                {
                    return answer;
                }
            }
            Err(Error::internal())
        };
        self.delivery.calls.track(answered).await
    }

    fn owner(&self, topic: &TopicName, subscription: &ConsumerId) -> mpsc::Sender<Command> {
        let mut owners = self.owners.lock();
        let names = (topic.clone(), subscription.clone());
        if let Some(owner) = owners.get(&names).filter(|owner| !owner.is_closed()) {
            return owner.clone();
        }
        owners.retain(|_, owner| !owner.is_closed());
        let (commands, received) = mpsc::channel(QUEUE_LENGTH);
        let owner = Owner {
            delivery: self.delivery.clone(),
            writer: self.writer.clone(),
            topic: topic.clone(),
            consumer: subscription.clone(),
            commands: received,
        };
        // It works for all its callers, and for none of them in particular.
        self.delivery.calls.spawn(SessionOwner::default().scope(owner.run()));
        owners.insert(names, commands.clone());
        commands
    }
}
