//! A worker's stream: messages come one way, settlements go the other.

use std::{iter, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::job::Job;
use crate::{
    client::{connect::Connection, error::Error, message::Message},
    proto::{
        self, Deliveries, Delivery, OpenSubscription, SettleMessages, Settled, Settlement, Stalled,
        StopDelivery, SubscribeRequest, SubscribeResponse, SubscriptionAttached,
        SubscriptionHeartbeat, subscribe_request::Request, subscribe_response::Event,
        subscription_service_client::SubscriptionServiceClient,
    },
};

/// How long a broker may take to open a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// How many requests wait to be sent. Beyond that, verdicts gather, and go together in a later one.
const WAITING_REQUESTS: usize = 2;

/// A worker's stream by itself, for programs that schedule their work in their own way; from
/// [`WorkerBuilder::open_stream`](crate::client::WorkerBuilder::open_stream). A
/// [`Worker`](super::Worker) extends deadlines and opens lost streams again, which this does not.
///
/// ```no_run
/// # async fn example(client: trunkline::client::Client) -> Result<(), trunkline::client::Error> {
/// use trunkline::{
///     client::WorkerEvent,
///     proto::{Acknowledge, Settlement, settlement::Verdict},
/// };
///
/// let mut stream = client.worker("orders", "billing").open_stream().await?;
/// while let Some(event) = stream.next_event().await? {
///     let WorkerEvent::Jobs(jobs) = event else { continue };
///     let done = jobs.iter().map(|job| Settlement {
///         delivery: job.delivery(),
///         offsets: vec![job.offset],
///         verdict: Some(Verdict::Acknowledge(Acknowledge {})),
///         ..Default::default()
///     });
///     stream.settle(done.collect()).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct WorkerStream {
    pub(super) requests: Requests,
    pub(super) events: Events,
}

/// An event of a [`WorkerStream`].
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerEvent {
    /// The stream is open: how messages are delivered, and where the subscription is.
    Attached(SubscriptionAttached),
    /// Messages to work on, at least one.
    Jobs(Vec<Job>),
    /// There is nothing more that could be delivered now.
    CaughtUp,
    /// Nothing else happened for the heartbeat interval.
    Heartbeat(SubscriptionHeartbeat),
    /// Messages wait, and cannot be delivered to this worker now.
    Stalled(Stalled),
    /// Settlements are on disk.
    Settled(Settled),
}

impl WorkerStream {
    /// Opens a stream. It counts as lost if the broker is silent for longer than `silence`.
    pub(crate) async fn open(
        connection: Connection,
        open: OpenSubscription,
        silence: Duration,
    ) -> Result<Self, Status> {
        let (sender, outgoing) = mpsc::channel(WAITING_REQUESTS);
        // The channel is empty.
        let _ = sender.try_send(request(Request::Open(open)));
        let mut subscriptions = SubscriptionServiceClient::new(connection);
        let opening = subscriptions.subscribe(ReceiverStream::new(outgoing));
        let opened = timeout(OPEN_TIMEOUT, opening).await.map_err(|_| silent())?;
        let events = Events { stream: opened?.into_inner(), silence, heard_at: Instant::now() };
        Ok(Self { requests: Requests::new(sender), events })
    }

    /// Waits for the next event; `None` once the broker has ended the stream.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if the connection broke, or [`Error::Refused`] with the status that the broker
    /// ended the stream with. What is not settled is delivered again.
    pub async fn next_event(&mut self) -> Result<Option<WorkerEvent>, Error> {
        Ok(self.events.next_event().await?)
    }

    /// Sends settlements, 1 to 10,000 and at most 128 KiB, after waiting for room. Returns the id of the
    /// request, which the [`WorkerEvent::Settled`] that answers it repeats. Answers come in the order of
    /// the requests. Events must be read meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the stream has ended; [`Self::next_event`] says why.
    pub async fn settle(&mut self, settlements: Vec<Settlement>) -> Result<i64, Error> {
        let room = self.requests.sender.reserve().await.map_err(|_| Error::Closed)?;
        self.requests.sent += 1;
        let request_id = self.requests.sent;
        room.send(request(Request::Settle(SettleMessages { settlements, request_id })));
        Ok(request_id)
    }

    /// Asks for no more messages. Those that are on their way still come.
    ///
    /// # Errors
    ///
    /// As for [`Self::settle`].
    pub async fn stop_delivery(&mut self) -> Result<(), Error> {
        let stop = request(Request::Stop(StopDelivery {}));
        self.requests.sender.send(stop).await.map_err(|_| Error::Closed)
    }

    /// Waits for the answers to all requests, and ends the stream. What is not settled by then is
    /// delivered again.
    ///
    /// # Errors
    ///
    /// As for [`Self::next_event`].
    pub async fn close(self) -> Result<(), Error> {
        Ok(self.finish().await?)
    }

