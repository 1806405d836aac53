//! Workers that share the messages of subscriptions, and acknowledge each by itself.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::{
    super::failure::Failure,
    arguments::{AckOrder, WorkArgs},
    consume::ConsumeOutcome,
    environment::Environment,
    live::LiveDisplay,
    progress::Progress,
    topics::RegisteredId,
};
use crate::{
    client::Client,
    proto::{
        Acknowledge, Deliveries, OpenSubscription, Retry, SettleMessages, Settled, Settlement,
        SubscribeRequest, SubscribeResponse, settlement::Verdict, subscribe_request::Request,
        subscribe_response::Event,
    },
};

/// How many requests of a worker may be unanswered.
const IN_FLIGHT: usize = 16;

/// Workers that work.
pub(super) struct OpenWorkers {
    tasks: JoinSet<Result<ConsumeOutcome, Failure>>,
    shared: Arc<SharedProgress>,
}

/// What all workers share.
#[derive(Default)]
struct SharedProgress {
    /// Messages whose acknowledgements are on disk.
    acknowledged: Progress,
    stop: CancellationToken,
}

impl OpenWorkers {
    /// Opens the workers' streams, spread over subscriptions.
    pub(super) async fn open(
        environment: &Environment<'_>,
        subscriptions: &[RegisteredId],
        args: &WorkArgs,
    ) -> Result<Self, Failure> {
        let shared = Arc::new(SharedProgress::default());
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        // Each subscription needs one.
        let workers = subscriptions.len().max(args.workers as usize);
        let workers = subscriptions.iter().cycle().take(workers);
        for (number, subscription) in workers.enumerate() {
            let client = environment.client.another().await?;
            let worker = Worker::open(&client, subscription, args, number as u64).await?;
            tasks.spawn(worker.work(start, shared.clone(), environment.live.clone()));
        }
        Ok(Self { tasks, shared })
    }

    /// Waits until a number of messages has been acknowledged.
    pub(super) async fn until_all(mut self, messages: u64) -> Result<ConsumeOutcome, Failure> {
        let names = ("acknowledged", "messages");
        self.shared.acknowledged.until(messages, &mut self.tasks, names).await?;
        self.shared.stop.cancel();
        ConsumeOutcome::of_all(self.tasks).await
    }
}

/// A worker, and the messages that it has.
struct Worker {
    requests: mpsc::Sender<SubscribeRequest>,
    events: Streaming<SubscribeResponse>,
    order: AckOrder,
    /// How many messages a request settles.
    batch: usize,
    /// One of so many messages is to be delivered again, if any is.
    retried: Option<u64>,
    /// The messages that are to be settled: their deliveries and offsets.
    pending: Vec<(i64, i64)>,
    /// How many of the settlements of each unanswered request acknowledge messages.
    unanswered: VecDeque<usize>,
    random: fastrand::Rng,
    worked: ConsumeOutcome,
}

impl Worker {
    async fn open(
        client: &Client,
        RegisteredId { topic, id }: &RegisteredId,
        args: &WorkArgs,
        seed: u64,
    ) -> Result<Self, Failure> {
        let (requests, outgoing) = mpsc::channel(IN_FLIGHT + 1);
        let open = OpenSubscription {
            topic: topic.clone(),
            subscription_id: id.clone(),
            max_outstanding_messages: i32::try_from(args.outstanding).unwrap_or(i32::MAX),
            max_batch_messages: 10_000,
            ..Default::default()
        };
        // The channel is empty.
        let _ = requests.try_send(SubscribeRequest { request: Some(Request::Open(open)) });
        let events = client.subscriptions().subscribe(ReceiverStream::new(outgoing)).await?;
        Ok(Self {
            requests,
            events: events.into_inner(),
            order: args.order,
            batch: args.settle_batch as usize,
            retried: args.retried.map(u64::from),
            pending: Vec::new(),
            unanswered: VecDeque::new(),
            random: fastrand::Rng::with_seed(seed),
            worked: ConsumeOutcome::default(),
        })
    }

