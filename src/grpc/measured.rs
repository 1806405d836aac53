//! Measures how calls end, and ends their spans: by their answer, by the end of their stream, or by their
//! client.

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

use crate::{metrics::CallTimer, traces::CallSpan};

/// An extension of an answer that is a stream: its status comes at the end of the stream.
#[derive(Clone)]
pub(super) struct IsStream;

/// What is measured of a call.
pub(super) struct Measurement {
    pub(super) timer: CallTimer,
    /// The call's span, if it is traced.
    pub(super) span: Option<CallSpan>,
}

/// Ends the measurement of a call that has its answer, or of its stream when that ends.
pub(super) fn measure(measurement: Measurement, mut answer: Response<Body>) -> Response<Body> {
    if let Some(status) = answer.extensions().get::<Status>() {
        measurement.end_by_status(status);
    } else if answer.headers().contains_key("grpc-status") {
        measurement.end_by_headers(answer.headers());
    } else if let Some(IsStream) = answer.extensions_mut().remove::<IsStream>() {
        return answer.map(|body| Body::new(MeasuredBody { body, measurement: Some(measurement) }));
    } else {
        measurement.end(Code::Ok);
    }
    answer
}

impl Measurement {
    fn end_by_headers(self, headers: &HeaderMap) {
        match Status::from_header_map(headers) {
            Some(status) => self.end_by_status(&status),
            None => self.end(Code::Unknown),
        }
    }

    fn end_by_status(self, status: &Status) {
        if status.code() != Code::Ok
            && let Some(info) = status.get_details_error_info()
        {
            self.timer.count_refusal(&info.reason);
            if let Some(span) = &self.span {
                span.refused(&info.reason);
            }
        }
        self.end(status.code());
    }

    fn end(self, code: Code) {
        self.timer.end(name(code));
        if let Some(span) = self.span {
            span.end(name(code));
        }
    }
}

/// The body of a stream's answer.
struct MeasuredBody {
    body: Body,
    /// Taken at the end.
    measurement: Option<Measurement>,
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
            && let Some(measurement) = self.measurement.take()
        {
            measurement.end_by_headers(trailers);
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
