//! A worker's stream that another broker serves.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use prost::Message as _;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};
use tracing::Instrument as _;

use super::{Client, Forwarder, Names, ended, is_of_connection};
use crate::{
    broker::{Broker, DeliveryId, Error, Hold, Receive, UnsentAnswer, UnsentEvents},
    grpc::{explain::explain, status::refuse, trunkline::sent_events::SentEvents},
    proto::{
        self,
        raw::{self, subscribe_response::Event},
    },
};

/// How many requests may wait for the other broker, and events for the client. Each event may have 2 MiB of
/// messages.
const REQUESTS_AHEAD: usize = 16;
const EVENTS_AHEAD: usize = 2;

/// How long giving messages back may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// A worker's stream at another broker.
pub(in crate::grpc) struct Opened {
    events: Streaming<raw::SubscribeResponse>,
    requests: mpsc::Sender<proto::SubscribeRequest>,
    client: Client,
}

type Answer = Result<raw::SubscribeResponse, Status>;

/// Opens a worker's stream at another broker.
pub(in crate::grpc) async fn open(
    mut client: Client,
    first: proto::SubscribeRequest,
    deadline: Option<Instant>,
) -> Result<Opened, Status> {
    let (requests, passed_on) = mpsc::channel(REQUESTS_AHEAD);
    let passed_on = stream::once(async { first }).chain(ReceiverStream::new(passed_on));
    let request = with_deadline(passed_on, deadline);
    let events = client.service.subscribe(request).await?.into_inner();
    Ok(Opened { events, requests, client })
}

/// A request whose caller waits until then, if it set a deadline.
fn with_deadline<T>(message: T, deadline: Option<Instant>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(deadline) = deadline {
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    }
    request
}

/// What a worker gets, the room that its answer takes, and what gives the messages back if it is not sent.
pub(in crate::grpc) type Received = (raw::ReceiveResponse, Option<Hold>, Option<UnsentAnswer>);

/// Takes messages at another broker, and room for the answer. If there is none, the messages go back.
pub(in crate::grpc) async fn receive(
    mut client: Client,
    asked: &proto::ReceiveRequest,
    receive: &Receive,
) -> Result<Received, Status> {
    let request = with_deadline(asked.clone(), receive.deadline);
    let received = client.service.receive(request).await?.into_inner();
    let deliveries = received.deliveries.iter().map(|it| DeliveryId(it.delivery.unsigned_abs()));
    let deliveries = deliveries.collect();
    let names = (receive.topic.clone(), receive.subscription.clone());
    let unsent = UnsentAnswer::new(move |deliveries| {
        // If it fails, they go back when their time is up.
        tokio::spawn(async move { release(client, names, &deliveries).await });
    });
    let unsent = unsent.of(deliveries);
    let Some(share) = &receive.answers else { return Ok((received, None, Some(unsent))) };
    match share.try_hold(received.encoded_len()) {
        Some(room) => Ok((received, Some(room), Some(unsent))),
        None => Err(refuse(Error::AnswersUnread { limit: share.most() })),
    }
}

/// Gives deliveries back.
async fn release(mut client: Client, names: Names, deliveries: &[DeliveryId]) {
    if deliveries.is_empty() {
        return;
    }
    let release = |delivery: &DeliveryId| proto::Settlement {
        delivery: i64::try_from(delivery.0).unwrap_or(i64::MAX),
        verdict: Some(proto::settlement::Verdict::Release(proto::Release {})),
        ..proto::Settlement::default()
    };
    let settlements = deliveries.iter().map(release).collect();
    let (topic, subscription_id) = (names.0.as_str().to_owned(), names.1.as_str().to_owned());
    let release = proto::SettleRequest { topic, subscription_id, settlements };
    if let Err(status) = client.service.settle(release).await {
        tracing::debug!(%status, "give messages back to their subscription");
    }
}

