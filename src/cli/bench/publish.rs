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
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{sleep_until, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

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

/// How long the answers to what is in flight are waited for when the time to publish is over.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// How messages are published.
#[derive(Args, Clone, Debug)]
pub(super) struct Publishing {
    /// Producers, each with a stream of its own.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) producers: u32,
    /// Messages of a request.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Requests of a producer that may wait for their answers: with 1, the next one is sent when
    /// the last one is answered.
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
    /// How long to publish; what is in flight then is waited for, for 5 s at the most.
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
    /// Requests without an answer, which were given up at the end.
    pub(super) unanswered: u64,
    /// Until the last answer, or until the others were given up.
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

/// A request that is to be sent.
struct Due {
    at: Instant,
    /// The number of its first message.
    first: u64,
    count: u64,
}

impl Run {
    /// Waits until the next request is due; `None` when all is published, or the time is over.
    async fn next(&self) -> Option<Due> {
        let at = match &self.pace {
            Some(pace) => self.in_time(pace.next()).await?,
            None => Instant::now(),
        };
        if self.ends.is_some_and(|ends| Instant::now() >= ends) {
            return None;
        }
        let batch = u64::from(self.publishing.batch);
        let first = self.taken.fetch_add(batch, Ordering::Relaxed);
        let count = self.limit.saturating_sub(first).min(batch);
        (count > 0).then_some(Due { at, first, count })
    }

    /// Waits for something until the time to publish is over.
    async fn in_time<T>(&self, awaited: impl Future<Output = T>) -> Option<T> {
        match self.ends {
            Some(ends) => timeout_at(ends.into(), awaited).await.ok(),
            None => Some(awaited.await),
        }
    }

    /// Waits until no more answers are waited for; for ever, if a number of messages is published.
    async fn given_up(&self) {
        match self.ends {
            Some(ends) => sleep_until((ends + LAST_ANSWERS).into()).await,
            None => std::future::pending().await,
        }
    }

    fn messages(&self, due: &Due) -> Vec<NewMessage> {
        let Due { at, first, count } = *due;
        self.payload.make(first, count, self.size, at).map(NewMessage::new).collect()
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
        all.unanswered += published.unanswered;
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
    let mut given_up = std::pin::pin!(run.given_up());
    while let Some(due) = run.next().await {
        let request = PublishRequest {
            topic: producer.topic.clone(),
            producer_id: producer.id.clone(),
            messages: run.messages(&due),
            ..Default::default()
        };
        tokio::select! {
            answered = producers.publish(request) => {
                answered?;
            }
            () = &mut given_up => {
                published.unanswered += 1;
                break;
            }
        }
        published.add(due.count, due.at);
        run.live.published(due.count);
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
    'sending: while let Some(due) = run.next().await {
        for message in run.messages(&due) {
            // Room for it may come too late.
            let Some(acknowledgement) = run.in_time(producer.send(message)).await else {
                break 'sending;
            };
            sent.push_back((acknowledgement?, due.at));
        }
        published.take_answered(&mut sent, &run)?;
    }
    tokio::select! {
        flushed = producer.flush() => flushed?,
        () = run.given_up() => {}
    }
    published.take_answered(&mut sent, &run)?;
    published.unanswered = sent.len() as u64;
    Ok(published)
}

/// One stream, with sequences.
async fn stream(client: Client, producer: Registered, run: Arc<Run>) -> Result<Published, Failure> {
    let in_flight = run.publishing.in_flight as usize;
    // Neither is ever full: there are no more requests than turns.
    let (requests, outgoing) = mpsc::channel(in_flight);
    let (sent, mut waiting) = mpsc::channel(in_flight);
    let turns = Arc::new(Semaphore::new(in_flight));
    let mut producers = client.producers();
    let of_sender = (turns.clone(), run.clone());
    let sending = AbortOnDropHandle::new(tokio::spawn(async move {
        let (turns, run) = of_sender;
        let mut sequence = 0;
        loop {
            // A turn comes back with the answer.
            let turn = match turns.try_acquire() {
                Ok(turn) => turn,
                Err(_) => match run.in_time(turns.acquire()).await {
                    Some(Ok(turn)) => turn,
                    Some(Err(_)) | None => break,
                },
            };
            let Some(due) = run.next().await else { break };
            let request = PublishStreamRequest {
                topic: producer.topic.clone(),
                producer_id: producer.id.clone(),
                messages: run.messages(&due),
                sequence: Some(sequence),
                ..Default::default()
            };
            sequence += due.count as i64;
            turn.forget();
            // Both fail only when the answers have ended, which says why.
            if sent.send((due.count, due.at)).await.is_err()
                || requests.send(request).await.is_err()
            {
                break;
            }
        }
    }));
    let mut published = Published::default();
    let answered = async {
        let outgoing = ReceiverStream::new(outgoing);
        let mut answers = producers.publish_stream(outgoing).await?.into_inner();
        while let Some((count, due)) = waiting.recv().await {
            match answers.message().await?.and_then(|answer| answer.result) {
                Some(Answer::Receipt(_)) => {
                    published.add(count, due);
                    turns.add_permits(1);
                    run.live.published(count);
                }
                Some(Answer::Refusal(refusal)) => return Err(Error::from(refusal).into()),
                None => return Err(Failure::unavailable("the broker hung up")),
            }
        }
        Ok(())
    };
    tokio::select! {
        answered = answered => answered?,
        () = run.given_up() => {}
    }
    sending.await.map_err(|error| Failure::refused(error.to_string()))?;
    published.unanswered = (in_flight - turns.available_permits()) as u64;
    Ok(published)
}
