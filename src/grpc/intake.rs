//! Puts a service behind the limits of what may arrive: a budget of bytes for each owner and for
//! all, and a limit for the time that a half-sent request may stand still.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

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
    broker::{Budget, Owner},
    grpc::{
        arrivals::Arrivals,
        body::{ArrivingBody, Terms},
        limits::{MAX_CALL_BYTES, MAX_REQUEST_BYTES},
    },
};

/// How long a request may make no progress while it arrives.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// How many bytes of requests that do not publish may arrive at once. They are small and decoded at
/// once, so this only limits those that are sent slowly.
const CALL_BYTES: usize = 64 * 1024 * 1024;

/// The share of each owner.
const CALL_BYTES_EACH: usize = CALL_BYTES / 4;

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
}

/// A service behind the limits.
#[derive(Clone)]
pub struct Intake<S> {
    service: S,
    budgets: Budgets,
}

impl Budgets {
    pub(super) fn new(publishes: Arc<Budget>) -> Self {
        let calls = Budget::new(CALL_BYTES, CALL_BYTES_EACH);
        Self { publishes, calls: calls.into() }
    }
}

impl<S> Intake<S> {
    pub(super) fn new(service: S, budgets: Budgets) -> Self {
        Self { service, budgets }
    }
}

/// Whom a call is charged to.
fn owner_of(extensions: &Extensions) -> Owner {
    let address = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    match address {
        Some(address) => Owner::of_address(address.ip()),
        // No call of a network connection is without one.
        None => Owner::Principal("".into()),
    }
}

impl<S> Service<Request<Body>> for Intake<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> S::Future {
        let path = request.uri().path();
        let is_stream = path == PUBLISH_STREAM || path.ends_with(REFLECTION);
        let publishes = path == PUBLISH || path == PUBLISH_STREAM;
        let (budget, max_request) = match publishes {
            true => (&self.budgets.publishes, MAX_REQUEST_BYTES),
            false => (&self.budgets.calls, MAX_CALL_BYTES),
        };
        let share = budget.share(owner_of(request.extensions()));
        let terms = Terms { share, max_request, is_stream, stall_limit: STALL_LIMIT };
        let arrivals = Arrivals::default();
        if publishes {
            request.extensions_mut().insert(arrivals.clone());
        }
        let arriving = |body| Body::new(ArrivingBody::new(body, terms, arrivals));
        self.service.call(request.map(arriving))
    }
}

impl<S: NamedService> NamedService for Intake<S> {
    const NAME: &'static str = S::NAME;
}
