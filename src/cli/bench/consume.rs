//! The consumers of a run.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    super::failure::Failure, arguments::ReadArgs, environment::Environment, latencies::Latencies,
    live::LiveDisplay, payload, progress::Progress, topics::RegisteredId,
};
use crate::client::{Consumer, Event, Message};

/// How many messages of a frame have their age measured.
const SAMPLED: usize = 8;

/// What was consumed.
#[derive(Debug, Default)]
pub(super) struct ConsumeOutcome {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) consumers: usize,
    pub(super) took: Duration,
    /// The time from when a message was due to its delivery.
    pub(super) delivered: Latencies,
}

/// Consumers that are reading.
pub(super) struct OpenConsumers {
    tasks: JoinSet<Result<ConsumeOutcome, Failure>>,
    shared: Arc<SharedProgress>,
}

/// What the tasks of all consumers share.
#[derive(Default)]
struct SharedProgress {
    /// Messages delivered to all consumers so far.
    messages: Progress,
    /// Stops each consumer once it has caught up.
    stop_at_head: CancellationToken,
    /// Stops all consumers.
    stop: CancellationToken,
}

impl OpenConsumers {
    /// Opens the consumers, which read from then on; all are attached when this returns.
    pub(super) async fn open(
        environment: &Environment<'_>,
        consumers: Vec<RegisteredId>,
        args: &ReadArgs,
    ) -> Result<Self, Failure> {
        let shared = Arc::new(SharedProgress::default());
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for RegisteredId { topic, id } in consumers {
            let mut consumer =
                environment.client.consumer(&topic, &id, args.commit()).open().await?;
            loop {
                let event = consumer.next_event().await.transpose()?;
                if matches!(event, Some(Event::Attached { .. })) {
                    break;
                }
            }
            tasks.spawn(read(consumer, start, shared.clone(), environment.live.clone()));
        }
        Ok(Self { tasks, shared })
    }

    /// Waits until all consumers have caught up.
    pub(super) async fn until_caught_up(self) -> Result<ConsumeOutcome, Failure> {
        self.shared.stop_at_head.cancel();
        self.finish().await
    }

    /// Waits until a number of messages has been delivered to all consumers together.
    pub(super) async fn until_all(mut self, messages: u64) -> Result<ConsumeOutcome, Failure> {
        let names = ("received", "deliveries");
        self.shared.messages.until(messages, &mut self.tasks, names).await?;
        self.shared.stop.cancel();
        self.finish().await
    }

    async fn finish(self) -> Result<ConsumeOutcome, Failure> {
        ConsumeOutcome::of_all(self.tasks).await
    }
}

async fn read(
    mut consumer: Consumer,
    start: Instant,
    shared: Arc<SharedProgress>,
    live: Arc<LiveDisplay>,
) -> Result<ConsumeOutcome, Failure> {
    let mut consumed = ConsumeOutcome::default();
    let mut caught_up = false;
    loop {
        let event = tokio::select! {
            event = consumer.next_event() => event.transpose()?,
            () = shared.stop.cancelled() => break,
            () = shared.stop_at_head.cancelled(), if caught_up => break,
        };
        match event {
            Some(Event::Messages(messages)) => {
                caught_up = false;
                consumed.add(&messages);
                consumed.took = start.elapsed();
                live.consumed(messages.len() as u64);
                shared.messages.add(messages.len() as u64);
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

impl ConsumeOutcome {
    /// Waits for all tasks, and adds up what they consumed.
    pub(super) async fn of_all(mut tasks: JoinSet<Result<Self, Failure>>) -> Result<Self, Failure> {
        let mut all = Self { consumers: tasks.len(), ..Default::default() };
        while let Some(ended) = tasks.join_next().await {
            let consumed = ended.map_err(|error| Failure::refused(error.to_string()))??;
            all.messages += consumed.messages;
            all.bytes += consumed.bytes;
            all.took = all.took.max(consumed.took);
            all.delivered.add_all(&consumed.delivered);
        }
        Ok(all)
    }

    fn add(&mut self, messages: &[Message]) {
        self.messages += messages.len() as u64;
        self.measure(messages.iter().map(|message| &*message.payload));
    }

    /// Adds the sizes and ages of messages that were delivered together.
    pub(super) fn measure<'a>(
        &mut self,
        payloads: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
    ) {
        let step = payloads.len().div_ceil(SAMPLED).max(1);
        self.bytes += payloads.clone().map(|payload| payload.len() as u64).sum::<u64>();
        for payload in payloads.step_by(step) {
            if let Some(age) = payload::age(payload) {
                self.delivered.add(age, step as u64);
            }
        }
    }
}
