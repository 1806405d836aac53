//! `trunkline produce`: publishes lines, and says how far they were acknowledged.

use std::{
    ffi::{OsStr, OsString},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt as _},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    Produce, catalog,
    failure::{Failure, say},
    lines::Lines,
};
use crate::{
    client::{self, Client},
    model::MAX_MESSAGE_BYTES,
    proto::{
        NewMessage, PublishReceipt, PublishRefusal, PublishStreamRequest, PublishStreamResponse,
        publish_stream_response::Result as Answer,
    },
};

/// A request is sent when it holds so many lines or bytes, or when nothing more is there to read:
/// a line that a person types does not wait for others.
const REQUEST_LINES: usize = 1_000;
const REQUEST_BYTES: usize = 512 * 1024;

/// Requests that may wait for their answer; reading waits for the next answer then.
const IN_FLIGHT: usize = 16;

const READ_BYTES: usize = 256 * 1024;

/// How long answers are waited for once all is sent, and after Ctrl-C.
const LAST_ANSWERS: Duration = Duration::from_secs(60);
const LAST_ANSWERS_INTERRUPTED: Duration = Duration::from_secs(5);

pub(super) async fn run(client: &Client, options: Produce) -> Result<(), Failure> {
    let Produce { topic, producer, register, fence, mut epoch, files } = options;
    let inputs = open_all(&files).await?;
    if register {
        catalog::ensure_topic(client, &topic).await?;
    }
    if fence {
        epoch = catalog::fence_producer(client, &topic, &producer).await?.epoch;
    } else if register {
        catalog::ensure_producer(client, &topic, &producer).await?;
    }
    let began = Instant::now();
    let mut shipping = Shipping::start(client, topic, producer, epoch).await?;
    let (shipped, patience) = tokio::select! {
        shipped = shipping.ship(inputs) => (shipped, LAST_ANSWERS),
        _ = tokio::signal::ctrl_c() => (Err(Failure::interrupted()), LAST_ANSWERS_INTERRUPTED),
    };
    let summary = shipping.summary.clone();
    let answered = shipping.finish(patience).await;
    let told = told(&lock(&summary), began.elapsed());
    match answered.and(shipped) {
        Ok(()) => {
            say(&told);
            Ok(())
        }
        Err(failure) => Err(failure.after(&told)),
    }
}

struct Input {
    name: String,
    reader: Box<dyn AsyncRead + Unpin + Send>,
}

/// Opens all files before a line of any is sent.
async fn open_all(files: &[OsString]) -> Result<Vec<Input>, Failure> {
    let mut inputs = Vec::new();
    for file in files {
        let name = file.to_string_lossy().into_owned();
        let reader: Box<dyn AsyncRead + Unpin + Send> = match file.as_os_str() == OsStr::new("-") {
            true => Box::new(tokio::io::stdin()),
            false => Box::new(
                File::open(file)
                    .await
                    .map_err(|e| Failure::refused(format!("open {name}: {e}")))?,
            ),
        };
        inputs.push(Input { name, reader });
    }
    Ok(inputs)
}

/// A request that waits for its answer.
struct Sent {
    /// Where its last line stands, for people.
    last: String,
}

/// What was acknowledged.
#[derive(Default)]
struct Summary {
    lines: u64,
    last_offset: Option<i64>,
    /// Where the last acknowledged line stands.
    last: Option<String>,
}

struct Shipping {
    topic: String,
    producer_id: String,
    producer_epoch: i64,
    requests: mpsc::Sender<PublishStreamRequest>,
    waiting: mpsc::Sender<Sent>,
    answers: JoinHandle<Result<(), Failure>>,
    summary: Arc<Mutex<Summary>>,
    batch: Vec<NewMessage>,
    batch_bytes: usize,
}

impl Shipping {
    async fn start(
        client: &Client,
        topic: String,
        producer_id: String,
        producer_epoch: i64,
    ) -> Result<Self, Failure> {
        let (requests, outgoing) = mpsc::channel(1);
        let (waiting, sent) = mpsc::channel(IN_FLIGHT);
        let mut producers = client.producers();
        let opened = producers.publish_stream(ReceiverStream::new(outgoing)).await?;
        let summary = Arc::new(Mutex::new(Summary::default()));
        let answers = tokio::spawn(take_answers(opened.into_inner(), sent, summary.clone()));
        Ok(Self {
            topic,
            producer_id,
            producer_epoch,
            requests,
            waiting,
            answers,
            summary,
            batch: Vec::new(),
            batch_bytes: 0,
        })
    }

