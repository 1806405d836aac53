//! `Subscribe`: hands messages to a worker, and settles those that it names.
//!
//! Two tasks serve a stream. One reads requests and passes on what they settle, so that a commit has as many
//! settlements as have arrived. The other sends events: messages, and the answers to what was settled, in the
//! order of the requests. Bounded queues lie between them. If the client does not read its events, its
//! requests are not read either, and HTTP/2 flow control holds it back.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use crate::{
    broker::{Broker, Error, Received, Settlement, Settler, Subscribe, Verdict, WorkerStream},
    grpc::{
        explain::explain,
        status::refuse,
        trunkline::{
            sent_events::SentEvents,
            subscribe_requests::{self as requests, Asked},
            subscription_answers as answers,
        },
    },
    proto::{
        self,
        raw::{SubscribeResponse, subscribe_response::Event},
    },
};

/// How long the database may take before the first event.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How many events may wait for the client. Each may have 2 MiB of messages.
const EVENTS_AHEAD: usize = 2;

/// How many requests may wait for their answers.
const IN_FLIGHT: usize = 1_024;

/// How many settlements they may have together, and named offsets and ranges.
const MAX_WEIGHT: usize = 65_536;

/// How many settlements are passed on together.
const MAX_TOGETHER: usize = 10_000;

/// A worker's stream that begins.
pub(in crate::grpc) struct Working {
    pub worker: WorkerStream,
    /// Its first event.
    pub attached: Event,
    /// How long it may be silent.
    pub heartbeat: Duration,
    /// When the client stops waiting, if it set a deadline.
    pub deadline: Option<Instant>,
    /// Cancelled when the caller may not have it any more.
    pub withdrawn: CancellationToken,
}

/// What to answer next.
enum Upcoming {
    Settling(Together),
    /// The stream ends.
    End(Status),
}

/// The settlements of requests that arrived together.
struct Together {
    /// The id of each request, and how many settlements it has.
    requests: Vec<(i64, usize)>,
    /// How many messages each settlement applied to.
    applied: BoxFuture<'static, Result<Vec<usize>, Error>>,
    /// Returned when they are answered.
    _weight: Option<OwnedSemaphorePermit>,
}

type Answer = Result<SubscribeResponse, Status>;

/// Opens a worker's stream. Returns its first event, too.
pub(in crate::grpc) async fn subscribe(
    broker: &Broker,
    subscribe: Subscribe,
) -> Result<(WorkerStream, Event), Error> {
    let subscribing = broker.subscriptions.subscribe(subscribe);
    let subscribed = tokio::time::timeout(FIRST_ANSWER_TIMEOUT, subscribing).await;
    let (worker, description) = subscribed.unwrap_or(Err(Error::unavailable()))?;
    Ok((worker, answers::attached(description)))
}

pub(in crate::grpc) fn start(
    broker: &Arc<Broker>,
    working: Working,
    requests: Streaming<proto::SubscribeRequest>,
) -> SentEvents {
    let Working { worker, attached, heartbeat, deadline, withdrawn } = working;
    let (events, sent) = mpsc::channel(EVENTS_AHEAD);
    let unsent = worker.unsent();
    let (upcoming, answered) = mpsc::channel(IN_FLIGHT);
    let (ending, stopped) = (CancellationToken::new(), CancellationToken::new());
    let intake = Intake {
        settler: worker.settler(),
        requests,
        upcoming,
        weight: Arc::new(Semaphore::new(MAX_WEIGHT)),
        ending: ending.clone(),
        stopped: stopped.clone(),
    };
    let output = Output {
        worker,
        heartbeat,
        beat_at: Instant::now() + heartbeat,
        withdrawn,
        draining: broker.draining().clone(),
        ending,
        answered: Some(answered),
        settling: None,
        waiting: VecDeque::from([attached]),
        takes_more: true,
        stopped,
        deadline,
        end: None,
        events,
    };
    broker.track(intake.run().in_current_span());
    broker.track(output.run().in_current_span());
    SentEvents { events: ReceiverStream::new(sent), unsent }
}

/// Reads the requests of a stream.
struct Intake {
    settler: Settler,
    requests: Streaming<proto::SubscribeRequest>,
    upcoming: mpsc::Sender<Upcoming>,
    weight: Arc<Semaphore>,
    /// Cancelled once no more requests are read.
    ending: CancellationToken,
    /// Cancelled as soon as the worker wants no more messages, also while earlier requests are stored.
    stopped: CancellationToken,
}

