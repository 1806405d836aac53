//! What applies to every call: the metadata limit, who calls, the deadline, and details for refusals that
//! tonic makes by itself.

use std::{
    error::Error as _,
    future::ready,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::{Either, FutureExt as _};
use tonic::{
    Status,
    body::Body,
    codegen::{
        Service as _,
        http::{
            HeaderMap, HeaderName, HeaderValue, Request, Response,
            uri::{Authority, PathAndQuery},
        },
    },
    service::Routes,
};

use crate::{
    access::{self, Access, Caller, Guard, Rule, Unproven},
    audit::Audit,
    broker::Error,
    grpc::{
        audited::Denials,
        call_task, connection, deadline, explain,
        limits::{MAX_METADATA_BYTES, MAX_METADATA_ENTRIES, UNREAD_LIMIT},
        measured::{IsStream, Measurement, measure},
        status,
        stream_answer::StreamTerms,
    },
    metrics::CallMetrics,
    model::InvalidInput,
    traces::{BegunCall, CallSpan, Traces},
};

/// What calls are routed to, and who may make them. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// The services.
    pub routes: Routes,
    /// Who may call them.
    pub access: Arc<Access>,
    /// Counts calls of those who may not.
    pub audit: Arc<Audit>,
    /// Measures all calls.
    pub metrics: Arc<CallMetrics>,
    /// Traces calls.
    pub traces: Traces,
}

/// Answers a call of a caller that is known, within its deadline.
#[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice, for each call")]
pub fn answer(api: Api, mut request: Request<Body>) -> impl Future<Output = Response<Body>> + Send {
    async move {
        let call = access::find_call(request.uri().path());
        let mut measurement = Measurement { timer: api.metrics.begin(call.0), span: None };
        if let Err(refusal) = check_metadata(request.headers()) {
            return measure(measurement, refusal.into_http());
        }
        let known = match api.access.is_required() {
            true => match identify(&api, call, &mut request).await {
                Ok(known) => Some(known),
                Err(refusal) => return measure(measurement, refusal.into_http()),
            },
            false => None,
        };
        // From here on, as strangers are to cause no traces where callers must prove who they are.
        let is_proven = known.as_ref().is_none_or(|known| known.caller.is_some());
        if is_proven && api.traces.are_on() {
            let began = measurement.timer.began();
            measurement.span = begin_span(&api, call.0, began, &mut request);
        }
        let audit = known.is_some().then(|| api.audit.clone());
        let response = answer_in_time(api, request).await;
        if let (Some(known), Some(audit)) = (known, audit) {
            known.count_denied(audit, &response);
        }
        measure(measurement, response)
    }
}

/// Starts the span of a call that is traced, and names it in the call's log lines.
fn begin_span(
    api: &Api,
    method: &'static str,
    began: Instant,
    request: &mut Request<Body>,
) -> Option<CallSpan> {
    let client = connection::client(request.extensions());
    let metadata = |name: &str| request.headers().get(name)?.to_str().ok();
    let span = api.traces.begin_call(BegunCall { method, began, client, metadata })?;
    let (trace_id, span_id) = span.ids();
    tracing::Span::current().record("trace_id", trace_id).record("span_id", span_id);
    request.extensions_mut().insert(span.call());
    Some(span)
}

/// Refuses metadata that is too large.
fn check_metadata(metadata: &HeaderMap) -> Result<(), Status> {
    let (bytes, entries) = (metadata_bytes(metadata), metadata.len());
    if bytes > MAX_METADATA_BYTES {
        return Err(status::metadata_too_large(bytes));
    }
    if entries > MAX_METADATA_ENTRIES {
        return Err(status::too_many_metadata_entries(entries));
    }
    Ok(())
}

/// Who makes a call, and which.
struct Known {
    /// `None` if the call is open to all and its caller unknown.
    caller: Option<Caller>,
    address: Option<IpAddr>,
    method: &'static str,
}

