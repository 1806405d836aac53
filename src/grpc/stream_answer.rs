//! Answers of streaming calls: they end when their caller may not have them any more, and when their
//! client leaves them unread.
//!
//! Each stream that the broker serves goes through here, whichever service it belongs to. A stream
//! whose client reads ends with a status. HTTP/2 takes no status for a client that keeps its window
//! shut, so such a stream is reset.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{
    Status,
    body::Body,
    codegen::http::{HeaderMap, Request, Response},
};

use crate::{
    access::Guard,
    grpc::{
        audited::Denials,
        call_task,
        limits::{PUBLISH, SUBSCRIBE, UNREAD_LIMIT},
        served::served_calls,
        status,
    },
};

/// How long a client may take to read the status of a stream that its caller may not have any more.
const LAST_WORD: Duration = Duration::from_secs(3);

/// The calls whose streams tell their clients by themselves why their callers may not have them any
/// more, after what comes before. Their clients may also leave them unread: a consumer takes any time
/// for the messages it has, and while others of its connection are not read, the answers to a
/// publisher cannot arrive. A publish stream whose answers pile up is [given up](GivenUp).
const ENDED_BY_THEIR_SERVICE: [&str; 3] = [
    "/trunkline.v1.ConsumerService/Consume",
    "/trunkline.v1.ProducerService/PublishStream",
    SUBSCRIBE,
];

/// The paths of all calls that are answered by streams.
static STREAMS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    // The start of a broker fails if the descriptors cannot be decoded.
    let calls = served_calls().unwrap_or_default().into_iter();
    calls.filter(|call| call.is_answered_by_stream).map(|call| call.path).collect()
});

/// Whether a call is answered by a stream.
pub(super) fn is_stream(path: &str) -> bool {
    STREAMS.contains(path)
}

/// An extension of a stream's answer: cancelled once its service has given the stream up, because its
/// client may not have it any more or does not read.
#[derive(Clone, Default)]
pub(super) struct GivenUp(pub(super) CancellationToken);

/// What the answer of a stream is held to.
pub(super) struct StreamTerms {
    /// Ends when the caller may not have the stream any more.
    guard: Guard,
    /// Counts it then; `None` if everyone may have the stream.
    denials: Option<Denials>,
    /// Whether the service says so to the client, and counts it.
    is_ended_by_service: bool,
    /// How long the client may leave the stream unread.
    unread_limit: Option<Duration>,
    /// Cancelled when the request ends with the stream.
    request_end: CancellationToken,
}

impl StreamTerms {
    /// The terms of a call; `None` if its answer is no stream.
    pub(super) fn of(path: &str, terms: impl FnOnce() -> (Guard, Option<Denials>)) -> Option<Self> {
        // The most frequent call needs no look-up.
        if path == PUBLISH || !is_stream(path) {
            return None;
        }
        let is_ended_by_service = ENDED_BY_THEIR_SERVICE.contains(&path);
        let unread_limit = (!is_ended_by_service).then_some(UNREAD_LIMIT);
        let request_end = CancellationToken::new();
        let (guard, denials) = terms();
        Some(Self { guard, denials, is_ended_by_service, unread_limit, request_end })
    }

    /// Lets a request end with the stream. A service that waits for more of it would otherwise keep
    /// HTTP/2 from resetting the stream.
    pub(super) fn end_request(&self, request: Request<Body>) -> Request<Body> {
        if self.is_ended_by_service {
            return request;
        }
        let ended = Box::pin(self.request_end.clone().cancelled_owned());
        request.map(|body| Body::new(RequestBody { body, ended }))
    }

    /// Holds an answer to the terms, from within the task of its call.
    pub(super) fn hold(self, mut answer: Response<Body>) -> Response<Body> {
        let given_up = answer.extensions_mut().remove::<GivenUp>();
        let is_unlimited =
            self.unread_limit.is_none() && self.guard.is_of_everyone() && given_up.is_none();
        if is_unlimited || answer.body().is_end_stream() {
            return answer;
        }
        let reading = Arc::new(Reading { began: Instant::now(), unread_at: AtomicU64::new(0) });
        let refusal = Arc::<OnceLock<Status>>::default();
        call_task::reset_when(watch(self, given_up, reading.clone(), refusal.clone()));
        answer.map(|body| Body::new(StreamBody { body, reading, refusal, has_ended: false }))
    }
}

