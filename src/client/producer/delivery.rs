//! Sends what has gathered, and sends it again after a break.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{
    super::{
        Client, Connection, Error, Refusal,
        backoff::Backoff,
        connect::Opened,
        error::{explain, is_transient, retry_delay},
    },
    buffer::{Batch, Buffer, Due},
};
use crate::proto::{
    PublishReceipt, PublishStreamRequest, PublishStreamResponse,
    producer_service_client::ProducerServiceClient, publish_stream_response::Result as Answer,
};

/// Requests that may be under way. The broker remembers the last eight runs of messages of a
/// producer that were stored together: no more may be unanswered, or a request that is sent again
/// after a break might not be known any more.
const WINDOW: usize = 8;

/// A broker that does not answer for so long is as good as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Owns what was sent and not answered yet.
pub(super) struct Delivery {
    client: Client,
    buffer: Arc<Buffer>,
    /// A request without messages.
    request: PublishStreamRequest,
    next_sequence: i64,
    /// In the order of their sequences, which follow each other.
    unanswered: VecDeque<Sent>,
    retry_for: Duration,
    backoff: Backoff,
    /// When the last message was stored.
    progress: Instant,
}

struct Sent {
    batch: Batch,
    sequence: i64,
}

/// Why a stream ended.
enum End {
    /// It may be opened again, after as long as the broker asked for.
    Broken { reason: String, pause: Duration },
    /// It is of no use.
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

/// A publish stream that is open.
struct Stream {
    requests: mpsc::Sender<PublishStreamRequest>,
    answers: Streaming<PublishStreamResponse>,
    /// When it was opened, when the broker last answered, or when the first request went out that
    /// waits for an answer: the latest of them.
    heard: Instant,
}

impl Delivery {
    pub(super) fn new(
        client: Client,
        buffer: Arc<Buffer>,
        request: PublishStreamRequest,
        next_sequence: i64,
        retry_for: Duration,
    ) -> Self {
        Self {
            client,
            buffer,
            request,
            next_sequence,
            unanswered: VecDeque::with_capacity(WINDOW),
            retry_for,
            backoff: Backoff::default(),
            progress: Instant::now(),
        }
    }

    /// Delivers until the producer is dropped, or something happens after which nothing can be.
    pub(super) async fn run(mut self) {
        let error = loop {
            if self.unanswered.is_empty() && self.buffer.due(true) == Due::Later {
                self.buffer.changed().await;
                continue;
            }
            match self.deliver().await {
                End::Failed(error) => break error,
                End::Broken { reason, pause } => {
                    tracing::debug!(reason, "lost the broker");
                    let pause = self.backoff.next_after(self.client.heeded(pause));
                    let pause = match self.waited() {
                        Some(waited) if waited >= self.retry_for => break Error::Lost { reason },
                        // However long a pause is asked for: a last try is made in time.
                        Some(waited) => pause.min(self.retry_for - waited),
                        None => pause,
                    };
                    tokio::time::sleep(pause).await;
                }
            }
        };
        self.buffer.end(&error);
        for sent in self.unanswered.drain(..) {
            self.buffer.settle(&sent.batch, Err(error.clone()));
        }
        self.buffer.fail(&error);
    }

    /// For how long something has waited for the broker while nothing was stored, if anything does.
    fn waited(&self) -> Option<Duration> {
        let sent = self.unanswered.front().map(|sent| sent.batch.began);
        let since = sent.or_else(|| self.buffer.oldest())?;
        Some(since.max(self.progress).elapsed())
    }

    /// Opens a stream, sends what was not answered on the one before, and goes on.
    async fn deliver(&mut self) -> End {
        let Opened { connection, broker } = match self.client.open().await {
            Ok(opened) => opened,
            Err(status) => return status.into(),
        };
        let end = self.deliver_over(connection).await;
        if let End::Broken { .. } = &end {
            self.client.lost(broker);
        }
        end
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

    async fn open(&self, connection: Connection) -> Result<Stream, Status> {
        let mut producers = ProducerServiceClient::new(connection);
        // There is room for all that may be unanswered: sending never waits.
        let (requests, outgoing) = mpsc::channel(WINDOW);
        for sent in &self.unanswered {
            let _ = requests.try_send(self.request_for(sent));
        }
        let answers = producers.publish_stream(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Stream { requests, answers, heard: Instant::now() })
    }

    /// Sends what is due, or waits for an answer or for something to send.
    async fn step(&mut self, stream: &mut Stream) -> Result<(), End> {
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
        let patience = tokio::time::sleep_until(stream.heard + ANSWER_TIMEOUT);
        tokio::select! {
            answer = stream.answers.message() => {
                stream.heard = Instant::now();
                self.take_answer(answer?)?;
            }
            () = lingered => {}
            () = self.buffer.changed(), if room => {}
            () = patience, if !self.unanswered.is_empty() => {
                return Err(End::broken("the broker does not answer"));
            }
        }
        Ok(())
    }

    fn send_next(&mut self, stream: &mut Stream) {
        let Some(batch) = self.buffer.take() else { return };
        if self.unanswered.is_empty() {
            stream.heard = Instant::now();
        }
        let sent = Sent { batch, sequence: self.next_sequence };
        self.next_sequence += sent.batch.messages.len() as i64;
        // If the stream is over, its answers end, too, and this is sent again on the next one.
        let _ = stream.requests.try_send(self.request_for(&sent));
        self.unanswered.push_back(sent);
    }

    fn request_for(&self, sent: &Sent) -> PublishStreamRequest {
        PublishStreamRequest {
            messages: sent.batch.messages.clone(),
            sequence: Some(sent.sequence),
            ..self.request.clone()
        }
    }

    /// Takes the answer to the oldest request.
    fn take_answer(&mut self, answer: Option<PublishStreamResponse>) -> Result<(), End> {
        let answer = answer.ok_or_else(|| End::broken("the broker hung up"))?;
        match answer.result {
            Some(Answer::Receipt(PublishReceipt { first_offset, .. })) => {
                let sent = self.unanswered.pop_front().ok_or_else(unexpected)?;
                self.buffer.settle(&sent.batch, Ok(first_offset));
                self.backoff.reset();
                self.progress = Instant::now();
                Ok(())
            }
            Some(Answer::Refusal(refusal)) if refusal.code == i32::from(Code::Unavailable) => {
                let pause = refusal.retry_delay.and_then(|delay| delay.try_into().ok());
                let (reason, pause) = (refusal.message, pause.unwrap_or_default());
                Err(End::Broken { reason, pause })
            }
            // Those behind it do not follow what was stored any more. To give them new sequences
            // would not be safe: after a break, one may still be under way under its old one.
            Some(Answer::Refusal(refusal)) => Err(End::Failed(refusal.into())),
            None => Err(unexpected()),
        }
    }
}

/// The producer was dropped: what was sent is settled before what was not.
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
        message: "the broker gave an answer that is not known".to_owned(),
        metadata: Default::default(),
    }))
}
