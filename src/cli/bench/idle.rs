//! Streams that wait.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::{Status, Streaming};

use super::{super::failure::Failure, Bench, histogram::Times, report::Report, topics::Registered};
use crate::{
    client::Client,
    proto::{
        ConsumeRequest, ConsumeResponse, LogEdge, NewMessage, PublishRequest,
        consume_response::Event,
    },
};

/// Streams of one connection.
const STREAMS: usize = 1_000;

/// Opens streams, lets them wait, and then wakes all of them.
pub(super) async fn run(
    bench: &Bench<'_>,
    streams: u32,
    wait: Duration,
) -> Result<Report, Failure> {
    let consumers = bench.topics.consumers(bench.client, LogEdge::Earliest, streams).await?;
    let producers = bench.topics.producers(bench.client, "producer", bench.load.topics).await?;
    let before = bench.meters.read().await?;
    let began = Instant::now();
    let mut open = Vec::new();
    for some in consumers.chunks(STREAMS) {
        let client = bench.client.another().await?;
        let opening = some.iter().map(|consumer| attach(&client, consumer));
        let opened: Vec<_> = stream::iter(opening).buffer_unordered(32).try_collect().await?;
        open.extend(opened);
    }
    let opened = began.elapsed();
    let resting = bench.meters.read().await?;
    tokio::time::sleep(wait).await;
    let rested = bench.meters.read().await?;
    let woken = Instant::now();
    for Registered { topic, id } in producers {
        let payloads = bench.load.payload.make(0, 1, bench.load.size as usize, woken);
        let messages = payloads.map(NewMessage::new).collect();
        let request = PublishRequest { topic, producer_id: id, messages, ..Default::default() };
        bench.client.producers().publish(request).await?;
    }
    let mut times = Times::default();
    let waking = open.into_iter().map(|stream| next_batch(stream, woken));
    let mut waking = stream::iter(waking).buffer_unordered(streams as usize);
    while let Some(took) = waking.next().await {
        times.add(took?, 1);
    }
    let mut report = Report::new("idle", bench.load);
    report.idle(streams, opened, &times, [&before, &resting, &rested]);
    Ok(report)
}

/// Opens a stream, and reads to where it waits.
async fn attach(
    client: &Client,
    consumer: &Registered,
) -> Result<Streaming<ConsumeResponse>, Status> {
    let Registered { topic, id } = consumer.clone();
    let request = ConsumeRequest { topic, consumer_id: id, ..Default::default() };
    let mut stream = client.consumers().consume(request).await?.into_inner();
    while let Some(frame) = stream.message().await? {
        if matches!(frame.event, Some(Event::CaughtUp(_))) {
            return Ok(stream);
        }
    }
    Err(Status::unavailable("the stream ended"))
}

/// How long after being woken a stream brings a message.
async fn next_batch(
    mut stream: Streaming<ConsumeResponse>,
    woken: Instant,
) -> Result<Duration, Status> {
    while let Some(frame) = stream.message().await? {
        if matches!(frame.event, Some(Event::Batch(_))) {
            return Ok(woken.elapsed());
        }
    }
    Err(Status::unavailable("the stream ended"))
}
