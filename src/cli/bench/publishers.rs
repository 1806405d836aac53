//! The ways in which a run publishes.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use super::{
    super::failure::Failure, latencies::Latencies, live::LiveDisplay, schedule::Schedule,
    topics::RegisteredId,
};
use crate::{
    client::{Acknowledgement, Client, Error},
    proto::{PublishRequest, PublishStreamRequest, publish_stream_response::Result as Answer},
};

/// A publisher, which sends what the schedule says.
#[derive(Clone)]
pub(super) struct LoadPublisher {
    pub(super) client: Client,
    pub(super) producer: RegisteredId,
    /// How many requests may be unanswered.
    pub(super) in_flight: usize,
    pub(super) schedule: Arc<Schedule>,
    pub(super) live: Arc<LiveDisplay>,
}

/// The answered requests of a publisher.
#[derive(Default)]
pub(super) struct Answered {
    pub(super) messages: u64,
    pub(super) requests: u64,
    /// Requests that were abandoned at the end without an answer.
    pub(super) unanswered: u64,
    /// The time from when a request was due to its answer.
    pub(super) latencies: Latencies,
}

/// A message that was passed to the client library.
struct SentMessage {
    due: Instant,
    acknowledgement: Acknowledgement,
}

/// A request on a stream, whose answer has not come yet.
struct SentRequest {
    due: Instant,
    count: u64,
}

impl LoadPublisher {
    /// Makes unary calls, one at a time.
    pub(super) async fn call(self) -> Result<Answered, Failure> {
        let mut answered = Answered::default();
        let mut producers = self.client.producers();
        let mut abandoned = std::pin::pin!(self.schedule.abandoned());
        while let Some(due) = self.schedule.next().await {
            let request = PublishRequest {
                topic: self.producer.topic.clone(),
                producer_id: self.producer.id.clone(),
                messages: self.schedule.messages(&due),
                ..Default::default()
            };
            tokio::select! {
                receipt = producers.publish(request) => {
                    receipt?;
                }
                () = &mut abandoned => {
                    answered.unanswered += 1;
                    break;
                }
            }
            self.record(&mut answered, due.count, due.at);
        }
        Ok(answered)
    }

    /// Passes messages one at a time to the client library.
    pub(super) async fn use_library(self) -> Result<Answered, Failure> {
        let RegisteredId { topic, id } = &self.producer;
        let producer = self.client.producer(topic, id).open().await?;
        let mut answered = Answered::default();
        let mut sent = VecDeque::new();
        'sending: while let Some(due) = self.schedule.next().await {
            for message in self.schedule.messages(&due) {
                // The producer's buffer may be full until the time is over.
                let Some(sending) = self.schedule.in_time(producer.send(message)).await else {
                    break 'sending;
                };
                sent.push_back(SentMessage { due: due.at, acknowledgement: sending? });
            }
            self.record_acknowledged(&mut answered, &mut sent)?;
        }
        tokio::select! {
            flushed = producer.flush() => flushed?,
            () = self.schedule.abandoned() => {}
        }
        self.record_acknowledged(&mut answered, &mut sent)?;
        answered.unanswered = sent.len() as u64;
        Ok(answered)
    }

    /// Sends requests with sequences on one stream.
    pub(super) async fn stream(self) -> Result<Answered, Failure> {
        // A permit is needed for each request and comes back with its answer, so neither channel is
        // ever full.
        let permits = Arc::new(Semaphore::new(self.in_flight));
        let (requests, outgoing) = mpsc::channel(self.in_flight);
        let (sent, mut unanswered) = mpsc::channel(self.in_flight);
        let sender = self.clone().send_requests(permits.clone(), requests, sent);
        let sending = AbortOnDropHandle::new(tokio::spawn(sender));
        let mut answered = Answered::default();
        let mut producers = self.client.producers();
        let answers = async {
            let outgoing = ReceiverStream::new(outgoing);
            let mut answers = producers.publish_stream(outgoing).await?.into_inner();
            while let Some(SentRequest { due, count }) = unanswered.recv().await {
                match answers.message().await?.and_then(|answer| answer.result) {
                    Some(Answer::Receipt(_)) => {
                        permits.add_permits(1);
                        self.record(&mut answered, count, due);
                    }
                    Some(Answer::Refusal(refusal)) => return Err(Error::from(refusal).into()),
                    None => return Err(Failure::unavailable("the broker ended the stream")),
                }
            }
            Ok(())
        };
        tokio::select! {
            ended = answers => ended?,
            () = self.schedule.abandoned() => {}
        }
        sending.await.map_err(|error| Failure::refused(error.to_string()))?;
        answered.unanswered = (self.in_flight - permits.available_permits()) as u64;
        Ok(answered)
    }

    async fn send_requests(
        self,
        permits: Arc<Semaphore>,
        requests: mpsc::Sender<PublishStreamRequest>,
        sent: mpsc::Sender<SentRequest>,
    ) {
        let mut sequence = 0;
        loop {
            let permit = match permits.try_acquire() {
                Ok(permit) => permit,
                Err(_) => match self.schedule.in_time(permits.acquire()).await {
                    Some(Ok(permit)) => permit,
                    Some(Err(_)) | None => break,
                },
            };
            let Some(due) = self.schedule.next().await else { break };
            let request = PublishStreamRequest {
                topic: self.producer.topic.clone(),
                producer_id: self.producer.id.clone(),
                messages: self.schedule.messages(&due),
                sequence: Some(sequence),
                ..Default::default()
            };
            sequence += due.count as i64;
            permit.forget();
            // Both fail only once the answers have ended with an error, which is returned there.
            let due = SentRequest { due: due.at, count: due.count };
            if sent.send(due).await.is_err() || requests.send(request).await.is_err() {
                break;
            }
        }
    }

    fn record(&self, answered: &mut Answered, messages: u64, due: Instant) {
        answered.messages += messages;
        answered.requests += 1;
        answered.latencies.add(due.elapsed(), messages);
        self.live.published(messages);
    }

    /// Records the messages at the front that are acknowledged by now.
    fn record_acknowledged(
        &self,
        answered: &mut Answered,
        sent: &mut VecDeque<SentMessage>,
    ) -> Result<(), Failure> {
        while let Some(SentMessage { due, acknowledgement }) = sent.front()
            && let Some(acknowledged) = acknowledgement.try_offset()
        {
            acknowledged?;
            self.record(answered, 1, *due);
            sent.pop_front();
        }
        Ok(())
    }
}
