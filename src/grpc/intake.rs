//! Puts a service behind the limits of what clients may have in the broker: a budget of bytes for
//! each owner and for all, both of requests that arrive and of answers that are not read, and limits
//! for the time that either may stand still.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::{BoxFuture, Either};
use tonic::{
    body::Body,
    codegen::{
        Service,
        http::{Extensions, Request, Response},
    },
    server::NamedService,
    transport::server::TcpConnectInfo,
};

use crate::{
    access::{Access, Caller},
    broker::{Budget, Owner},
    grpc::{
        answers::Unread,
        arrivals::Arrivals,
        backlog::Backlog,
        body::{ArrivingBody, Terms},
        limits::{MAX_CALL_BYTES, MAX_REQUEST_BYTES, UNREAD_LIMIT},
    },
};

/// How long a request may make no progress while it arrives.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// How many bytes of requests that do not publish may arrive at once. They are small and decoded at
/// once, so this only limits those that are sent slowly.
const CALL_BYTES: usize = 64 * 1024 * 1024;

/// The share of each owner.
const CALL_BYTES_EACH: usize = CALL_BYTES / 4;

/// How many bytes of answers may wait for their clients, and the share of each owner.
const ANSWER_BYTES: usize = 256 * 1024 * 1024;
const ANSWER_BYTES_EACH: usize = ANSWER_BYTES / 4;

/// The calls whose answers may be large: up to 4 MiB.
const LARGE_ANSWERS: [&str; 5] =
    ["/ReadMessages", "/Pull", "/ListTopics", "/ListProducers", "/ListConsumers"];

/// The calls that publish, whose requests are large, and are held until they are answered.
const PUBLISH: &str = "/trunkline.v1.ProducerService/Publish";
const PUBLISH_STREAM: &str = "/trunkline.v1.ProducerService/PublishStream";

/// A call whose client sends any number of requests and may pause between them, besides
/// [`PUBLISH_STREAM`].
const REFLECTION: &str = "/ServerReflectionInfo";

/// The budgets that calls are charged to.
#[derive(Clone)]
pub(super) struct Budgets {
    pub(super) publishes: Arc<Budget>,
    pub(super) calls: Arc<Budget>,
    /// Calls of clients that need not prove who they are, so that strangers keep no room from
    /// principals.
    pub(super) open_calls: Arc<Budget>,
    pub(super) answers: Arc<Budget>,
}

/// A service behind the limits.
#[derive(Clone)]
pub struct Intake<S> {
    service: S,
    budgets: Budgets,
    access: Arc<Access>,
}

impl Budgets {
    pub(super) fn new(publishes: Arc<Budget>) -> Self {
        let calls = Budget::new(CALL_BYTES, CALL_BYTES_EACH).into();
        let open_calls = Budget::new(CALL_BYTES, CALL_BYTES_EACH).into();
        let answers = Budget::new(ANSWER_BYTES, ANSWER_BYTES_EACH).into();
        Self { publishes, calls, open_calls, answers }
    }
}

impl<S> Intake<S> {
    pub(super) fn new(service: S, budgets: Budgets, access: Arc<Access>) -> Self {
        Self { service, budgets, access }
    }
}

/// Whom a call is charged to.
fn owner_of(extensions: &Extensions) -> Owner {
    if let Some(principal) = extensions.get::<Caller>().and_then(Caller::principal) {
        return Owner::Principal(principal.shared());
    }
    let address = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    match address {
        Some(address) => Owner::of_address(address.ip()),
        // No call of a network connection is without one.
        None => Owner::Principal("".into()),
    }
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
    type Future = Either<S::Future, BoxFuture<'static, Answer>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let is_stream = path == PUBLISH_STREAM || path.ends_with(REFLECTION);
        let publishes = path == PUBLISH || path == PUBLISH_STREAM;
        let owner = owner_of(request.extensions());
        let (budget, max_request) = match (publishes, &owner) {
            (true, _) => (&self.budgets.publishes, MAX_REQUEST_BYTES),
            (false, Owner::Principal(_)) => (&self.budgets.calls, MAX_CALL_BYTES),
            (false, Owner::Address(_)) => (&self.budgets.open_calls, MAX_CALL_BYTES),
        };
        let answers_are_large = LARGE_ANSWERS.iter().any(|call| path.ends_with(call));
        let unread = answers_are_large.then(|| {
            let share = self.budgets.answers.share(owner.clone());
            Unread { share, limit: UNREAD_LIMIT }
        });
        let share = budget.share(owner);
        let backlog = request.extensions().get::<Backlog>().cloned().unwrap_or_default();
        let stall_limit = STALL_LIMIT;
        // A unary call is refused instead.
        let pace = match path == PUBLISH_STREAM {
            true => self.access.pace(request.extensions().get::<Caller>()),
            false => None,
        };
        let terms = Terms { share, max_request, is_stream, stall_limit, backlog, pace };
        let arrivals = Arrivals::default();
        if publishes {
            request.extensions_mut().insert(arrivals.clone());
        }
        let arriving = |body| Body::new(ArrivingBody::new(body, terms, arrivals));
        let answering = self.service.call(request.map(arriving));
        match unread {
            None => Either::Left(answering),
            Some(unread) => Either::Right(Box::pin(async move {
                // Before the call does anything.
                if !unread.has_room().await {
                    return Ok(unread.refuse());
                }
                Ok(unread.keep(answering.await?).await)
            })),
        }
    }
}

impl<S: NamedService> NamedService for Intake<S> {
    const NAME: &'static str = S::NAME;
}