/// Finds out who calls, and puts the caller into the request's extensions.
async fn identify(
    api: &Api,
    (method, rule): (&'static str, Rule),
    request: &mut Request<Body>,
) -> Result<Known, Status> {
    let address = connection::address(request.extensions());
    let authorization = request.headers().get_all("authorization").iter();
    let authorization = authorization.map(|header| header.as_bytes());
    let peer = connection::identity(request.extensions());
    match api.access.authenticate(rule, authorization, peer).await {
        Ok(caller) => {
            if let Some(caller) = caller.clone() {
                request.extensions_mut().insert(caller);
            }
            Ok(Known { caller, address, method })
        }
        Err(Unproven { error, token }) => {
            let denials = Denials::new(api.audit.clone(), None, address, method);
            denials.with_token(token).count(&error);
            Err(status::refuse(error))
        }
    }
}

impl Known {
    /// Counts a call that was refused before it answered anything. Streams see to what they refuse
    /// later.
    fn count_denied(self, audit: Arc<Audit>, response: &Response<Body>) {
        if let Some(status) = response.extensions().get::<Status>()
            && let Some(error) = status.source().and_then(|source| source.downcast_ref())
        {
            Denials::new(audit, self.caller.as_ref(), self.address, self.method).count(error);
        }
    }
}

/// Answers a call within its deadline.
fn answer_in_time(api: Api, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send {
    let Some(header) = request.headers().get(deadline::HEADER) else {
        return Either::Left(serve(api, request));
    };
    let refused = |error| Either::Right(Either::Left(ready(refuse(error))));
    let timeout = match deadline::parse_header(header) {
        Some(Duration::ZERO) => return refused(Error::DeadlineExceeded),
        Some(timeout) => timeout,
        None => {
            let problem = "must be up to 8 digits and one of H, M, S, m, u, n";
            return refused(InvalidInput::new(deadline::HEADER, problem).into());
        }
    };
    let only_reads = only_reads(request.uri().path());
    // Boxed, as a timer is large, and most publishes have no deadline.
    let answering = Box::pin(tokio::time::timeout(timeout, serve(api, request)));
    Either::Right(Either::Right(answering.map(move |answer| match answer {
        Ok(response) => response,
        Err(_) if only_reads => refuse(Error::DeadlineExceeded),
        Err(_) => status::deadline_with_unknown_outcome().into_http(),
    })))
}

fn serve(api: Api, mut request: Request<Body>) -> impl Future<Output = Response<Body>> + Send {
    let Api { mut routes, access, audit, .. } = api;
    reduce_head(&mut request);
    let path = request.uri().path();
    let terms = StreamTerms::of(path, || {
        let Some(caller) = request.extensions().get::<Caller>() else {
            return (Guard::of_everyone(), None);
        };
        let address = connection::address(request.extensions());
        let (method, _) = access::find_call(path);
        let denials = Denials::new(audit, Some(caller), address, method);
        (access.guard(caller), Some(denials))
    });
    // Boxed, as most calls have none.
    let terms = terms.map(Box::new);
    let request = match &terms {
        Some(terms) => terms.end_request(request),
        None => request,
    };
    // No `ready` call is needed: routes are always ready.
    routes.call(request).map(|answered| {
        let Ok(mut response) = answered;
        explain::explain_headers(response.headers_mut());
        match terms {
            Some(terms) => {
                response.extensions_mut().insert(IsStream);
                terms.hold(response)
            }
            None => {
                call_task::reset_after(UNREAD_LIMIT);
                response
            }
        }
    })
}

/// Drops what is not read any more of a call's head, if it is large: a call may wait for its request,
/// and would hold it meanwhile.
fn reduce_head(request: &mut Request<Body>) {
    /// Longer than the address of any broker and the path of any method.
    const LONG: usize = 512;

    let uri = request.uri();
    let length = |part: Option<&str>| part.map_or(0, str::len);
    let authority = length(uri.authority().map(Authority::as_str));
    let target = length(uri.path_and_query().map(PathAndQuery::as_str));
    // A long path is of no method, and so refused at once.
    if authority + target > LONG
        && let Ok(uri) = uri.path().parse()
    {
        *request.uri_mut() = uri;
    }
    reduce_metadata(request.headers_mut());
}

fn reduce_metadata(metadata: &mut HeaderMap) {
    /// What gRPC reads later, and how much of it.
    const READ_LATER: [&str; 5] =
        ["content-type", "te", deadline::HEADER, "grpc-encoding", "grpc-accept-encoding"];
    const LONGEST: usize = 256;
    const LARGE: usize = 4 * 1024;

    if metadata_bytes(metadata) <= LARGE {
        return;
    }
    let read_later = READ_LATER.into_iter().filter_map(|name| {
        let value = metadata.get(name)?.as_bytes();
        // A copy, as the value may share its memory with the rest.
        let value = HeaderValue::from_bytes(value.get(..LONGEST).unwrap_or(value)).ok()?;
        Some((HeaderName::from_static(name), value))
    });
    *metadata = read_later.collect();
}

/// The size of metadata, as HTTP/2 counts it: 32 bytes for each entry besides its name and value.
fn metadata_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

/// Whether a call changes nothing, so that its client may simply repeat it. A stream counts as one,
/// as only the time before it begins is limited here.
fn only_reads(path: &str) -> bool {
    const READS: [&str; 9] = [
        "Get",
        "WhoAmI",
        "List",
        "ReadMessages",
        "Consume",
        "PublishStream",
        // The health and reflection services.
        "Check",
        "Watch",
        "ServerReflectionInfo",
    ];
    let method = path.rsplit('/').next().unwrap_or_default();
    READS.iter().any(|read| method.starts_with(read))
}

fn refuse(error: Error) -> Response<Body> {
    status::of(&error).into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_metadata_is_dropped_but_for_what_is_read_later() {
        let long = "x".repeat(5_000);
        let metadata = |entries: &[(&'static str, &str)]| -> HeaderMap {
            let entry = |&(name, value): &(_, &str)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            };
            entries.iter().map(entry).collect()
        };
        let mut small = metadata(&[("te", "trailers"), ("x-a", "b")]);
        reduce_metadata(&mut small);
        assert_eq!(small, metadata(&[("te", "trailers"), ("x-a", "b")]));
        let mut large = metadata(&[("te", "trailers"), ("grpc-encoding", &long), ("x-a", &long)]);
        reduce_metadata(&mut large);
        assert_eq!(large, metadata(&[("te", "trailers"), ("grpc-encoding", &long[..256])]));
    }

    #[test]
    fn a_long_address_is_reduced_to_the_path() {
        let reduced = |uri: String| {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = uri.parse().unwrap();
            reduce_head(&mut request);
            request.uri().to_string()
        };
        let (long, short) =
            ("x".repeat(2_000), "http://broker/trunkline.v1.TopicService/GetTopic?a");
        assert_eq!(reduced(short.to_owned()), short);
        assert_eq!(reduced(format!("http://broker/a.B/C?{long}")), "/a.B/C");
        assert_eq!(reduced(format!("http://{long}/a.B/C")), "/a.B/C");
    }

    #[test]
    fn only_calls_that_cannot_change_anything_count_as_reads() {
        for read in ["GetTopic", "ListProducers", "ReadMessages", "Consume", "PublishStream"] {
            assert!(only_reads(&format!("/trunkline.v1.Some/{read}")), "{read}");
        }
        for write in ["Publish", "CreateTopic", "Pull", "Commit", "Seek", "RegisterConsumer", ""] {
            assert!(!only_reads(&format!("/trunkline.v1.Some/{write}")), "{write}");
        }
    }
}