    async fn work(
        mut self,
        start: Instant,
        shared: Arc<SharedProgress>,
        live: Arc<LiveDisplay>,
    ) -> Result<ConsumeOutcome, Failure> {
        loop {
            let event = tokio::select! {
                event = self.events.message() => event?,
                () = shared.stop.cancelled() => return Ok(self.worked),
            };
            let Some(SubscribeResponse { event: Some(event) }) = event else {
                return Err(Failure::unavailable("the broker ended the stream"));
            };
            match event {
                Event::Deliveries(deliveries) => {
                    let count = self.add(deliveries);
                    live.consumed(count);
                    self.settle(self.batch);
                }
                // Nothing more comes before something is settled, or published.
                Event::CaughtUp(_) | Event::Stalled(_) => self.settle(1),
                Event::Settled(Settled { applied, .. }) => {
                    // The acknowledgements come first.
                    let settlements = self.unanswered.pop_front().unwrap_or(0);
                    let acknowledged = applied.iter().take(settlements);
                    let acknowledged: u64 =
                        acknowledged.map(|it| u64::from(it.unsigned_abs())).sum();
                    self.worked.messages += acknowledged;
                    self.worked.took = start.elapsed();
                    shared.acknowledged.add(acknowledged);
                    self.settle(1);
                }
                Event::Attached(_) | Event::Heartbeat(_) => {}
            }
        }
    }

    /// Adds messages that are to be settled; returns how many there are.
    fn add(&mut self, Deliveries { deliveries }: Deliveries) -> u64 {
        let mut count = 0;
        for delivery in deliveries {
            let messages = delivery.batch.unwrap_or_default().messages;
            count += messages.len() as u64;
            self.worked.measure(messages.iter().map(|message| &*message.payload));
            let offsets = messages.iter().map(|message| (delivery.delivery, message.offset));
            self.pending.extend(offsets);
        }
        count
    }

    /// Settles messages for as long as there are `least` of them, and requests may be unanswered.
    fn settle(&mut self, least: usize) {
        while self.pending.len() >= least.max(1) && self.unanswered.len() < IN_FLIGHT {
            if self.order == AckOrder::Random {
                self.random.shuffle(&mut self.pending);
            }
            let rest = self.pending.split_off(self.pending.len().min(self.batch));
            let mut settled = std::mem::replace(&mut self.pending, rest);
            settled.sort_unstable();
            let (mut settlements, mut retries) = (Vec::new(), Vec::new());
            for of_delivery in settled.chunk_by(|one, next| one.0 == next.0) {
                let delivery = of_delivery[0].0;
                let (mut done, mut again) = (Vec::with_capacity(of_delivery.len()), Vec::new());
                for (_, offset) in of_delivery {
                    let is_retried = self.retried.is_some_and(|of| self.random.u64(..of) == 0);
                    if is_retried { again.push(*offset) } else { done.push(*offset) }
                }
                let settlement = |offsets, verdict| Settlement {
                    delivery,
                    offsets,
                    verdict: Some(verdict),
                    ..Default::default()
                };
                settlements.push(settlement(done, Verdict::Acknowledge(Acknowledge {})));
                if !again.is_empty() {
                    let delay = Some(prost_types::Duration::default());
                    retries.push(settlement(again, Verdict::Retry(Retry { delay })));
                }
            }
            // No offsets would mean all of the delivery.
            settlements.retain(|settlement| !settlement.offsets.is_empty());
            self.unanswered.push_back(settlements.len());
            settlements.extend(retries);
            let settle = SettleMessages { settlements, request_id: 0 };
            // There is room for all that may be unanswered. Once the stream has ended, reading says why.
            let request = SubscribeRequest { request: Some(Request::Settle(settle)) };
            let _ = self.requests.try_send(request);
        }
    }
}
