//! Sends requests, and sends the unanswered ones again after a break.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::buffer::{Buffer, Due, Request};
use crate::{
    client::{
        backoff::Backoff,
        connect::{Client, Connection, StreamConnection},
        error::{Error, Refusal, explain, is_transient, retry_delay},
    },
    proto::{
        PublishReceipt, PublishStreamRequest, PublishStreamResponse,
        producer_service_client::ProducerServiceClient, publish_stream_response::Result as Answer,
    },
};

/// How many requests may be unanswered. The broker remembers a producer's last eight runs of
/// messages that were stored together; with more, it might not recognise a request that is sent
/// again after a break.
const WINDOW: usize = 8;

/// A broker that does not answer for this long is taken for lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a delivery needs to start.
pub(super) struct DeliverySpawner {
    pub(super) client: Client,
    pub(super) buffer: Arc<Buffer>,
    /// A request without messages.
    pub(super) template: PublishStreamRequest,
    pub(super) next_sequence: i64,
    /// How long to go on without progress.
    pub(super) retry_for: Duration,
}

/// Owns the requests that were sent and not yet answered.
struct Delivery {
    client: Client,
    buffer: Arc<Buffer>,
    template: PublishStreamRequest,
    next_sequence: i64,
    /// In the order of their sequences, which follow each other.
    unanswered: VecDeque<Sent>,
    retry_for: Duration,
    backoff: Backoff,
    /// When a message was last stored.
    progress: Instant,
}

struct Sent {
    request: Request,
    sequence: i64,
}

/// Why a stream ended.
enum End {
    /// It may be opened again, after the pause that the broker asked for.
    Broken { reason: String, pause: Duration },
    /// Retrying is of no use.
    Failed(Error),
}

impl End {
    fn broken(reason: &str) -> Self {
        Self::Broken { reason: reason.to_owned(), pause: Duration::ZERO }
    }
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        match is_transient(&status) {
            true => Self::Broken { reason: explain(&status), pause: retry_delay(&status) },
            false => Self::Failed(status.into()),
        }
    }
}

/// An open publish stream.
struct PublishStream {
    requests: mpsc::Sender<PublishStreamRequest>,
    answers: Streaming<PublishStreamResponse>,
    /// Since when the broker owes an answer: the latest of the stream's opening, the last answer,
    /// and the sending of a request while no other was unanswered.
    waiting_since: Instant,
}

impl DeliverySpawner {
    pub(super) fn spawn(self) -> JoinHandle<()> {
        let Self { client, buffer, template, next_sequence, retry_for } = self;
        let delivery = Delivery {
            client,
            buffer,
            template,
            next_sequence,
            unanswered: VecDeque::with_capacity(WINDOW),
            retry_for,
            backoff: Backoff::default(),
            progress: Instant::now(),
        };
        tokio::spawn(delivery.run())
    }
}

impl Delivery {
    /// Delivers until the producer is dropped or an error is final.
    async fn run(mut self) {
        let error = loop {
            if self.unanswered.is_empty() && self.buffer.due(true) == Due::Later {
                self.buffer.changed().await;
                continue;
            }
            match self.deliver().await {
                End::Failed(error) => break error,
                End::Broken { reason, pause } => {
                    tracing::debug!(error = reason, "lost the broker");
                    let pause = self.backoff.next_after(self.client.pause_for(pause));
                    let pause = match self.stalled_for() {
                        Some(stalled) if stalled >= self.retry_for => break Error::Lost { reason },
                        // However long the pause would be, a last try is made in time.
                        Some(stalled) => pause.min(self.retry_for - stalled),
                        None => pause,
                    };
                    tokio::time::sleep(pause).await;
                }
            }
        };
        self.buffer.end(&error);
        for sent in self.unanswered.drain(..) {
            self.buffer.settle(&sent.request, Err(error.clone()));
        }
        self.buffer.fail(&error);
    }

    /// How long the oldest waiting message has waited without any message being stored; `None` if
    /// no message waits.
    fn stalled_for(&self) -> Option<Duration> {
        let sent = self.unanswered.front().map(|sent| sent.request.began);
        let since = sent.or_else(|| self.buffer.oldest())?;
        Some(since.max(self.progress).elapsed())
    }

    /// Opens a stream, sends again what the previous one left unanswered, and goes on from there.
    async fn deliver(&mut self) -> End {
        let StreamConnection { connection, broker, replacements } = match self.client.open().await {
            Ok(opened) => opened,
            Err(status) => return status.into(),
        };
        match self.deliver_over(connection).await {
            End::Failed(Error::Refused(refusal))
                if self.client.has_another_token(refusal.code, replacements) =>
            {
                End::broken(&refusal.message)
            }
            End::Broken { reason, pause } => {
                self.client.record_lost(broker);
                End::Broken { reason, pause }
            }
            failed => failed,
        }
    }

