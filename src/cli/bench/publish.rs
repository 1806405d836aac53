//! Publishers of a run.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    super::failure::Failure, Bench, histogram::Times, live::Live, pace::Pace, payload::Payload,
    topics::Registered,
};
use crate::{
    client::{Acknowledgement, Client, Error},
    proto::{
        NewMessage, PublishRequest, PublishStreamRequest, publish_stream_response::Result as Answer,
    },
};

/// Producers share so many connections.
const CONNECTIONS: usize = 16;

/// How messages are published.
#[derive(Args, Clone, Debug)]
pub(super) struct Publishing {
    /// Producers, each with a stream of its own.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) producers: u32,
    /// Messages of a request.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Requests of a producer that may wait for their answers.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    in_flight: u32,
    /// Messages a second, in all; as fast as it goes, if not given.
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Publish by unary calls rather than by streams.
    #[arg(long)]
    unary: bool,
    /// Give each message to the client library, which makes requests of them by itself.
    #[arg(long, conflicts_with_all = ["unary", "in_flight"])]
    library: bool,
}

impl Default for Publishing {
    fn default() -> Self {
        let (producers, batch, in_flight) = (8, 1_000, 8);
        Self { producers, batch, in_flight, rate: None, unary: false, library: false }
    }
}

impl Publishing {
    /// One message after the other, at a rate.
    pub(super) fn one_by_one(rate: f64) -> Self {
        let (producers, batch, in_flight) = (1, 1, 256);
        Self { producers, batch, in_flight, rate: Some(rate), ..Self::default() }
    }

    /// For people.
    pub(super) fn told(&self) -> String {
        let Self { producers, batch, in_flight, unary, .. } = self;
        if self.library {
            return format!("{producers} producers of the client library, a message at a time");
        }
        let how = if *unary { "unary" } else { "streams" };
        format!("{producers} producers, {how}, {batch} a request, {in_flight} in flight each")
    }
}

/// A rate, more than nothing.
pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && f64::is_finite(rate) => Ok(rate),
        _ => Err("give a number of messages a second, more than 0".to_owned()),
    }
}

/// How much is published.
#[derive(Args, Clone, Debug)]
pub(super) struct Amount {
    /// How long to publish.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Publish so many messages instead, in all.
    #[arg(long, value_name = "N")]
    messages: Option<u64>,
}

impl Amount {
    pub(super) fn of(messages: u64) -> Self {
        Self { duration: Duration::ZERO, messages: Some(messages) }
    }

    pub(super) fn lasting(duration: Duration) -> Self {
        Self { duration, messages: None }
    }
}

/// What was published.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) requests: u64,
    pub(super) took: Duration,
    /// From when a request was due to its answer.
    pub(super) acknowledged: Times,
    pub(super) how: String,
}

/// What all publishers share.
struct Run {
    publishing: Publishing,
    payload: Payload,
    size: usize,
    pace: Option<Arc<Pace>>,
    ends: Option<Instant>,
    limit: u64,
    taken: AtomicU64,
    live: Arc<Live>,
}

impl Run {
    /// The number of the next request's first message, and how many it has; `None` when all is
    /// published.
    fn take(&self) -> Option<(u64, u64)> {
        if self.ends.is_some_and(|ends| Instant::now() >= ends) {
            return None;
        }
        let batch = u64::from(self.publishing.batch);
        let first = self.taken.fetch_add(batch, Ordering::Relaxed);
        let count = self.limit.saturating_sub(first).min(batch);
        (count > 0).then_some((first, count))
    }

    /// Waits until the next request is due.
    async fn due(&self) -> Instant {
        match &self.pace {
            Some(pace) => pace.next().await,
            None => Instant::now(),
        }
    }

    fn messages(&self, first: u64, count: u64, due: Instant) -> Vec<NewMessage> {
        self.payload.make(first, count, self.size, due).map(NewMessage::new).collect()
    }
}

