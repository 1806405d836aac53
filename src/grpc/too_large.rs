//! Explains a refusal that tonic makes before any code of ours runs: a request over the decode
//! limit gets the code that gRPC knows for it, a reason, and the limit.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tonic::{
    Code, Status,
    codegen::http::{HeaderMap, Request, Response},
};
use tower::{Layer, Service};

use super::status;

/// How tonic 0.14 begins its refusal; a test sends a request that is too large and would tell if
/// it changed.
const TONIC_SAYS: &str = "Error, decoded message length too large: ";

/// Puts the explanation around a service.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExplainTooLarge;

/// A service that explains.
#[derive(Clone, Debug)]
pub struct Explaining<S>(S);

impl<S> Layer<S> for ExplainTooLarge {
    type Service = Explaining<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Explaining(inner)
    }
}

impl<S, Q, R> Service<Request<Q>> for Explaining<S>
where
    S: Service<Request<Q>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Explained<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        Explained(Box::pin(self.0.call(request)))
    }
}

/// A response on its way to be explained.
pub struct Explained<F>(Pin<Box<F>>);

impl<F, R, E> Future for Explained<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(self.0.as_mut().poll(context))?;
        explain_headers(response.headers_mut());
        Poll::Ready(Ok(response))
    }
}

/// A call that fails before it began has its status in the headers.
fn explain_headers(headers: &mut HeaderMap) {
    // The common case costs one look-up.
    if !headers.contains_key("grpc-status") {
        return;
    }
    if let Some(status) = Status::from_header_map(headers).as_ref().and_then(explain) {
        for header in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
            headers.remove(header);
        }
        // Fails only on a status that is no header; then the client has tonic's own code left.
        if status.add_header(headers).is_err() {
            headers.insert("grpc-status", (Code::ResourceExhausted as i32).into());
        }
    }
}

/// The explained status, if it is tonic's refusal of a request that is too large.
pub(super) fn explain(status: &Status) -> Option<Status> {
    let rest = status.message().strip_prefix(TONIC_SAYS)?;
    (status.code() == Code::OutOfRange).then(|| status::too_large(rest))
}