    pub(super) async fn finish(self) -> Result<(), Status> {
        let Self { requests, mut events } = self;
        drop(requests);
        while events.next_event().await?.is_some() {}
        Ok(())
    }
}

/// What goes to the broker.
#[derive(Debug)]
pub(super) struct Requests {
    sender: mpsc::Sender<SubscribeRequest>,
    /// The id of the last request that settles.
    sent: i64,
    /// The id of the last one that is answered.
    answered: i64,
}

impl Requests {
    pub(super) fn new(sender: mpsc::Sender<SubscribeRequest>) -> Self {
        Self { sender, sent: 0, answered: 0 }
    }

    /// Waits until a request can be sent; for ever if the stream has ended, which its events tell.
    pub(super) async fn room(&self) {
        if self.sender.reserve().await.is_err() {
            std::future::pending().await
        }
    }

    /// Sends settlements, once there is [room](Self::room).
    pub(super) fn settle(&mut self, settlements: Vec<Settlement>) {
        self.sent += 1;
        let settle = SettleMessages { settlements, request_id: self.sent };
        // Without room, the stream has ended.
        let _ = self.sender.try_send(request(Request::Settle(settle)));
    }

    /// Asks for no more messages, once there is [room](Self::room).
    pub(super) fn stop_delivery(&mut self) {
        // Without room, the stream has ended.
        let _ = self.sender.try_send(request(Request::Stop(StopDelivery {})));
    }

    /// Records the answer to a request, and so to all before it.
    pub(super) fn record_answer(&mut self, request_id: i64) {
        self.answered = self.answered.max(request_id);
    }

    /// How many requests are not answered.
    pub(super) fn unanswered(&self) -> i64 {
        self.sent - self.answered
    }
}

fn request(request: Request) -> SubscribeRequest {
    SubscribeRequest { request: Some(request) }
}

/// What comes from the broker.
#[derive(Debug)]
pub(super) struct Events {
    stream: Streaming<SubscribeResponse>,
    /// How long the broker may be silent.
    silence: Duration,
    heard_at: Instant,
}

impl Events {
    /// Waits for the next event; `None` once the broker has ended the stream. Nothing is lost if it is
    /// dropped before.
    pub(super) async fn next_event(&mut self) -> Result<Option<WorkerEvent>, Status> {
        loop {
            // What has arrived counts, even if nobody has looked for a while.
            let next = timeout_at(self.heard_at + self.silence, self.stream.message()).await;
            let response = next.map_err(|_| silent())??;
            self.heard_at = Instant::now();
            let Some(SubscribeResponse { event }) = response else { return Ok(None) };
            return Ok(Some(match event {
                Some(Event::Attached(attached)) => WorkerEvent::Attached(attached),
                Some(Event::Deliveries(deliveries)) => WorkerEvent::Jobs(jobs(deliveries)),
                Some(Event::CaughtUp(_)) => WorkerEvent::CaughtUp,
                Some(Event::Heartbeat(heartbeat)) => WorkerEvent::Heartbeat(heartbeat),
                Some(Event::Stalled(stalled)) => WorkerEvent::Stalled(stalled),
                Some(Event::Settled(settled)) => WorkerEvent::Settled(settled),
                // A kind of event that this version does not know.
                None => continue,
            }));
        }
    }
}

fn silent() -> Status {
    Status::unavailable("the broker is silent")
}

fn jobs(Deliveries { deliveries }: Deliveries) -> Vec<Job> {
    let of_delivery = |Delivery { delivery, batch, attempts }| {
        let messages = batch.unwrap_or_default().messages;
        // A broker counts the attempts of each.
        let attempts = attempts.into_iter().map(|it| u32::try_from(it).unwrap_or(1));
        let attempts = attempts.chain(iter::repeat(1));
        let job = move |(message, attempt): (proto::Message, u32)| {
            Job::new(Message::from(message), attempt, delivery)
        };
        messages.into_iter().zip(attempts).map(job)
    };
    deliveries.into_iter().flat_map(of_delivery).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::MessageBatch;

    #[test]
    fn each_message_has_its_attempt_and_its_delivery() {
        let message = |offset| proto::Message { offset, ..Default::default() };
        let delivery = |delivery, offsets: [i64; 2], attempts| Delivery {
            delivery,
            batch: Some(MessageBatch { messages: offsets.map(message).into() }),
            attempts,
        };
        let deliveries = vec![delivery(7, [3, 4], vec![1, 2]), delivery(8, [9, 10], vec![5, 1])];
        let jobs = jobs(Deliveries { deliveries });
        let seen: Vec<_> =
            jobs.iter().map(|job| (job.delivery(), job.offset, job.attempt())).collect();
        assert_eq!(seen, [(7, 3, 1), (7, 4, 2), (8, 9, 5), (8, 10, 1)]);
    }
}
