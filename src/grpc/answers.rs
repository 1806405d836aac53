//! Unary answers that wait for clients to read them.
//!
//! HTTP/2 keeps what it was handed until its client makes room for it, also after the call has ended.
//! An answer is therefore handed over in small parts, and its last byte alone: HTTP/2 asks for that
//! byte only once the client has room for all before it. So what waits belongs to a call, which counts
//! and is reset if its client does not read, and a large answer is charged to its owner meanwhile.

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
use tonic::{
    Status,
    body::Body,
    codegen::http::{HeaderMap, Response, response::Parts},
};

use crate::{
    broker::{Hold, Share, UnsentAnswer},
    grpc::status,
};

/// Smaller answers are not charged: the number of open calls limits them.
const SMALL: usize = 16 * 1024;

/// How much is handed over to HTTP/2 at a time.
const PART: usize = 16 * 1024;

/// An answer that is handed over at once: little more than what HTTP/2 keeps of any stream.
const TINY: usize = 256;

/// How long an answer waits for others to be read before it is refused.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// What an unread answer is held to.
#[derive(Clone)]
pub(super) struct Unread {
    /// What answers are charged to.
    pub(super) share: Share,
    /// How long a call may wait for others' answers to be read before it does anything.
    pub(super) limit: Duration,
    /// The room of a call that takes it before it acts.
    pub(super) room: Option<AnswerRoom>,
}

/// Room for the answer to a call that must not be refused once it has acted: an extension of its
/// request. Cheap to clone.
#[derive(Clone)]
pub(super) struct AnswerRoom {
    pub(super) share: Share,
    kept: Arc<Mutex<Kept>>,
}

/// What a call has for its answer.
#[derive(Default)]
struct Kept {
    /// What was taken of the share.
    hold: Option<Hold>,
    /// What becomes void if the client does not get the answer.
    unsent: Option<UnsentAnswer>,
}

impl AnswerRoom {
    pub(super) fn new(share: Share) -> Self {
        Self { share, kept: Arc::default() }
    }

    /// Keeps what was taken of the share for the answer.
    pub(super) fn keep(&self, hold: Option<Hold>) {
        self.kept.lock().hold = hold;
    }

    /// Keeps what was taken for the answer to a worker, and what is void unless the worker gets it. Without
    /// room, nobody knows what becomes of the answer.
    pub(super) fn keep_for_worker(
        room: Option<Self>,
        hold: Option<Hold>,
        unsent: Option<UnsentAnswer>,
    ) {
        match room {
            Some(room) => *room.kept.lock() = Kept { hold, unsent },
            None => unsent.into_iter().for_each(UnsentAnswer::record_sent),
        }
    }

    /// What is kept, or as much of the share as an answer needs.
    fn take(&self, bytes: usize) -> Kept {
        let Kept { hold, unsent } = std::mem::take(&mut *self.kept.lock());
        Kept { hold: hold.map(|mut hold| hold.split(bytes)), unsent }
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
        let (parts, mut body) = match collect(response).await {
            Ok(collected) => collected,
            Err(status) => return status.into_http(),
        };
        let kept = self.room.as_ref().map(|room| room.take(body.unread.len())).unwrap_or_default();
        body.unsent = kept.unsent;
        body.hold = match body.unread.len() {
            ..=SMALL => None,
            // It took enough for the largest answer.
            _ if kept.hold.is_some() => kept.hold,
            charge => {
                let room = self.share.clone().hold(charge);
                match tokio::time::timeout(ROOM_WAIT, room).await {
                    Ok(hold) => Some(hold),
                    Err(_) => return self.refuse(),
                }
            }
        };
        Response::from_parts(parts, Body::new(body))
    }
}

/// Hands a small answer over in parts, without a charge.
pub(super) async fn hand_over_in_parts(response: Response<Body>) -> Response<Body> {
    match collect(response).await {
        Ok((parts, body)) => Response::from_parts(parts, Body::new(body)),
        Err(status) => status.into_http(),
    }
}

/// Waits for the whole of an answer, which nothing is held for yet.
async fn collect(response: Response<Body>) -> Result<(Parts, AnswerBody), Status> {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    Ok((parts, AnswerBody { unread: collected.to_bytes(), trailers, hold: None, unsent: None }))
}

/// The body of an answer.
struct AnswerBody {
    /// What was not handed over.
    unread: Bytes,
    trailers: Option<HeaderMap>,
    hold: Option<Hold>,
    unsent: Option<UnsentAnswer>,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let part = match self.unread.len() {
            bytes @ ..=TINY => bytes,
            bytes => PART.min(bytes - 1),
        };
        if part > 0 {
            let part = self.unread.split_to(part);
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        self.hold = None;
        // HTTP/2 has asked for more, so it has room for all before.
        if let Some(unsent) = self.unsent.take() {
            unsent.record_sent();
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    /// A refusal has headers alone, which clients know by their being the end.
    fn is_end_stream(&self) -> bool {
        self.unread.is_empty() && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _, stream};
    use http_body_util::StreamBody;

    use super::*;
    use crate::broker::{Budget, DeliveryId};

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
    async fn an_answer_waits_for_room_that_another_one_makes() {
        let budget = Budget::new(4 * EACH, EACH);
        let unread = unread(&budget, LONG);
        let held = unread.share.try_hold(EACH).unwrap();
        let mut kept = std::pin::pin!(unread.clone().keep(answer(EACH)));
        assert!(futures::poll!(kept.as_mut()).is_pending());
        drop(held);
        assert!(!kept.await.headers().contains_key("grpc-status"));
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
    async fn an_answer_holds_its_room_until_its_last_byte_which_is_handed_over_alone() {
        let budget = Budget::new(4 * EACH, EACH);
        let unread = unread(&budget, LONG);
        for bytes in [TINY + 1, SMALL, EACH] {
            let response = unread.clone().keep(answer(bytes)).await;
            let mut body = response.into_body();
            let (mut read, mut last) = (0, 0);
            while read < bytes {
                assert_eq!(budget.held() > 0, bytes > SMALL);
                last = body.frame().await.unwrap().unwrap().into_data().unwrap().len();
                read += last;
            }
            assert_eq!((read, last), (bytes, 1));
            assert!(body.frame().await.unwrap().unwrap().is_trailers());
            assert_eq!(budget.held(), 0);
        }
    }

    #[tokio::test]
    async fn what_an_answer_holds_is_void_until_its_last_byte_is_handed_over() {
        let budget = Budget::new(4 * EACH, EACH);
        for bytes in [TINY, TINY + 1, SMALL, EACH] {
            for is_read in [false, true] {
                let room = AnswerRoom::new(budget.new_share());
                let void = Arc::new(Mutex::new(false));
                let taken_back = void.clone();
                let unsent = UnsentAnswer::new(move |_| *taken_back.lock() = true);
                let unsent = unsent.of(vec![DeliveryId(7)]);
                AnswerRoom::keep_for_worker(Some(room.clone()), None, Some(unsent));
                let unread = Unread { room: Some(room), ..unread(&budget, LONG) };
                let mut body = unread.keep(answer(bytes)).await.into_body();
                let mut read = 0;
                while read < bytes {
                    read += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
                }
                assert!(!*void.lock());
                if is_read {
                    assert!(body.frame().await.unwrap().unwrap().is_trailers());
                }
                drop(body);
                assert_eq!(*void.lock(), !is_read);
            }
        }
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
        assert_eq!(budget.held(), 0);
    }
}