/// Returns when a stream is to be reset.
async fn watch(
    terms: StreamTerms,
    given_up: Option<GivenUp>,
    reading: Arc<Reading>,
    refusal: Arc<OnceLock<Status>>,
) {
    let StreamTerms { mut guard, denials, is_ended_by_service, unread_limit, request_end } = terms;
    let _ends_too = request_end.clone().drop_guard();
    let given_up = async {
        match &given_up {
            Some(GivenUp(given_up)) => given_up.cancelled().await,
            None => std::future::pending().await,
        }
    };
    let withdrawn = async {
        let error = guard.ended().await;
        if !is_ended_by_service {
            if let Some(denials) = denials {
                denials.count(&error);
            }
            refusal.get_or_init(|| status::refuse(error));
            request_end.cancel();
        }
    };
    let unread = async {
        match unread_limit {
            Some(limit) => reading.until_unread_for(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = withdrawn => reading.until_unread_for(LAST_WORD).await,
        () = given_up => reading.until_unread_for(LAST_WORD).await,
        () = unread => {}
    }
}

/// Whether the client reads.
struct Reading {
    began: Instant,
    /// Milliseconds from `began` until HTTP/2 took the last part, plus one; 0 while it asks for more.
    unread_at: AtomicU64,
}

impl Reading {
    fn note(&self, is_unread: bool) {
        let now = self.began.elapsed().as_millis() as u64 + 1;
        self.unread_at.store(if is_unread { now } else { 0 }, Ordering::Relaxed);
    }

    /// Waits until the client has left a part unread for this long.
    async fn until_unread_for(&self, limit: Duration) {
        loop {
            let unread_for = match self.unread_at.load(Ordering::Relaxed) {
                0 => Duration::ZERO,
                at => self.began.elapsed().saturating_sub(Duration::from_millis(at - 1)),
            };
            if unread_for >= limit {
                return;
            }
            sleep(limit - unread_for).await;
        }
    }
}

/// The body of a stream's request.
struct RequestBody {
    body: Body,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.ended.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => Pin::new(&mut self.body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// The body of a stream's answer.
struct StreamBody {
    body: Body,
    reading: Arc<Reading>,
    /// Why the caller may not have the stream any more.
    refusal: Arc<OnceLock<Status>>,
    has_ended: bool,
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if let Some(status) = self.refusal.get() {
            let trailers = trailers(status);
            self.has_ended = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.reading.note(frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.refusal.get().is_none() && self.body.is_end_stream()
    }
}

/// A status as the last frame of an answer.
fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Fails if the status has a text that no header can hold, which none of the broker's has.
    let _ = status.add_header(&mut trailers);
    trailers
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody as Parts};

    use super::*;

    /// The answer of a stream that sends parts, and then nothing more.
    fn answer(parts: usize) -> Response<Body> {
        let part = || Ok::<_, Status>(Frame::data(Bytes::from_static(b"part")));
        let parts = stream::iter((0..parts).map(move |_| part()));
        Response::new(Body::new(Parts::new(parts.chain(stream::pending()))))
    }

    const SHORT: Duration = Duration::from_millis(50);

    /// How long a call lives whose client reads some parts of its answer, and no more; `None` for
    /// much longer than an answer may be left unread. All times are divided.
    async fn lives(path: &str, parts: usize, read: usize) -> Option<Duration> {
        let began = Instant::now();
        let mut terms = StreamTerms::of(path, || (Guard::of_everyone(), None)).unwrap();
        terms.unread_limit = terms.unread_limit.map(|limit| {
            assert_eq!(limit, UNREAD_LIMIT);
            SHORT
        });
        let call = call_task::serve_call(async move {
            let mut body = terms.hold(answer(parts)).into_body();
            for _ in 0..read {
                body.frame().await;
            }
            std::future::pending::<()>().await;
        });
        let ended = tokio::time::timeout(10 * SHORT, call).await;
        ended.ok().map(|()| began.elapsed())
    }

    const WATCH: &str = "/grpc.health.v1.Health/Watch";

    #[tokio::test]
    async fn a_stream_that_its_client_leaves_unread_is_reset() {
        let lived = lives(WATCH, 2, 1).await.unwrap();
        assert!(lived >= SHORT, "{lived:?}");
    }

    #[tokio::test]
    async fn a_stream_that_has_nothing_to_send_goes_on() {
        assert_eq!(lives(WATCH, 1, 2).await, None);
    }

    #[tokio::test]
    async fn consumers_and_publishers_read_at_leisure() {
        for path in ENDED_BY_THEIR_SERVICE {
            assert_eq!(lives(path, 2, 1).await, None, "{path}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_was_given_up_is_reset_if_its_client_does_not_read() {
        let given_up = GivenUp::default();
        let [_, publish_stream, _] = ENDED_BY_THEIR_SERVICE;
        let terms = StreamTerms::of(publish_stream, || (Guard::of_everyone(), None)).unwrap();
        let mut answer = answer(2);
        answer.extensions_mut().insert(given_up.clone());
        let mut call = std::pin::pin!(call_task::serve_call(async move {
            let mut body = terms.hold(answer).into_body();
            body.frame().await;
            std::future::pending::<()>().await;
        }));
        assert!(futures::poll!(call.as_mut()).is_pending());
        given_up.0.cancel();
        tokio::time::timeout(2 * LAST_WORD, call).await.unwrap();
    }

    #[test]
    fn only_streams_have_terms() {
        let has_terms = |path| StreamTerms::of(path, || (Guard::of_everyone(), None)).is_some();
        assert!(ENDED_BY_THEIR_SERVICE.into_iter().all(has_terms) && has_terms(WATCH));
        assert!(has_terms("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"));
        assert!(!has_terms("/trunkline.v1.ProducerService/Publish") && !has_terms("/x"));
    }
}
