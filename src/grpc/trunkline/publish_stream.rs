//! `PublishStream`: accepts requests as they arrive, and answers each in order.
//!
//! Requests that have arrived together are enqueued as one request group where possible. A bounded
//! queue holds the answers to come: when it is full, or the broker's queue is, the stream is no
//! longer read, and HTTP/2 flow control holds the client back.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
};

use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};
use tracing::Instrument as _;

use crate::{
    access::{self, Guard, Pace},
    broker::{Answers, Broker, Error, Publish, Receipt},
    grpc::{
        arrivals::Arrivals,
        audited::Denials,
        explain,
        limits::UNREAD_LIMIT,
        status::{self, Refused},
        stream_answer::GivenUp,
        trunkline::{
            decode::{self, Names},
            encode, missing,
        },
    },
    metrics::CallMetrics,
    model::RegistrationKey,
    proto::{
        Bounded, PublishStreamResponse, publish_stream_response::Result as ProtoResult,
        raw::PublishRequest,
    },
};

/// How many request groups of a stream may wait for their answers, each of up to 1,024 messages.
const IN_FLIGHT: usize = 64;

/// What to answer next on a stream.
enum Upcoming {
    /// The answers to a request group.
    Answers(Answers),
    /// Several requests are refused for one reason.
    Refused { error: Refused, requests: usize },
    /// The stream ends.
    End(Status),
}

/// A request, or a group of them, and the bytes that are held for it.
struct Accepted {
    publish: Publish,
    bytes: usize,
}

/// What arrived from a client.
enum Received {
    Request(Accepted),
    Invalid(Refused),
    /// The client sends no more requests.
    Closed,
    /// The stream fails.
    Failed(Status),
}

type Answer = Result<PublishStreamResponse, Status>;

/// The answers of a stream.
pub(super) type AnswerStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

/// Whose stream it is.
pub(super) struct PublishingCaller {
    pub(super) guard: Guard,
    /// Counts what the client may not publish; `None` if it may publish everything.
    pub(super) denials: Option<Denials>,
    /// What the requests are charged to; `None` for a stream of everyone.
    pub(super) pace: Option<Pace>,
    /// Counts refused requests.
    pub(super) metrics: Arc<CallMetrics>,
}

pub(super) fn start(
    broker: &Arc<Broker>,
    caller: PublishingCaller,
    requests: Streaming<Bounded<PublishRequest>>,
    arrivals: Arrivals,
) -> Response<AnswerStream> {
    let PublishingCaller { guard, denials, pace, metrics } = caller;
    let (upcoming, answered) = mpsc::channel(IN_FLIGHT);
    let withdrawn = Arc::<OnceLock<Status>>::default();
    let last = withdrawn.clone();
    let given_up = GivenUp::default();
    let intake = Intake {
        broker: broker.clone(),
        guard,
        denials,
        pace,
        requests,
        arrivals,
        names: Names::default(),
        upcoming,
        withdrawn,
        given_up: given_up.clone(),
    };
    broker.track(intake.run().in_current_span());
    let answers = ReceiverStream::new(answered)
        .then(move |upcoming| answers(upcoming, metrics.clone()))
        .flat_map(stream::iter);
    // After the answers to what was accepted.
    let last = stream::once(async move { last.get().cloned() });
    let answers = answers.chain(last.filter_map(async |status| status.map(Err)));
    let mut response: Response<AnswerStream> = Response::new(Box::pin(answers));
    response.extensions_mut().insert(given_up);
    response
}

/// Accepts the requests of a stream.
struct Intake {
    broker: Arc<Broker>,
    guard: Guard,
    /// Counts what the client may not publish; `None` if it may publish everything.
    denials: Option<Denials>,
    /// What the requests are charged to; `None` for a stream of everyone.
    pace: Option<Pace>,
    requests: Streaming<Bounded<PublishRequest>>,
    /// What is held for the requests.
    arrivals: Arrivals,
    names: Names,
    upcoming: mpsc::Sender<Upcoming>,
    /// Why the stream ends before its client ends it. Set while the queue of answers may be full.
    withdrawn: Arc<OnceLock<Status>>,
    /// Cancelled once that is set.
    given_up: GivenUp,
}