/// Publishes until all is published and answered.
pub(super) async fn run(
    bench: &Bench<'_>,
    producers: Vec<Registered>,
    publishing: &Publishing,
    amount: &Amount,
) -> Result<Published, Failure> {
    let mut connections = Vec::new();
    for _ in 0..producers.len().min(CONNECTIONS) {
        connections.push(bench.client.another().await?);
    }
    let began = Instant::now();
    let apart =
        publishing.rate.map(|rate| Duration::from_secs_f64(f64::from(publishing.batch) / rate));
    let run = Arc::new(Run {
        publishing: publishing.clone(),
        payload: bench.load.payload,
        size: bench.load.size as usize,
        pace: apart.map(|apart| Pace::start(began, apart)),
        ends: amount.messages.is_none().then(|| began + amount.duration),
        limit: amount.messages.unwrap_or(u64::MAX),
        taken: AtomicU64::new(0),
        live: bench.live.clone(),
    });
    let mut tasks = JoinSet::new();
    for (producer, client) in producers.into_iter().zip(connections.iter().cycle()) {
        let (client, run) = (client.clone(), run.clone());
        if publishing.unary {
            for _ in 0..publishing.in_flight {
                tasks.spawn(call(client.clone(), producer.clone(), run.clone()));
            }
        } else if publishing.library {
            tasks.spawn(send(client, producer, run));
        } else {
            tasks.spawn(stream(client, producer, run));
        }
    }
    let mut all = Published { how: publishing.told(), ..Default::default() };
    while let Some(ended) = tasks.join_next().await {
        let published = ended.map_err(|error| Failure::refused(error.to_string()))??;
        all.messages += published.messages;
        all.requests += published.requests;
        all.acknowledged.add_all(&published.acknowledged);
    }
    all.took = began.elapsed();
    all.bytes = all.messages * u64::from(bench.load.size);
    Ok(all)
}

impl Published {
    /// Takes what has been answered by now.
    fn take_answered(
        &mut self,
        sent: &mut VecDeque<(Acknowledgement, Instant)>,
        run: &Run,
    ) -> Result<(), Failure> {
        while let Some((answer, due)) =
            sent.front().and_then(|(sent, due)| Some((sent.try_offset()?, *due)))
        {
            answer?;
            self.add(1, due);
            run.live.published(1);
            sent.pop_front();
        }
        Ok(())
    }

    fn add(&mut self, count: u64, due: Instant) {
        self.messages += count;
        self.requests += 1;
        self.acknowledged.add(due.elapsed(), count);
    }
}

/// One caller, that waits for each answer.
async fn call(client: Client, producer: Registered, run: Arc<Run>) -> Result<Published, Failure> {
    let mut published = Published::default();
    let mut producers = client.producers();
    loop {
        let due = run.due().await;
        let Some((first, count)) = run.take() else { break };
        let request = PublishRequest {
            topic: producer.topic.clone(),
            producer_id: producer.id.clone(),
            messages: run.messages(first, count, due),
            ..Default::default()
        };
        producers.publish(request).await?;
        published.add(count, due);
        run.live.published(count);
    }
    Ok(published)
}

/// The client library's producer, which is given a message at a time.
async fn send(
    client: Client,
    Registered { topic, id }: Registered,
    run: Arc<Run>,
) -> Result<Published, Failure> {
    let producer = client.producer(&topic, &id).open().await?;
    let mut published = Published::default();
    let mut sent = VecDeque::new();
    loop {
        let due = run.due().await;
        let Some((first, count)) = run.take() else { break };
        for message in run.messages(first, count, due) {
            sent.push_back((producer.send(message).await?, due));
        }
        published.take_answered(&mut sent, &run)?;
    }
    producer.flush().await?;
    published.take_answered(&mut sent, &run)?;
    Ok(published)
}

/// One stream, with sequences.
async fn stream(client: Client, producer: Registered, run: Arc<Run>) -> Result<Published, Failure> {
    let in_flight = run.publishing.in_flight as usize;
    let (requests, outgoing) = mpsc::channel(in_flight);
    // Full when as many wait for their answers as may.
    let (sent, mut waiting) = mpsc::channel(in_flight);
    let mut producers = client.producers();
    let live = run.live.clone();
    let sending = tokio::spawn(async move {
        let mut sequence = 0;
        loop {
            let due = run.due().await;
            let Some((first, count)) = run.take() else { break };
            let request = PublishStreamRequest {
                topic: producer.topic.clone(),
                producer_id: producer.id.clone(),
                messages: run.messages(first, count, due),
                sequence: Some(sequence),
                ..Default::default()
            };
            sequence += count as i64;
            // Both fail only when the answers have ended, which says why.
            if sent.send((count, due)).await.is_err() || requests.send(request).await.is_err() {
                break;
            }
        }
    });
    let mut answers = producers.publish_stream(ReceiverStream::new(outgoing)).await?.into_inner();
    let mut published = Published::default();
    while let Some((count, due)) = waiting.recv().await {
        match answers.message().await?.and_then(|answer| answer.result) {
            Some(Answer::Receipt(_)) => {
                published.add(count, due);
                live.published(count);
            }
            Some(Answer::Refusal(refusal)) => return Err(Error::from(refusal).into()),
            None => return Err(Failure::unavailable("the broker hung up")),
        }
    }
    sending.await.map_err(|error| Failure::refused(error.to_string()))?;
    Ok(published)
}
