//! Idle streams.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::{Status, Streaming};

use super::{
    super::failure::Failure, environment::Environment, latencies::Latencies, meter::Usage,
    topics::RegisteredId,
};
use crate::{
    client::Client,
    proto::{
        ConsumeRequest, ConsumeResponse, LogEdge, NewMessage, PublishRequest,
        consume_response::Event,
    },
};

/// The number of streams on each connection.
const STREAMS: usize = 1_000;

/// The number of streams that are opened at the same time.
const OPENING: usize = 32;

/// What idle streams cost, and how fast they get a message.
pub(super) struct IdleOutcome {
    pub(super) streams: u32,
    /// How long opening all streams took.
    pub(super) opening: Duration,
    /// How long a message took to each stream.
    pub(super) woken: Latencies,
    /// The usage before the streams were opened.
    pub(super) before: Usage,
    /// The usage when all streams were open.
    pub(super) opened: Usage,
    /// The usage when the streams had been idle for a while.
    pub(super) rested: Usage,
}

/// Opens streams, leaves them idle, and then sends a message to all of them.
pub(super) async fn run(
    environment: &Environment<'_>,
    streams: u32,
    wait: Duration,
) -> Result<IdleOutcome, Failure> {
    let Environment { client, load, meters, .. } = environment;
    let consumers = environment.consumers(LogEdge::Earliest, streams).await?;
    let producers = environment.producers("producer", load.topics).await?;
    let before = meters.read().await?;
    let start = Instant::now();
    let mut open = Vec::new();
    for consumers in consumers.chunks(STREAMS) {
        let client = client.another().await?;
        let opening = consumers.iter().map(|consumer| attach(&client, consumer));
        let opened: Vec<_> = stream::iter(opening).buffer_unordered(OPENING).try_collect().await?;
        open.extend(opened);
    }
    let opening = start.elapsed();
    let opened = meters.read().await?;
    tokio::time::sleep(wait).await;
    let rested = meters.read().await?;
    let sent = Instant::now();
    for RegisteredId { topic, id } in producers {
        let payloads = load.payload.make(0..1, load.size as usize, sent);
        let messages = payloads.map(NewMessage::new).collect();
        let request = PublishRequest { topic, producer_id: id, messages, ..Default::default() };
        client.producers().publish(request).await?;
    }
    let mut woken = Latencies::default();
    let deliveries = open.into_iter().map(|stream| next_batch(stream, sent));
    let mut deliveries = stream::iter(deliveries).buffer_unordered(streams as usize);
    while let Some(took) = deliveries.next().await {
        woken.add(took?, 1);
    }
    Ok(IdleOutcome { streams, opening, woken, before, opened, rested })
}

/// Opens a stream, and reads until it has caught up.
async fn attach(
    client: &Client,
    consumer: &RegisteredId,
) -> Result<Streaming<ConsumeResponse>, Status> {
    let RegisteredId { topic, id } = consumer.clone();
    let request = ConsumeRequest { topic, consumer_id: id, ..Default::default() };
    let mut stream = client.consumers().consume(request).await?.into_inner();
    while let Some(frame) = stream.message().await? {
        if matches!(frame.event, Some(Event::CaughtUp(_))) {
            return Ok(stream);
        }
    }
    Err(Status::unavailable("the stream ended"))
}

/// Waits for a stream's next batch, and returns how long after `sent` it came.
async fn next_batch(
    mut stream: Streaming<ConsumeResponse>,
    sent: Instant,
) -> Result<Duration, Status> {
    while let Some(frame) = stream.message().await? {
        if matches!(frame.event, Some(Event::Batch(_))) {
            return Ok(sent.elapsed());
        }
    }
    Err(Status::unavailable("the stream ended"))
}