    async fn deliver_over(&mut self, connection: Connection) -> End {
        let opening = tokio::time::timeout(ANSWER_TIMEOUT, self.open(connection));
        let mut stream = match opening.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(status)) => return status.into(),
            Err(_) => return End::broken("the broker does not answer"),
        };
        loop {
            if let Err(end) = self.step(&mut stream).await {
                return end;
            }
        }
    }

    async fn open(&self, connection: Connection) -> Result<PublishStream, Status> {
        let mut producers = ProducerServiceClient::new(connection);
        // Has room for every request that may be unanswered, so that sending never waits.
        let (requests, outgoing) = mpsc::channel(WINDOW);
        for sent in &self.unanswered {
            let _ = requests.try_send(self.encode(sent));
        }
        let answers = producers.publish_stream(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(PublishStream { requests, answers, waiting_since: Instant::now() })
    }

    /// Sends the request that is due, or waits for an answer or for a request.
    async fn step(&mut self, stream: &mut PublishStream) -> Result<(), End> {
        let room = self.unanswered.len() < WINDOW;
        let due = if room { self.buffer.due(self.unanswered.is_empty()) } else { Due::Later };
        if due == Due::Now {
            self.send_next(stream);
            return Ok(());
        }
        let lingered = async {
            match due {
                Due::At(time) => tokio::time::sleep_until(time).await,
                _ => std::future::pending().await,
            }
        };
        let timeout = tokio::time::sleep_until(stream.waiting_since + ANSWER_TIMEOUT);
        tokio::select! {
            answer = stream.answers.message() => {
                stream.waiting_since = Instant::now();
                self.record_answer(answer?)?;
            }
            () = lingered => {}
            () = self.buffer.changed(), if room => {}
            () = timeout, if !self.unanswered.is_empty() => {
                return Err(End::broken("the broker does not answer"));
            }
        }
        Ok(())
    }

    fn send_next(&mut self, stream: &mut PublishStream) {
        let Some(request) = self.buffer.take() else { return };
        if self.unanswered.is_empty() {
            stream.waiting_since = Instant::now();
        }
        let sent = Sent { request, sequence: self.next_sequence };
        self.next_sequence += sent.request.messages.len() as i64;
        // If the stream has ended, its answers end as well, and the next stream sends this again.
        let _ = stream.requests.try_send(self.encode(&sent));
        self.unanswered.push_back(sent);
    }

    fn encode(&self, sent: &Sent) -> PublishStreamRequest {
        PublishStreamRequest {
            messages: sent.request.messages.clone(),
            sequence: Some(sent.sequence),
            ..self.template.clone()
        }
    }

    /// Records the answer to the oldest unanswered request.
    fn record_answer(&mut self, answer: Option<PublishStreamResponse>) -> Result<(), End> {
        let answer = answer.ok_or_else(|| End::broken("the broker closed the stream"))?;
        match answer.result {
            Some(Answer::Receipt(PublishReceipt { first_offset, .. })) => {
                let sent = self.unanswered.pop_front().ok_or_else(unexpected)?;
                self.buffer.settle(&sent.request, Ok(first_offset));
                self.backoff.reset();
                self.progress = Instant::now();
                Ok(())
            }
            Some(Answer::Refusal(refusal))
                if refusal.code == i32::from(Code::Unavailable)
                    || refusal.retry_delay.is_some() =>
            {
                let pause = refusal.retry_delay.and_then(|delay| delay.try_into().ok());
                let (reason, pause) = (refusal.message, pause.unwrap_or_default());
                Err(End::Broken { reason, pause })
            }
            // The sequences of the requests after it leave a gap now. New sequences would not be
            // safe: after a break, a request may still be under way with its old one.
            Some(Answer::Refusal(refusal)) => Err(End::Failed(refusal.into())),
            None => Err(unexpected()),
        }
    }
}

/// When the producer is dropped, requests that were sent settle before those that were not.
impl Drop for Delivery {
    fn drop(&mut self) {
        self.unanswered.clear();
        self.buffer.fail(&Error::Closed);
    }
}

/// An answer that no broker gives.
fn unexpected() -> End {
    End::Failed(Error::Refused(Refusal {
        code: Code::Internal,
        reason: String::new(),
        message: "the broker gave an unexpected answer".to_owned(),
        metadata: Default::default(),
    }))
}
