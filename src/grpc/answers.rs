//! Unary answers that wait for clients to read them.
//!
//! HTTP/2 keeps an answer until its client makes room for it. A large one is therefore handed over
//! in small parts, so that what waits stays here: charged to its owner, and dropped if the client
//! does not read on.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Status,
    body::Body,
    codegen::http::{HeaderMap, Response},
};

use crate::{
    broker::{Hold, Share},
    grpc::status,
};

/// Smaller answers are not charged: the number of a connection's calls limits them.
const SMALL: usize = 16 * 1024;

/// How much is handed over to HTTP/2 at a time.
const PART: usize = 16 * 1024;

/// What an unread answer is held to.
#[derive(Clone)]
pub(super) struct Unread {
    /// What answers are charged to.
    pub(super) share: Share,
    /// How long an answer may wait for its client.
    pub(super) limit: Duration,
    /// The room of a call that takes it before it acts.
    pub(super) room: Option<AnswerRoom>,
}

/// Room for the answer to a call that must not be refused once it has acted: an extension of its
/// request. Cheap to clone.
#[derive(Clone)]
pub(super) struct AnswerRoom {
    pub(super) share: Share,
    held: Arc<Mutex<Option<Hold>>>,
}

impl AnswerRoom {
    pub(super) fn new(share: Share) -> Self {
        Self { share, held: Arc::default() }
    }

    /// Keeps what was taken of the share for the answer.
    pub(super) fn keep(&self, hold: Option<Hold>) {
        *self.held.lock() = hold;
    }

    /// What is kept, or as much of it as an answer needs.
    fn take(&self, bytes: usize) -> Option<Hold> {
        self.held.lock().take()?.split(bytes)
    }
}

impl Unread {
    /// Waits until the owner has read some of its answers, if it has no room for another one; false if
    /// it does not in time.
    pub(super) async fn has_room(&self) -> bool {
        tokio::time::timeout(self.limit, self.share.clone().hold(1)).await.is_ok()
    }

    /// Refuses a call because its owner does not read its answers.
    pub(super) fn refuse(&self) -> Response<Body> {
        status::answers_unread(self.share.most()).into_http()
    }

    /// Charges for an answer until the client has read it; refuses it if there is no room.
    pub(super) async fn keep(self, response: Response<Body>) -> Response<Body> {
        let (parts, body) = response.into_parts();
        let collected = match body.collect().await {
            Ok(collected) => collected,
            Err(status) => return status.into_http(),
        };
        let trailers = collected.trailers().cloned();
        let bytes = collected.to_bytes();
        let mut body = AnswerBody { answer: Arc::default(), trailers, _dropping: None };
        let kept = self.room.as_ref().and_then(|room| room.take(bytes.len()));
        let hold = match bytes.len() {
            ..=SMALL => None,
            // It took enough for the largest answer.
            _ if kept.is_some() => kept,
            charge => match self.share.try_hold(charge) {
                Some(hold) => Some(hold),
                None => return self.refuse(),
            },
        };
        if hold.is_some() {
            let (answer, limit) = (body.answer.clone(), self.limit);
            let dropping = tokio::spawn(async move {
                tokio::time::sleep(limit).await;
                answer.lock().drop_unread();
            });
            body._dropping = Some(AbortOnDropHandle::new(dropping));
        }
        *body.answer.lock() = Answer { unread: bytes, _hold: hold, dropped: false };
        Response::from_parts(parts, Body::new(body))
    }
}

/// The part of an answer that its client has not read.
#[derive(Default)]
struct Answer {
    unread: Bytes,
    _hold: Option<Hold>,
    /// The client did not read it in time.
    dropped: bool,
}

impl Answer {
    fn drop_unread(&mut self) {
        if !self.unread.is_empty() {
            *self = Self { dropped: true, ..Self::default() };
        }
    }
}