/// What arrived from a client.
enum Arrived {
    Settle {
        request_id: i64,
        settlements: Vec<Settlement>,
    },
    Stop,
    /// The stream ends.
    Invalid(Status),
    /// The client sends no more requests.
    Closed,
}

impl Intake {
    async fn run(mut self) {
        let ending = self.ending.clone();
        ending.run_until_cancelled(self.read()).await;
    }

    async fn read(&mut self) {
        let mut left_over = None;
        loop {
            let arrived = match left_over.take() {
                Some(arrived) => arrived,
                None => decode(self.requests.message().await),
            };
            let (upcoming, is_last) = match arrived {
                Arrived::Settle { request_id, settlements } => {
                    let mut requests = vec![(request_id, settlements.len())];
                    let mut settlements = settlements;
                    left_over = self.append_arrived(&mut requests, &mut settlements);
                    match self.settle(requests, settlements).await {
                        Ok(together) => (Upcoming::Settling(together), false),
                        Err(error) => (Upcoming::End(refuse(error)), true),
                    }
                }
                Arrived::Stop => {
                    self.stopped.cancel();
                    continue;
                }
                Arrived::Invalid(status) => (Upcoming::End(status), true),
                Arrived::Closed => {
                    self.stopped.cancel();
                    return;
                }
            };
            if self.upcoming.send(upcoming).await.is_err() || is_last {
                return;
            }
        }
    }

    /// Adds requests that have arrived already. Returns the first one that is not added, if there is one.
    fn append_arrived(
        &mut self,
        requests: &mut Vec<(i64, usize)>,
        settlements: &mut Vec<Settlement>,
    ) -> Option<Arrived> {
        while let Some(next) = self.requests.message().now_or_never() {
            match decode(next) {
                Arrived::Settle { request_id, settlements: more }
                    if settlements.len() + more.len() <= MAX_TOGETHER =>
                {
                    requests.push((request_id, more.len()));
                    settlements.extend(more);
                }
                other => return Some(other),
            }
        }
        None
    }

    async fn settle(
        &self,
        requests: Vec<(i64, usize)>,
        settlements: Vec<Settlement>,
    ) -> Result<Together, Error> {
        let weight: usize = settlements.iter().map(weight_of).sum();
        let weight = u32::try_from(weight.min(MAX_WEIGHT)).unwrap_or(u32::MAX);
        // Cannot fail: the semaphore is never closed.
        let weight = self.weight.clone().acquire_many_owned(weight).await.ok();
        let settling = self.settler.settle(settlements).await?;
        Ok(Together { requests, applied: Box::pin(settling.settled()), _weight: weight })
    }
}

/// About as many ranges as a settlement takes room.
fn weight_of(settlement: &Settlement) -> usize {
    let reason = match &settlement.verdict {
        Verdict::Reject { reason } => reason.len() / 64,
        _ => 0,
    };
    1 + settlement.ranges.len() + reason
}

fn decode(next: Result<Option<proto::SubscribeRequest>, Status>) -> Arrived {
    match next {
        Ok(Some(request)) => match requests::asked(request) {
            Ok(Asked::Settle { request_id, settlements }) => {
                Arrived::Settle { request_id, settlements }
            }
            Ok(Asked::Stop) => Arrived::Stop,
            Err(invalid) => Arrived::Invalid(refuse(invalid)),
        },
        Ok(None) => Arrived::Closed,
        Err(status) => Arrived::Invalid(explain(&status).unwrap_or(status)),
    }
}

/// Sends the events of a stream.
struct Output {
    worker: WorkerStream,
    heartbeat: Duration,
    /// When the next heartbeat is due.
    beat_at: Instant,
    withdrawn: CancellationToken,
    draining: CancellationToken,
    ending: CancellationToken,
    /// Where the answers come from; `None` once all have come.
    answered: Option<mpsc::Receiver<Upcoming>>,
    /// What is being settled.
    settling: Option<Together>,
    /// Events that are to be sent.
    waiting: VecDeque<Event>,
    /// Whether the worker wants more messages; cancelled once it does not.
    takes_more: bool,
    stopped: CancellationToken,
    /// When the client stops waiting, if it set a deadline.
    deadline: Option<Instant>,
    /// How the stream ends once everything is answered.
    end: Option<Result<(), Status>>,
    events: mpsc::Sender<Answer>,
}

