//! Consumers of a run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    super::failure::Failure, Bench, histogram::Times, live::Live, payload, topics::Registered,
};
use crate::client::{Commit, Consumer, Event, Message};

/// How many messages of those that come together are looked at for their age.
const LOOKED_AT: usize = 8;

/// How long the last messages are waited for without one coming.
const PATIENCE: Duration = Duration::from_secs(30);

/// How messages are consumed.
#[derive(Args, Clone, Debug)]
pub(super) struct Reading {
    /// Consumers, each with a position of its own: every one gets all messages of its topic.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) consumers: u32,
    /// When positions move.
    #[arg(long, value_enum, default_value_t)]
    commit: CommitArg,
}

/// When positions move.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum CommitArg {
    /// As the consumer commits, at least once.
    #[default]
    Manual,
    /// Before messages are handed out, at most once.
    AtMostOnce,
}

impl Default for Reading {
    fn default() -> Self {
        Self::by(1)
    }
}

impl Reading {
    pub(super) fn by(consumers: u32) -> Self {
        Self { consumers, commit: CommitArg::Manual }
    }
}

/// What was consumed.
#[derive(Debug, Default)]
pub(super) struct Consumed {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) consumers: usize,
    pub(super) took: Duration,
    /// From when a message was due to its delivery.
    pub(super) delivered: Times,
}

/// Consumers that read.
pub(super) struct Opened {
    tasks: JoinSet<Result<Consumed, Failure>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    messages: AtomicU64,
    more: Notify,
    /// Each ends at the end of its log.
    at_the_end: CancellationToken,
    enough: CancellationToken,
}

/// Opens the consumers, which read from now on; each has attached before this returns.
pub(super) async fn open(
    bench: &Bench<'_>,
    consumers: Vec<Registered>,
    reading: &Reading,
) -> Result<Opened, Failure> {
    let commit = match reading.commit {
        CommitArg::Manual => Commit::Manual,
        CommitArg::AtMostOnce => Commit::AtMostOnce,
    };
    let shared = Arc::new(Shared::default());
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for Registered { topic, id } in consumers {
        let mut consumer = bench.client.consumer(&topic, &id, commit).open().await?;
        while !matches!(consumer.next_event().await.transpose()?, Some(Event::Attached { .. })) {}
        tasks.spawn(read(consumer, began, shared.clone(), bench.live.clone()));
    }
    Ok(Opened { tasks, shared })
}

impl Opened {
    /// Waits until all have come to the end of their logs.
    pub(super) async fn until_caught_up(self) -> Result<Consumed, Failure> {
        self.shared.at_the_end.cancel();
        self.finish().await
    }

    /// Waits until so many messages have been had in all.
    pub(super) async fn until_all(self, messages: u64) -> Result<Consumed, Failure> {
        let mut had = 0;
        while had < messages {
            let more = self.shared.more.notified();
            let now = self.shared.messages.load(Ordering::Acquire);
            if now == had && tokio::time::timeout(PATIENCE, more).await.is_err() {
                return Err(Failure::refused(format!(
                    "{now} of {messages} deliveries came, and then none for {PATIENCE:?}"
                )));
            }
            had = now;
        }
        self.shared.enough.cancel();
        self.finish().await
    }

    async fn finish(mut self) -> Result<Consumed, Failure> {
        let mut all = Consumed { consumers: self.tasks.len(), ..Default::default() };
        while let Some(ended) = self.tasks.join_next().await {
            let consumed = ended.map_err(|error| Failure::refused(error.to_string()))??;
            all.messages += consumed.messages;
            all.bytes += consumed.bytes;
            all.took = all.took.max(consumed.took);
            all.delivered.add_all(&consumed.delivered);
        }
        Ok(all)
    }
}

async fn read(
    mut consumer: Consumer,
    began: Instant,
    shared: Arc<Shared>,
    live: Arc<Live>,
) -> Result<Consumed, Failure> {
    let mut consumed = Consumed::default();
    let mut caught_up = false;
    loop {
        let event = tokio::select! {
            event = consumer.next_event() => event.transpose()?,
            () = shared.enough.cancelled() => break,
            () = shared.at_the_end.cancelled(), if caught_up => break,
        };
        match event {
            Some(Event::Messages(messages)) => {
                caught_up = false;
                consumed.add(&messages);
                consumed.took = began.elapsed();
                live.consumed(messages.len() as u64);
                shared.messages.fetch_add(messages.len() as u64, Ordering::AcqRel);
                shared.more.notify_one();
                if let Some(last) = messages.last() {
                    consumer.commit(last);
                }
            }
            Some(Event::CaughtUp) => caught_up = true,
            Some(Event::Broken(error)) => return Err(error.into()),
            Some(_) => {}
            None => break,
        }
    }
    consumer.close().await?;
    Ok(consumed)
}

impl Consumed {
    fn add(&mut self, messages: &[Message]) {
        self.messages += messages.len() as u64;
        self.bytes += messages.iter().map(|message| message.payload.len() as u64).sum::<u64>();
        let step = messages.len().div_ceil(LOOKED_AT).max(1);
        for message in messages.iter().step_by(step) {
            if let Some(age) = payload::age(&message.payload) {
                self.delivered.add(age, step as u64);
            }
        }
    }
}
