//! Measures how calls end: by their answer, by the end of their stream, or by their client.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use tonic::{
    Code, Status,
    body::Body,
    codegen::http::{HeaderMap, Response},
};
use tonic_types::StatusExt as _;

use crate::metrics::CallTimer;

/// An extension of an answer that is a stream: its status comes at the end of the stream.
#[derive(Clone)]
pub(super) struct IsStream;

/// Ends the measurement of a call that has its answer, or of its stream when that ends.
pub(super) fn measure(timer: CallTimer, mut answer: Response<Body>) -> Response<Body> {
    if let Some(status) = answer.extensions().get::<Status>() {
        end(timer, status);
    } else if answer.headers().contains_key("grpc-status") {
        end_by_headers(timer, answer.headers());
    } else if let Some(IsStream) = answer.extensions_mut().remove::<IsStream>() {
        return answer.map(|body| Body::new(MeasuredBody { body, timer: Some(timer) }));
    } else {
        timer.end(name(Code::Ok));
    }
    answer
}

fn end_by_headers(timer: CallTimer, headers: &HeaderMap) {
    match Status::from_header_map(headers) {
        Some(status) => end(timer, &status),
        None => timer.end(name(Code::Unknown)),
    }
}

fn end(timer: CallTimer, status: &Status) {
    if status.code() != Code::Ok
        && let Some(info) = status.get_details_error_info()
    {
        timer.count_refusal(&info.reason);
    }
    timer.end(name(status.code()));
}

/// The body of a stream's answer.
struct MeasuredBody {
    body: Body,
    /// Taken at the end.
    timer: Option<CallTimer>,
}

impl HttpBody for MeasuredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(part)) = &frame
            && let Some(trailers) = part.trailers_ref()
            && let Some(timer) = self.timer.take()
        {
            end_by_headers(timer, trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// A code as gRPC's specification spells it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