/// Passes requests and events on until the stream ends, or `withdrawn` is cancelled.
pub(in crate::grpc) fn serve(
    broker: &Arc<Broker>,
    forwarder: &Arc<Forwarder>,
    names: Names,
    opened: Opened,
    requests: Streaming<proto::SubscribeRequest>,
    withdrawn: CancellationToken,
) -> SentEvents {
    let (events, sent) = mpsc::channel(EVENTS_AHEAD);
    let Opened { events: mut arriving, requests: passed_on, client } = opened;
    let (forwarder, draining) = (forwarder.clone(), broker.draining().clone());
    let unsent = UnsentEvents::default();
    let arrived = unsent.clone();
    let serving = async move {
        let passing = async {
            let passing = pass_events(&mut arriving, &events, &arrived);
            let asking = pass_requests(requests, passed_on, draining);
            until_first_ends(passing, asking).await
        };
        // Who withdraws the stream says why.
        let (end, asked) = withdrawn.run_until_cancelled(passing).await.unwrap_or((None, None));
        let last = match end {
            None => {
                // Before the stream ends at the other broker, which takes these messages for delivered.
                let left = arrived.take();
                let releasing = release(client, names, &left);
                let _ = tokio::time::timeout(RELEASE_TIMEOUT, releasing).await;
                None
            }
            Some(Err(status)) => {
                if is_of_connection(&status) {
                    forwarder.forget(&names, &client.peer);
                }
                Some(ended(status))
            }
            Some(Ok(())) => asked,
        };
        if let Some(status) = last {
            // A client that has gone does not receive it.
            let _ = events.send(Err(status)).await;
        }
        drop(arriving);
    };
    broker.track(serving.in_current_span());
    SentEvents { events: ReceiverStream::new(sent), unsent }
}

/// Waits for the events to end. Returns how, and why requests have ended, if not by the client's will.
async fn until_first_ends(
    events: impl Future<Output = Option<Result<(), Status>>>,
    requests: impl Future<Output = Option<Status>>,
) -> (Option<Result<(), Status>>, Option<Status>) {
    let (mut events, mut requests) = (std::pin::pin!(events), std::pin::pin!(requests));
    tokio::select! {
        end = &mut events => (end, None),
        asked = &mut requests => (events.await, asked),
    }
}

/// Passes events on. Returns how they end; `None` if the client has gone.
async fn pass_events(
    arriving: &mut Streaming<raw::SubscribeResponse>,
    events: &mpsc::Sender<Answer>,
    unsent: &UnsentEvents,
) -> Option<Result<(), Status>> {
    loop {
        let room = events.reserve().await.ok()?;
        let arrived = tokio::select! {
            arrived = arriving.message() => arrived,
            () = events.closed() => return None,
        };
        match arrived {
            Ok(Some(event)) => {
                if let Some(Event::Deliveries(arrived)) = &event.event {
                    let arrived = arrived.deliveries.iter();
                    unsent.add(arrived.map(|arrived| arrived.delivery.unsigned_abs()));
                }
                room.send(Ok(event));
            }
            Ok(None) => return Some(Ok(())),
            Err(status) => return Some(Err(status)),
        }
    }
}

/// Passes requests on until the client sends no more, this broker stops, or the other one takes no more.
/// Returns why, if it is not the client's will. The other broker then answers what it was asked, and ends the
/// stream.
async fn pass_requests(
    mut requests: Streaming<proto::SubscribeRequest>,
    passed_on: mpsc::Sender<proto::SubscribeRequest>,
    draining: CancellationToken,
) -> Option<Status> {
    loop {
        let next = tokio::select! {
            next = requests.message() => next,
            () = draining.cancelled() => return Some(refuse(Error::Draining)),
        };
        match next {
            Ok(Some(request)) => passed_on.send(request).await.ok()?,
            Ok(None) => return None,
            Err(status) => return Some(explain(&status).unwrap_or(status)),
        }
    }
}
