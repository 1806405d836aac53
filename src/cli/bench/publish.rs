//! Runs a bench's publishers.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{
    super::failure::Failure,
    arguments::PublishArgs,
    environment::Environment,
    latencies::Latencies,
    publishers::{Answered, LoadPublisher},
    schedule::Schedule,
    topics::RegisteredId,
};

/// Producers share at most this many connections.
const CONNECTIONS: usize = 16;

/// What was published.
pub(super) struct PublishOutcome {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) requests: u64,
    /// Requests that were abandoned at the end without an answer.
    pub(super) unanswered: u64,
    /// The time until the last answer, or until unanswered requests were abandoned.
    pub(super) took: Duration,
    /// The time from when a request was due to its answer.
    pub(super) acknowledged: Latencies,
    /// How it was published, for people.
    pub(super) description: String,
}

/// Publishes until all messages are published and answered.
pub(super) async fn run(
    environment: &Environment<'_>,
    producers: Vec<RegisteredId>,
    args: &PublishArgs,
) -> Result<PublishOutcome, Failure> {
    let mut connections = Vec::new();
    for _ in 0..producers.len().min(CONNECTIONS) {
        connections.push(environment.client.another().await?);
    }
    let start = Instant::now();
    let schedule = Schedule::start(environment.load, args, start);
    let mut tasks = JoinSet::new();
    for (producer, client) in producers.into_iter().zip(connections.iter().cycle()) {
        let publisher = LoadPublisher {
            client: client.clone(),
            producer,
            in_flight: args.in_flight as usize,
            schedule: schedule.clone(),
            live: environment.live.clone(),
        };
        if args.unary {
            for _ in 0..args.in_flight {
                tasks.spawn(publisher.clone().call());
            }
        } else if args.library {
            tasks.spawn(publisher.use_library());
        } else {
            tasks.spawn(publisher.stream());
        }
    }
    let mut all = Answered::default();
    while let Some(ended) = tasks.join_next().await {
        let answered = ended.map_err(|error| Failure::refused(error.to_string()))??;
        all.messages += answered.messages;
        all.requests += answered.requests;
        all.unanswered += answered.unanswered;
        all.latencies.add_all(&answered.latencies);
    }
    Ok(PublishOutcome {
        messages: all.messages,
        bytes: all.messages * u64::from(environment.load.size),
        requests: all.requests,
        unanswered: all.unanswered,
        took: start.elapsed(),
        acknowledged: all.latencies,
        description: args.describe(),
    })
}
