//! PublishStream: requests are taken in as they come, and answered one by one in their order.
//!
//! One task takes in, another answers; between them is a bounded queue of answers to come. When
//! that is full, or the broker's queue is, the stream is no longer read, and HTTP/2 holds the
//! client back.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use super::{decode, encode, status, too_large};
use crate::{
    broker::{Answer, Broker, Error},
    proto::{
        PublishStreamRequest, PublishStreamResponse, publish_stream_response::Result as ProtoResult,
    },
};

/// Requests of one stream that may wait for their answers.
const IN_FLIGHT: usize = 256;

/// Answers that may wait for a slow client.
const ANSWERS: usize = 32;

/// What became of a request as far as it is known, or why the stream ends.
enum Taken {
    In(Answer),
    Refused(Error),
    End(Status),
}

type Answers = mpsc::Sender<Result<PublishStreamResponse, Status>>;

pub(super) fn start(
    broker: &Arc<Broker>,
    requests: Streaming<PublishStreamRequest>,
) -> ReceiverStream<Result<PublishStreamResponse, Status>> {
    let (taken, to_answer) = mpsc::channel(IN_FLIGHT);
    let (answers, stream) = mpsc::channel(ANSWERS);
    broker.track(take_in(broker.clone(), requests, taken).in_current_span());
    broker.track(answer(to_answer, answers).in_current_span());
    ReceiverStream::new(stream)
}

async fn take_in(
    broker: Arc<Broker>,
    mut requests: Streaming<PublishStreamRequest>,
    taken: mpsc::Sender<Taken>,
) {
    loop {
        let next = tokio::select! {
            next = requests.message() => next,
            () = broker.draining().cancelled() => {
                let _ = taken.send(Taken::End(Error::Draining.into())).await;
                return;
            }
            // Nobody reads the answers any more.
            () = taken.closed() => return,
        };
        let outcome = match next {
            Ok(Some(request)) => take_in_one(&broker, request).await,
            Ok(None) => return,
            Err(status) => Taken::End(too_large::explain(&status).unwrap_or(status)),
        };
        let ended = matches!(outcome, Taken::End(_));
        if taken.send(outcome).await.is_err() || ended {
            return;
        }
    }
}

async fn take_in_one(broker: &Broker, request: PublishStreamRequest) -> Taken {
    let publish = match decode::streamed_publish(request) {
        Ok(publish) => publish,
        Err(invalid) => return Taken::Refused(invalid.into()),
    };
    match broker.publish(publish).await {
        Ok(answer) => Taken::In(answer),
        Err(Error::Draining) => Taken::End(Error::Draining.into()),
        Err(error) => Taken::Refused(error),
    }
}

async fn answer(mut to_answer: mpsc::Receiver<Taken>, answers: Answers) {
    while let Some(taken) = to_answer.recv().await {
        let outcome = match taken {
            Taken::In(answer) => answer.wait().await,
            Taken::Refused(error) => Err(error),
            Taken::End(status) => {
                let _ = answers.send(Err(status)).await;
                return;
            }
        };
        let result = match outcome {
            Ok(receipt) => ProtoResult::Receipt(encode::receipt(receipt)),
            Err(error) => ProtoResult::Refusal(status::refusal(&error)),
        };
        // The client went away; what was taken in is stored all the same.
        if answers.send(Ok(PublishStreamResponse { result: Some(result) })).await.is_err() {
            return;
        }
    }
}
