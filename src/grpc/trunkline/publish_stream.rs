//! PublishStream: requests are taken in as they come, and answered one by one in their order.
//!
//! What has come together goes on its way together, as far as it can. Between taking in and
//! answering is a bounded queue of answers to come: when that is full, or the broker's queue is,
//! the stream is no longer read, and HTTP/2 holds the client back.

use std::{pin::Pin, sync::Arc};

use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use crate::{
    broker::{Answers, Broker, Error, Publish, Receipt},
    grpc::{
        explain, status,
        trunkline::{
            decode::{self, Names},
            encode,
        },
    },
    proto::{
        PublishStreamResponse, publish_stream_response::Result as ProtoResult, raw::PublishRequest,
    },
};

/// Runs of requests of one stream that may wait for their answers, each of up to a thousand.
const IN_FLIGHT: usize = 64;

/// What became of requests as far as it is known, or why the stream ends.
enum Taken {
    In(Answers),
    /// So many requests are refused for one reason.
    Refused(Error, usize),
    End(Status),
}

/// What a client sent.
enum Come {
    Request(Publish),
    Refused(Error),
    /// The stream ends, with a status unless it is over.
    End(Option<Status>),
}

type Answer = Result<PublishStreamResponse, Status>;

/// The answers of a stream.
pub(super) type AnswerStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

pub(super) fn start(broker: &Arc<Broker>, requests: Streaming<PublishRequest>) -> AnswerStream {
    let (taking, taken) = mpsc::channel(IN_FLIGHT);
    let intake = Intake { broker: broker.clone(), requests, names: Names::default(), taking };
    broker.track(intake.run().in_current_span());
    Box::pin(ReceiverStream::new(taken).then(answers).flat_map(stream::iter))
}

/// Takes the requests of a stream in.
struct Intake {
    broker: Arc<Broker>,
    requests: Streaming<PublishRequest>,
    names: Names,
    taking: mpsc::Sender<Taken>,
}

impl Intake {
    async fn run(mut self) {
        let mut behind = None;
        loop {
            let come = match behind.take() {
                Some(come) => come,
                None => self.wait().await,
            };
            let taken = match come {
                Come::Request(publish) => {
                    let mut publish = publish;
                    behind = self.append_waiting(&mut publish);
                    let requests = publish.messages.requests();
                    match self.broker.publisher.enqueue(publish).await {
                        Ok(answers) => Taken::In(answers),
                        Err(Error::Draining) => Taken::End(status::of(&Error::Draining)),
                        Err(error) => Taken::Refused(error, requests),
                    }
                }
                Come::Refused(error) => Taken::Refused(error, 1),
                Come::End(Some(status)) => Taken::End(status),
                Come::End(None) => return,
            };
            let ended = matches!(taken, Taken::End(_));
            // Fails when the client went away; what was taken in is stored all the same.
            if self.taking.send(taken).await.is_err() || ended {
                return;
            }
            if behind.is_some() {
                // More has come than fits into a run: others may have their turn.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits for the next request.
    async fn wait(&mut self) -> Come {
        let next = tokio::select! {
            next = self.requests.message() => next,
            () = self.broker.draining().cancelled() => Err(status::of(&Error::Draining)),
            // Nobody reads the answers any more.
            () = self.taking.closed() => Ok(None),
        };
        self.read(next)
    }

    /// Takes along what has come already and goes on where the run ends; returns what comes behind
    /// it, if that has come too.
    fn append_waiting(&mut self, publish: &mut Publish) -> Option<Come> {
        while let Some(next) = self.requests.message().now_or_never() {
            match self.read(next) {
                Come::Request(next) => {
                    if let Err(next) = publish.append(next) {
                        return Some(Come::Request(next));
                    }
                }
                other => return Some(other),
            }
        }
        None
    }

    fn read(&mut self, next: Result<Option<PublishRequest>, Status>) -> Come {
        match next {
            Ok(Some(request)) => match decode::publish(request, &mut self.names) {
                Ok(publish) => Come::Request(publish),
                Err(invalid) => Come::Refused(invalid.into()),
            },
            Ok(None) => Come::End(None),
            Err(status) => Come::End(Some(explain::explain(&status).unwrap_or(status))),
        }
    }
}

/// Waits for what became of requests.
async fn answers(taken: Taken) -> Vec<Answer> {
    match taken {
        Taken::In(answers) => answers.wait().await.into_iter().map(answer).collect(),
        Taken::Refused(error, requests) => {
            vec![Err(error); requests].into_iter().map(answer).collect()
        }
        Taken::End(status) => vec![Err(status)],
    }
}

fn answer(outcome: Result<Receipt, Error>) -> Answer {
    let result = match outcome {
        Ok(receipt) => ProtoResult::Receipt(encode::receipt(receipt)),
        Err(error) => {
            error.log_cause("refuse a publish");
            ProtoResult::Refusal(status::refusal(&error))
        }
    };
    Ok(PublishStreamResponse { result: Some(result) })
}
