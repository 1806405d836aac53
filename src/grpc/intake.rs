//! Puts a service behind the limits of what clients may have in the broker: open calls and a budget
//! of bytes for each owner and for all, both of requests that arrive and of answers that are not
//! read, and limits for the time that either may stand still.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::{BoxFuture, Either, ready};
use tonic::{
    Status,
    body::Body,
    codegen::{
        Service,
        http::{Extensions, Request, Response},
    },
    server::NamedService,
};

use crate::{
    access::{Access, Caller},
    broker::{OfOwner, Owner},
    grpc::{
        accounts::{Account, Accounts},
        answers::{AnswerRoom, Unread, hand_over_in_parts},
        arrivals::Arrivals,
        body::{ArrivingBody, Terms},
        call_task,
        connection::{self, Connection},
        limits::{MAX_CALL_BYTES, MAX_REQUEST_BYTES, PUBLISH, SUBSCRIBE, UNREAD_LIMIT},
        open_calls::OpenCall,
        status,
        stream_answer::is_stream as is_answered_by_stream,
    },
};

/// How long a request may make no progress while it arrives.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// The calls whose answers may be large: up to 4 MiB. The largest of the others is a topic, of 18 KiB.
const LARGE_ANSWERS: [&str; 11] = [
    "/ReadMessages",
    "/Pull",
    "/ListTopics",
    "/ListProducers",
    "/Receive",
    "/ListConsumers",
    "/ListSubscriptions",
    "/ListParked",
    "/ListTokens",
    "/ListGrants",
    "/GetOverview",
];

/// Those of them that change something, and must therefore have room for their answers before.
const TAKES: [&str; 2] =
    ["/trunkline.v1.ConsumerService/Pull", "/trunkline.v1.SubscriptionService/Receive"];

/// As [`PUBLISH`], a call whose requests are large, and are held until they are answered.
const PUBLISH_STREAM: &str = "/trunkline.v1.ProducerService/PublishStream";

/// The call by which strangers too find out whether the broker works, however many they are.
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// A call whose client sends any number of requests and may pause between them, besides
/// [`PUBLISH_STREAM`] and [`SUBSCRIBE`].
const REFLECTION: &str = "/ServerReflectionInfo";

/// What the answers of such a call take that its client does not read: three descriptors of files.
const REFLECTION_BYTES: usize = 3 * 32 * 1024;

/// A service behind the limits.
#[derive(Clone)]
pub struct Intake<S> {
    service: S,
    accounts: Arc<Accounts>,
    access: Arc<Access>,
}

impl<S> Intake<S> {
    pub(super) fn new(service: S, accounts: Arc<Accounts>, access: Arc<Access>) -> Self {
        Self { service, accounts, access }
    }

    /// The account that a call is charged to: its caller's or, if nobody knows who calls, that of the
    /// client's address, which is kept with its connection.
    fn account_of(&self, extensions: &Extensions) -> Arc<Account> {
        if let Some(principal) = extensions.get::<Caller>().and_then(Caller::principal) {
            return self.accounts.find(Owner::Principal(principal.shared()));
        }
        let find = || {
            self.accounts.find(match connection::address(extensions) {
                Some(address) => Owner::of_address(address),
                // No call of a network connection is without one.
                None => Owner::Principal("".into()),
            })
        };
        match extensions.get::<Connection>() {
            Some(connection) => connection.account_or(find),
            None => find(),
        }
    }
}

/// Counts a call until it has ended, and charges the answers of reflection; refuses the call if
/// there is no room.
fn open(account: &Account, path: &str) -> Result<OpenCall, Status> {
    let call = match account.is_of_strangers && path == CHECK {
        true => account.open.open_beside_all(),
        false => account.open.open(),
    };
    let mut call = call.map_err(status::too_many_calls)?;
    if path.ends_with(REFLECTION) {
        let room = account.answers.try_hold(REFLECTION_BYTES);
        call.charge(room.ok_or_else(|| status::answers_unread(account.answers.most()))?);
    }
    Ok(call)
}

/// The answer of a service.
type Answer = Result<Response<Body>, Infallible>;

impl<S> Service<Request<Body>> for Intake<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    /// A publish is answered by its service directly. Only that of a known caller may ask the database
    /// before it is stored, in its owner's turn.
    type Future = Either<S::Future, Either<OfOwner<S::Future>, BoxFuture<'static, Answer>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let account = self.account_of(request.extensions());
        let path = request.uri().path();
        match open(&account, path) {
            Ok(call) => call_task::keep(call),
            Err(refusal) => {
                let refused = ready(Ok(refusal.into_http()));
                return Either::Right(Either::Right(Box::pin(refused)));
            }
        }
        let is_publish = path == PUBLISH;
        // Its rights may have to be looked up in the database.
        let is_known = request.extensions().get::<Caller>().is_some();
        let publishes = is_publish || path == PUBLISH_STREAM;
        let is_stream = path == PUBLISH_STREAM || path == SUBSCRIBE || path.ends_with(REFLECTION);
        let room = TAKES.contains(&path).then(|| AnswerRoom::new(account.answers.clone()));
        let is_answered_in_parts = !publishes && !is_answered_by_stream(path);
        let answers_are_large =
            is_answered_in_parts && LARGE_ANSWERS.iter().any(|call| path.ends_with(call));
        let (share, max_request) = match publishes {
            true => (account.publishes.clone(), MAX_REQUEST_BYTES),
            false => (account.calls.clone(), MAX_CALL_BYTES),
        };
        let backlog =
            request.extensions().get::<Connection>().map(Connection::backlog).unwrap_or_default();
        // A unary call is refused instead.
        let pace = match path == PUBLISH_STREAM {
            true => self.access.pace(request.extensions().get::<Caller>()),
            false => None,
        };
        let stall_limit = STALL_LIMIT;
        let terms = Terms { share, max_request, is_stream, stall_limit, backlog, pace };
        let arrivals = publishes.then(Arrivals::default);
        if let Some(arrivals) = &arrivals {
            request.extensions_mut().insert(arrivals.clone());
        }
        if let Some(room) = &room {
            request.extensions_mut().insert(room.clone());
        }
        let arriving = |body| Body::new(ArrivingBody::new(body, terms, arrivals));
        let answering = self.service.call(request.map(arriving));
        match (is_publish, is_known) {
            (true, false) => return Either::Left(answering),
            (true, true) => {
                return Either::Right(Either::Left(account.sessions.clone().scope(answering)));
            }
            (false, _) => {}
        }
        let unread = answers_are_large.then(|| Unread {
            share: account.answers.clone(),
            limit: UNREAD_LIMIT,
            room,
        });
        let answering = async move {
            let Some(unread) = unread else {
                let answer = answering.await?;
                return Ok(match is_answered_in_parts {
                    true => hand_over_in_parts(answer).await,
                    false => answer,
                });
            };
            // Before the call does anything. One that takes its room by itself waits there.
            if unread.room.is_none() && !unread.has_room().await {
                return Ok(unread.refuse());
            }
            Ok(unread.keep(answering.await?).await)
        };
        Either::Right(Either::Right(Box::pin(account.sessions.clone().scope(answering))))
    }
}

impl<S: NamedService> NamedService for Intake<S> {
    const NAME: &'static str = S::NAME;
}