    async fn ship(&mut self, inputs: Vec<Input>) -> Result<(), Failure> {
        for Input { name, mut reader } in inputs {
            let mut lines = Lines::default();
            let mut number = 0;
            loop {
                lines.buffer().reserve(READ_BYTES);
                let read = reader.read_buf(lines.buffer()).await;
                let read = read.map_err(|e| Failure::refused(format!("read {name}: {e}")))?;
                while let Some(line) = lines.next_line() {
                    number += 1;
                    self.add(&name, number, line).await?;
                }
                let last = if read == 0 { lines.last_line() } else { None };
                if let Some(line) = last {
                    number += 1;
                    self.add(&name, number, line).await?;
                }
                self.send(&name, number).await?;
                if lines.unfinished() > MAX_MESSAGE_BYTES {
                    return Err(too_long(&name, number + 1));
                }
                if read == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn add(&mut self, name: &str, number: u64, line: Bytes) -> Result<(), Failure> {
        if line.len() > MAX_MESSAGE_BYTES {
            // What came before is acknowledged first.
            self.send(name, number - 1).await?;
            return Err(too_long(name, number));
        }
        if self.batch.len() == REQUEST_LINES || self.batch_bytes + line.len() > REQUEST_BYTES {
            self.send(name, number - 1).await?;
        }
        self.batch_bytes += line.len();
        self.batch.push(NewMessage { payload: line, ..NewMessage::default() });
        Ok(())
    }

    /// Sends what has gathered, whose last line is number `last` of a file.
    async fn send(&mut self, name: &str, last: u64) -> Result<(), Failure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.batch_bytes = 0;
        let request = PublishStreamRequest {
            topic: self.topic.clone(),
            producer_id: self.producer_id.clone(),
            producer_epoch: self.producer_epoch,
            messages: std::mem::take(&mut self.batch),
            ..Default::default()
        };
        // Both fail only when the answers ended, and then they say why.
        let stopped = || Failure::refused("the broker stopped taking lines");
        let last = format!("line {last} of {name}");
        self.waiting.send(Sent { last }).await.map_err(|_| stopped())?;
        self.requests.send(request).await.map_err(|_| stopped())
    }

    /// Sends no more, and waits for the answers to what was sent.
    async fn finish(self, patience: Duration) -> Result<(), Failure> {
        drop((self.requests, self.waiting));
        match tokio::time::timeout(patience, self.answers).await {
            Ok(answered) => answered.unwrap_or_else(|e| Err(Failure::refused(e.to_string()))),
            Err(_) => Err(lost(&format!("no answer from the broker in {patience:?}"))),
        }
    }
}

/// Takes the answers in their order until all that was sent is answered, or one is not a receipt.
async fn take_answers(
    mut answers: Streaming<PublishStreamResponse>,
    mut sent: mpsc::Receiver<Sent>,
    summary: Arc<Mutex<Summary>>,
) -> Result<(), Failure> {
    while let Some(Sent { last }) = sent.recv().await {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer.result,
            Ok(None) => return Err(lost("the broker hung up")),
            Err(status) => return Err(lost(&client::explain(&status))),
        };
        match answer {
            Some(Answer::Receipt(PublishReceipt { first_offset, count, .. })) => {
                let mut summary = lock(&summary);
                summary.lines += u64::from(count.unsigned_abs());
                summary.last_offset = Some(first_offset + i64::from(count) - 1);
                summary.last = Some(last);
            }
            Some(Answer::Refusal(PublishRefusal { message, reason, .. })) => {
                return Err(Failure::refused(format!("{message} ({reason})")));
            }
            None => return Err(Failure::refused("the broker gave an unknown answer")),
        }
    }
    Ok(())
}

fn lock(summary: &Mutex<Summary>) -> MutexGuard<'_, Summary> {
    summary.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The broker went away while requests waited for their answers.
fn lost(problem: &str) -> Failure {
    let unknown = "what was sent after the last acknowledged line may be stored or not";
    Failure::unavailable(format!("{problem}; {unknown}"))
}

fn told(summary: &Summary, took: Duration) -> String {
    let (Some(offset), Some(last)) = (summary.last_offset, &summary.last) else {
        return "no message was acknowledged".to_owned();
    };
    let (lines, seconds) = (summary.lines, took.as_secs_f64());
    let rate = lines as f64 / seconds.max(0.000_001);
    format!(
        "{lines} messages acknowledged in {seconds:.2} s ({rate:.0}/s), up to {last}, last offset {offset}"
    )
}

fn too_long(name: &str, number: u64) -> Failure {
    let limit = MAX_MESSAGE_BYTES;
    Failure::refused(format!("line {number} of {name} is longer than the limit of {limit} bytes"))
}