impl Output {
    async fn run(mut self) {
        let withdrawn = self.withdrawn.clone();
        let ended = withdrawn.run_until_cancelled(self.send_events()).await;
        self.ending.cancel();
        let Self { worker, events, .. } = self;
        // A client that does not read its last event keeps no messages.
        drop(worker);
        if let Some(Some(status)) = ended {
            // A client that has gone does not receive it.
            let _ = events.send(Err(status)).await;
        }
    }

    /// Sends events until the stream ends; returns the error that it ends with, if there is one.
    async fn send_events(&mut self) -> Option<Status> {
        let events = self.events.clone();
        loop {
            // Without room for an event there is nothing to wait for. A client that has gone ends this.
            let room = events.reserve().await.ok()?;
            let event = loop {
                if let Some(event) = self.waiting.pop_front() {
                    break event;
                }
                if self.settling.is_none() && self.answered.is_none() {
                    return self.end.take().and_then(Result::err);
                }
                if let Err(status) = self.next_event(&events).await? {
                    return Some(status);
                }
            };
            room.send(Ok(SubscribeResponse { event: Some(event) }));
            self.beat_at = Instant::now() + self.heartbeat;
        }
    }

    /// Waits for something to send; `None` once the client has gone. An error ends the stream at once.
    async fn next_event(&mut self, events: &mpsc::Sender<Answer>) -> Option<Result<(), Status>> {
        let Self { worker, answered, settling, end, takes_more, .. } = self;
        let asks = *takes_more && end.is_none();
        tokio::select! {
            () = events.closed() => return None,
            applied = applied(settling) => match applied {
                Ok(applied) => self.conclude(&applied),
                Err(error) => return Some(Err(refuse(error))),
            },
            upcoming = next_of(answered), if settling.is_none() => match upcoming {
                Some(Upcoming::Settling(together)) => self.settling = Some(together),
                Some(Upcoming::End(status)) => return Some(Err(status)),
                // The client has closed its side, or the stream ends.
                None => {
                    self.answered = None;
                    self.end.get_or_insert(Ok(()));
                }
            },
            received = worker.next(), if asks => self.add(received),
            () = self.stopped.cancelled(), if *takes_more => self.stop(),
            () = until(self.deadline) => {
                return Some(Err(refuse(Error::DeadlineExceeded)));
            }
            () = self.draining.cancelled(), if !asks && end.is_none() => {
                self.end_with(Error::Draining);
            }
            () = sleep_until(self.beat_at) => {
                self.waiting.push_back(Event::Heartbeat(proto::SubscriptionHeartbeat {}));
            }
        }
        Some(Ok(()))
    }

    /// Adds what the worker gets.
    fn add(&mut self, received: Result<Received, Error>) {
        match received {
            Ok(received) => self.waiting.push_back(answers::event(received)),
            Err(error) => self.end_with(error),
        }
    }

    /// Asks for no more messages.
    fn stop(&mut self) {
        self.takes_more = false;
        if let Some(received) = self.worker.stop() {
            self.add(received);
        }
    }

    /// Ends the stream with an error once what has been asked is answered.
    fn end_with(&mut self, error: Error) {
        self.end = Some(Err(refuse(error)));
        self.ending.cancel();
    }

    /// Answers the requests whose settlements are on disk.
    fn conclude(&mut self, applied: &[usize]) {
        // Messages that were on their way when the worker asked for no more come before the answers to what
        // it asked after that.
        if self.takes_more && self.stopped.is_cancelled() {
            self.stop();
        }
        let Some(Together { requests, .. }) = self.settling.take() else { return };
        let mut applied = applied;
        for (request_id, count) in requests {
            let (those, rest) = applied.split_at(count.min(applied.len()));
            self.waiting.push_back(answers::settled(request_id, those));
            applied = rest;
        }
    }
}

/// Waits until a deadline, if there is one.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Waits for the outcome of what is being settled; for ever if there is nothing.
async fn applied(settling: &mut Option<Together>) -> Result<Vec<usize>, Error> {
    match settling {
        Some(Together { applied, .. }) => Pin::new(applied).await,
        None => std::future::pending().await,
    }
}

/// The next answer to come; `None` if none comes any more.
async fn next_of(answered: &mut Option<mpsc::Receiver<Upcoming>>) -> Option<Upcoming> {
    match answered {
        Some(answered) => answered.recv().await,
        None => std::future::pending().await,
    }
}