/// The body of an answer.
struct AnswerBody {
    answer: Arc<Mutex<Answer>>,
    trailers: Option<HeaderMap>,
    /// The task that drops the answer if it is not read.
    _dropping: Option<AbortOnDropHandle<()>>,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut answer = self.answer.lock();
        if answer.dropped {
            return Poll::Ready(Some(Err(status::answer_dropped())));
        }
        let part = answer.unread.len().min(PART);
        if part > 0 {
            let part = answer.unread.split_to(part);
            if answer.unread.is_empty() {
                // HTTP/2 has the last part, and asks for more only once its client has read it.
                answer._hold = None;
            }
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        *answer = Answer::default();
        drop(answer);
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    /// A refusal has headers alone, which clients know by their being the end.
    fn is_end_stream(&self) -> bool {
        let answer = self.answer.lock();
        answer.unread.is_empty() && !answer.dropped && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _, stream};
    use http_body_util::StreamBody;

    use super::*;
    use crate::broker::Budget;

    const EACH: usize = 100_000;

    fn unread(budget: &Budget, limit: Duration) -> Unread {
        Unread { share: budget.new_share(), limit, room: None }
    }

    /// An answer of some bytes, with trailers.
    fn answer(bytes: usize) -> Response<Body> {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", 0.into());
        let data = stream::once(std::future::ready(Frame::data(Bytes::from(vec![7; bytes]))));
        let trailers = stream::once(std::future::ready(Frame::trailers(trailers)));
        Response::new(Body::new(StreamBody::new(data.chain(trailers).map(Ok::<_, Status>))))
    }

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn a_large_answer_is_charged_until_it_is_read() {
        let budget = Budget::new(4 * EACH, EACH);
        let unread = unread(&budget, LONG);
        let mut body = unread.clone().keep(answer(EACH)).await.into_body();
        assert!(unread.share.try_hold(1).is_none());
        assert!(unread.has_room().now_or_never().is_none());
        let refused = unread.clone().keep(answer(SMALL + 1)).await;
        assert_eq!(refused.headers()["grpc-status"], "8");
        assert!(!unread.clone().keep(answer(SMALL)).await.headers().contains_key("grpc-status"));

        let mut read = 0;
        let trailers = loop {
            match body.frame().await.unwrap().unwrap().into_data() {
                Ok(part) => {
                    assert!(part.len() <= PART);
                    read += part.len();
                }
                Err(trailers) => break trailers.into_trailers().unwrap(),
            }
        };
        assert_eq!((read, trailers["grpc-status"].as_bytes()), (EACH, b"0".as_slice()));
        assert!(unread.share.try_hold(EACH).is_some());
    }

    #[tokio::test]
    async fn an_answer_that_is_not_read_is_dropped() {
        let budget = Budget::new(4 * EACH, EACH);
        let unread = unread(&budget, Duration::from_millis(20));
        let mut body = unread.clone().keep(answer(EACH)).await.into_body();
        assert!(body.frame().await.unwrap().is_ok());
        // Of its own limit, a call that waits for room might be the first to give up.
        assert!(Unread { limit: LONG, ..unread.clone() }.has_room().await);
        assert!(unread.share.try_hold(EACH).is_some());
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_call_waits_for_room_no_longer_than_an_answer_may_wait() {
        let budget = Budget::new(4 * EACH, EACH);
        let unread = unread(&budget, Duration::from_millis(20));
        let _held = unread.share.try_hold(EACH).unwrap();
        assert!(!unread.has_room().await);
        assert_eq!(unread.refuse().headers()["grpc-status"], "8");
    }

    #[tokio::test]
    async fn an_answer_of_which_only_the_last_part_is_unread_holds_nothing() {
        let budget = Budget::new(4 * EACH, EACH);
        let unread = unread(&budget, LONG);
        let mut body = unread.clone().keep(answer(EACH)).await.into_body();
        let mut read = 0;
        while read < EACH {
            read += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
        }
        assert!(unread.share.try_hold(EACH).is_some());
    }

    #[tokio::test]
    async fn an_answer_that_has_its_room_is_not_refused_and_returns_what_it_does_not_need() {
        let budget = Budget::new(4 * EACH, EACH);
        let unread = unread(&budget, LONG);
        let room = AnswerRoom::new(unread.share.clone());
        room.keep(unread.share.try_hold(EACH));
        let unread = Unread { room: Some(room), ..unread };
        let kept = unread.clone().keep(answer(EACH / 2)).await;
        assert!(!kept.headers().contains_key("grpc-status"));
        assert_eq!(budget.held(), EACH / 2);
        drop(kept);
        // The task that would have dropped it ends first.
        while budget.held() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