impl Intake {
    async fn run(mut self) {
        let mut left_over = None;
        loop {
            let received = match left_over.take() {
                Some(received) => received,
                None => self.receive().await,
            };
            let upcoming = match received {
                Received::Request(mut group) => {
                    left_over = self.append_arrived(&mut group);
                    self.accept(group).await
                }
                Received::Invalid(error) => Upcoming::Refused { error, requests: 1 },
                Received::Failed(status) => Upcoming::End(status),
                Received::Closed => return,
            };
            let ended = matches!(upcoming, Upcoming::End(_));
            if !self.pass_on(upcoming).await || ended {
                return;
            }
            if left_over.is_some() {
                // More has arrived than fits in a group: let other tasks run first.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Passes on where the next answers come from. Returns false if the stream ends: because the
    /// client has gone, may not publish any more, or does not read its answers, for which requests
    /// that have arrived would hold their room. What was enqueued is stored all the same.
    async fn pass_on(&mut self, upcoming: Upcoming) -> bool {
        let upcoming = match self.upcoming.try_send(upcoming) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(upcoming)) => upcoming,
        };
        let ended = tokio::select! {
            biased;
            sent = self.upcoming.send(upcoming) => return sent.is_ok(),
            error = self.guard.ended() => deny(&self.denials, error),
            () = tokio::time::sleep(UNREAD_LIMIT) => status::answer_dropped(),
        };
        self.withdrawn.get_or_init(|| ended);
        self.given_up.0.cancel();
        false
    }

    /// Enqueues a request group, if the caller may publish it.
    async fn accept(&mut self, Accepted { publish, bytes }: Accepted) -> Upcoming {
        // Returned if the group is refused.
        let hold = self.arrivals.take(bytes);
        let requests = publish.messages.requests();
        let key = || RegistrationKey::producer(&publish.topic, &publish.producer);
        if let Err(error) = self.guard.permit(key).await {
            if error.is_of_caller() {
                return Upcoming::End(deny(&self.denials, error));
            }
            if let Some(denials) = &self.denials {
                denials.count(&error);
            }
            let error = missing::refusal_of_publish(&self.broker, error).await;
            return Upcoming::Refused { error, requests };
        }
        // The call lasts for many publishes, so it is not the span of each.
        let traces = self.broker.traces();
        let span = traces.begin_publish(None, &publish.topic, publish.messages.as_slice());
        match self.broker.publisher.enqueue(publish, hold, span).await {
            Ok(answers) => Upcoming::Answers(answers),
            Err(Error::Draining) => Upcoming::End(status::of(&Error::Draining)),
            Err(error) => Upcoming::Refused { error: error.into(), requests },
        }
    }

    /// Waits for the next request.
    async fn receive(&mut self) -> Received {
        let next = tokio::select! {
            next = self.requests.message() => next,
            () = self.broker.draining().cancelled() => Err(status::of(&Error::Draining)),
            error = self.guard.ended() => Err(deny(&self.denials, error)),
            // The client has gone.
            () = self.upcoming.closed() => Ok(None),
        };
        self.decode(next)
    }

    /// Appends requests that have already arrived, for as long as they continue the group. Returns
    /// the first arrival that does not, if there is one.
    fn append_arrived(&mut self, group: &mut Accepted) -> Option<Received> {
        while let Some(next) = self.requests.message().now_or_never() {
            match self.decode(next) {
                Received::Request(Accepted { publish, bytes }) => {
                    if let Some(publish) = group.publish.append(publish) {
                        return Some(Received::Request(Accepted { publish, bytes }));
                    }
                    group.bytes += bytes;
                }
                other => return Some(other),
            }
        }
        None
    }

    fn decode(&mut self, next: Result<Option<Bounded<PublishRequest>>, Status>) -> Received {
        match next {
            Ok(Some(request)) => match decode::publish(request, &mut self.names) {
                Ok(publish) => {
                    if let Some(pace) = &self.pace {
                        pace.charge(publish.messages.count(), publish.messages.bytes());
                    }
                    let bytes = self.arrivals.decoded(publish.memory());
                    Received::Request(Accepted { publish, bytes })
                }
                Err(invalid) => {
                    self.arrivals.refused();
                    Received::Invalid(invalid.into())
                }
            },
            Ok(None) => Received::Closed,
            Err(status) => Received::Failed(explain::explain(&status).unwrap_or(status)),
        }
    }
}

/// Ends a stream whose caller may not go on.
fn deny(denials: &Option<Denials>, error: access::Error) -> Status {
    if let Some(denials) = denials {
        denials.count(&error);
    }
    status::refuse(error)
}

/// Waits for the next answers of a stream.
async fn answers(upcoming: Upcoming, metrics: Arc<CallMetrics>) -> Vec<Answer> {
    match upcoming {
        Upcoming::Answers(answers) => {
            let outcomes = answers.wait().await.into_iter();
            outcomes.map(|outcome| answer(outcome, &metrics)).collect()
        }
        Upcoming::Refused { error, requests } => {
            vec![error; requests].into_iter().map(|error| answer(Err(error), &metrics)).collect()
        }
        Upcoming::End(status) => vec![Err(status)],
    }
}

fn answer(outcome: Result<Receipt, impl Into<Refused>>, metrics: &CallMetrics) -> Answer {
    let result = match outcome.map_err(Into::into) {
        Ok(receipt) => ProtoResult::Receipt(encode::receipt(receipt)),
        Err(error) => {
            if let Refused::Broker(error) = &error {
                error.log_cause("refuse a publish");
            }
            let refusal = status::refusal(&error);
            metrics.count_refusal(&refusal.reason);
            ProtoResult::Refusal(refusal)
        }
    };
    Ok(PublishStreamResponse { result: Some(result) })
}
