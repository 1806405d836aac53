//! Workers that hold a stream: each takes messages for as long as it has room for them, and settles some
//! meanwhile.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::broker::{
    error::Error,
    subscription::{
        deliveries::WorkerId,
        receivers::{Command, Description, KnownIdle, Receiver, Worker},
        request::{Received, Settlement, Subscribe, WorkerLimits},
        room::{Names, Room, Subscriptions},
        unsent::UnsentEvents,
    },
};

/// A worker's stream. When it is dropped, what the worker has is delivered again. What its client was not sent
/// does not count as an attempt.
pub struct WorkerStream {
    room: Arc<Room>,
    names: Names,
    id: WorkerId,
    limits: WorkerLimits,
    max_batch_messages: usize,
    /// What it knows of why it gets no messages.
    known: KnownIdle,
    /// Where the next messages come.
    next: Option<oneshot::Receiver<Result<Received, Error>>>,
    unsent: UnsentEvents,
    /// Counts the stream.
    _admitted: OwnedSemaphorePermit,
}

/// Settles messages of a subscription, in the order in which that is asked.
#[derive(Clone)]
pub struct Settler {
    room: Arc<Room>,
    names: Names,
}

/// The outcome of settlements, which comes once they are on disk.
pub struct Settling {
    settler: Settler,
    settlements: Arc<[Settlement]>,
    /// `None` if the owner that was asked has ended.
    answer: Option<oneshot::Receiver<Result<Vec<usize>, Error>>>,
}

impl Subscriptions {
    /// Opens a worker's stream.
    pub async fn subscribe(
        &self,
        request: Subscribe,
    ) -> Result<(WorkerStream, Description), Error> {
        let Subscribe { topic, subscription, limits, max_batch_messages } = request;
        let (names, room) = ((topic, subscription), self.0.clone());
        let admitted = room.delivery.streams.admit()?;
        let description = room.describe(&names).await?;
        let stream = WorkerStream {
            id: room.new_worker(),
            room,
            names,
            limits,
            max_batch_messages,
            known: KnownIdle::default(),
            next: None,
            unsent: UnsentEvents::default(),
            _admitted: admitted,
        };
        Ok((stream, description))
    }
}

impl WorkerStream {
    /// Waits for messages, or for a reason why there are none. Nothing is lost if the wait is given up.
    pub async fn next(&mut self) -> Result<Received, Error> {
        loop {
            let answer = match &mut self.next {
                Some(answer) => answer,
                none => {
                    let (id, limits, known) = (self.id, self.limits, self.known);
                    let asked = self.room.ask(&self.names, |reply| {
                        Command::Receive(Receiver {
                            worker: Worker::Stream { id, limits, known },
                            max_messages: self.max_batch_messages,
                            answers: None,
                            until: None,
                            deadline: None,
                            unsent: None,
                            reply,
                        })
                    });
                    match asked.await? {
                        Some(answer) => none.insert(answer),
                        None => continue,
                    }
                }
            };
            let answered = answer.await;
            self.next = None;
            // Without an answer, the owner has ended, and the next one is asked.
            let Ok(answered) = answered else { continue };
            let received = answered?;
            self.unsent.add(received.deliveries.iter().map(|delivery| delivery.id));
            match received.idle {
                Some(idle) => self.known.note(idle),
                None => self.known = KnownIdle::default(),
            }
            return Ok(received);
        }
    }

    /// Asks for no more messages. Returns those that were on their way.
    pub fn stop(&mut self) -> Option<Result<Received, Error>> {
        let mut next = self.next.take()?;
        // What is not sent by now is handed to somebody else.
        next.close();
        let answered = next.try_recv().ok();
        if let Some(Ok(received)) = &answered {
            self.unsent.add(received.deliveries.iter().map(|delivery| delivery.id));
        }
        answered
    }

    /// Which of the stream's deliveries its client has not been sent.
    pub fn unsent(&self) -> UnsentEvents {
        self.unsent.clone()
    }

    /// What settles messages.
    pub fn settler(&self) -> Settler {
        Settler { room: self.room.clone(), names: self.names.clone() }
    }
}

impl Drop for WorkerStream {
    fn drop(&mut self) {
        // What is on its way here is not sent either.
        drop(self.stop());
        let unsent = self.unsent.take();
        self.room.send(&self.names, Command::Leave { worker: self.id, unsent });
    }
}

impl Settler {
    /// Settles messages. Returns as soon as the order of what is settled next is certain.
    pub async fn settle(&self, settlements: Vec<Settlement>) -> Result<Settling, Error> {
        let settlements = self.room.with_storable_reasons(settlements.into()).await?;
        let settle = |reply| Command::Settle { settlements: settlements.clone(), reply };
        let answer = self.room.ask(&self.names, settle).await?;
        Ok(Settling { settler: self.clone(), settlements, answer })
    }
}

impl Settling {
    /// How many messages each settlement applied to, once that is on disk.
    pub async fn settled(self) -> Result<Vec<usize>, Error> {
        let Self { settler: Settler { room, names }, settlements, answer } = self;
        if let Some(answer) = answer
            && let Ok(answer) = answer.await
        {
            return answer;
        }
        room.call(&names, |reply| Command::Settle { settlements: settlements.clone(), reply }).await
    }
}
