//! Sends what has gathered, and sends it again after a break.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{
    super::{Client, Error, Refusal, backoff::Backoff, error::is_transient},
    buffer::{Batch, Buffer, Due},
};
use crate::proto::{
    PublishReceipt, PublishRefusal, PublishStreamRequest, PublishStreamResponse,
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
    /// When the last answer came, or the first thing to wait for one.
    progress: Instant,
}

struct Sent {
    batch: Batch,
    sequence: i64,
}

/// Why a stream ended.
enum End {
    /// It may be opened again.
    Broken(String),
    /// It is of no use.
    Failed(Error),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        match is_transient(&status) {
            true => Self::Broken(super::super::explain(&status)),
            false => Self::Failed(status.into()),
        }
    }
}

/// A publish stream that is open.
struct Stream {
    requests: mpsc::Sender<PublishStreamRequest>,
    answers: Streaming<PublishStreamResponse>,
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
            if self.unanswered.is_empty() {
                while self.buffer.due(true) == Due::Later {
                    self.buffer.changed().await;
                }
                self.progress = Instant::now();
            }
            match self.deliver().await {
                End::Failed(error) => break error,
                End::Broken(reason) => {
                    tracing::debug!(reason, "lost the broker");
                    self.client.lost();
                    let pause = self.backoff.next();
                    if self.waits() && self.progress.elapsed() + pause > self.retry_for {
                        break Error::Lost { reason };
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        };
        self.buffer.fail(&error);
        for sent in &self.unanswered {
            self.buffer.settle(&sent.batch, Err(error.clone()));
        }
    }

    /// Whether anything waits for the broker.
    fn waits(&self) -> bool {
        !self.unanswered.is_empty() || self.buffer.due(true) != Due::Later
    }

    /// Opens a stream, sends what was not answered on the one before, and goes on.
    async fn deliver(&mut self) -> End {
        let opening = tokio::time::timeout(ANSWER_TIMEOUT, self.open());
        let mut stream = match opening.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(status)) => return status.into(),
            Err(_) => return End::Broken("the broker does not answer".to_owned()),
        };
        loop {
            if let Err(end) = self.step(&mut stream).await {
                return end;
            }
        }
    }

    async fn open(&self) -> Result<Stream, Status> {
        let mut producers = ProducerServiceClient::new(self.client.open().await?);
        // There is room for all that may be unanswered: sending never waits.
        let (requests, outgoing) = mpsc::channel(WINDOW);
        for sent in &self.unanswered {
            let _ = requests.try_send(self.request_for(sent));
        }
        let answers = producers.publish_stream(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Stream { requests, answers })
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
        let patience = tokio::time::sleep_until(self.progress + ANSWER_TIMEOUT);
        tokio::select! {
            answer = stream.answers.message() => {
                let refused = self.take_answer(answer?)?;
                if let Some(sequence) = refused {
                    self.renumber(stream, sequence).await?;
                }
            }
            () = lingered => {}
            () = self.buffer.changed(), if room => {}
            () = patience, if !self.unanswered.is_empty() => {
                return Err(End::Broken("the broker does not answer".to_owned()));
            }
        }
        Ok(())
    }

    fn send_next(&mut self, stream: &Stream) {
        let Some(batch) = self.buffer.take() else { return };
        if self.unanswered.is_empty() {
            self.progress = Instant::now();
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

    /// Takes the answer to the oldest request. Where that one alone is refused, returns its
    /// sequence, which is free again.
    fn take_answer(&mut self, answer: Option<PublishStreamResponse>) -> Result<Option<i64>, End> {
        let Some(answer) = answer else {
            return Err(End::Broken("the broker hung up".to_owned()));
        };
        self.progress = Instant::now();
        match answer.result {
            Some(Answer::Receipt(PublishReceipt { first_offset, .. })) => {
                let sent = self.unanswered.pop_front().ok_or_else(unexpected)?;
                self.buffer.settle(&sent.batch, Ok(first_offset));
                self.backoff.reset();
                Ok(None)
            }
            Some(Answer::Refusal(refusal)) => match Code::from_i32(refusal.code) {
                Code::Unavailable => Err(End::Broken(refusal.message)),
                // What would be true of all that follows.
                Code::NotFound
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::FailedPrecondition
                | Code::OutOfRange => Err(End::Failed(refusal.into())),
                _ => {
                    let sent = self.unanswered.pop_front().ok_or_else(unexpected)?;
                    self.buffer.settle(&sent.batch, Err(refusal.into()));
                    Ok(Some(sent.sequence))
                }
            },
            None => Err(unexpected()),
        }
    }

    /// After a refused request those behind it are refused, too, as they do not follow what was
    /// stored. Waits for that, so that none is under way under its old number; then they take the
    /// place of the refused one.
    async fn renumber(&mut self, stream: &mut Stream, mut sequence: i64) -> Result<(), End> {
        for _ in 0..self.unanswered.len() {
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, stream.answers.message()).await;
            match answer {
                Ok(Ok(Some(PublishStreamResponse {
                    result: Some(Answer::Refusal(PublishRefusal { reason, .. })),
                }))) if reason == "SEQUENCE_GAP" => {}
                // Whether the old numbers are still under way is not known: what waits must not be
                // sent again under new ones.
                _ => {
                    let reason = "the broker was lost while a request was refused".to_owned();
                    return Err(End::Failed(Error::Lost { reason }));
                }
            }
        }
        for sent in &mut self.unanswered {
            sent.sequence = sequence;
            sequence += sent.batch.messages.len() as i64;
        }
        self.next_sequence = sequence;
        for sent in &self.unanswered {
            let _ = stream.requests.try_send(self.request_for(sent));
        }
        Ok(())
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
