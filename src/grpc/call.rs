//! What applies to every call: the metadata limit, who calls, the deadline, and details for refusals that
//! tonic makes by itself.

use std::{error::Error as _, net::IpAddr, sync::Arc};

use tonic::{
    Status,
    body::Body,
    codegen::{
        Service as _,
        http::{HeaderMap, Request, Response},
    },
    service::Routes,
    transport::server::TcpConnectInfo,
};

use crate::{
    access::{self, Access, Caller, Guard, PeerIdentity, Unproven},
    audit::Audit,
    broker::Error,
    grpc::{
        audited::Denials,
        deadline, explain,
        limits::{MAX_METADATA_BYTES, MAX_METADATA_ENTRIES, UNREAD_LIMIT},
        reset, status,
        stream_answer::StreamTerms,
    },
    model::InvalidInput,
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
}

/// Answers a call of a caller that is known, within its deadline.
pub async fn answer(api: Api, mut request: Request<Body>) -> Response<Body> {
    let Api { access, .. } = &api;
    let size = metadata_bytes(request.headers());
    if size > MAX_METADATA_BYTES {
        return status::metadata_too_large(size).into_http();
    }
    let entries = request.headers().len();
    if entries > MAX_METADATA_ENTRIES {
        return status::too_many_metadata_entries(entries).into_http();
    }
    if !access.is_required() {
        return answer_in_time(api, request).await;
    }
    let audit = api.audit.clone();
    let method = access::find_method(request.uri().path());
    let address = address(&request);
    if let Err(Unproven { error, token }) = identify(access, &mut request).await {
        Denials::new(audit, None, address, method).with_token(token).count(&error);
        return status::refuse(error).into_http();
    }
    let caller = request.extensions().get::<Caller>().cloned();
    let response = answer_in_time(api, request).await;
    // A call that is refused before it answers anything; streams see to what they refuse later.
    if let Some(status) = response.extensions().get::<Status>()
        && let Some(error) = status.source().and_then(|source| source.downcast_ref())
    {
        Denials::new(audit, caller.as_ref(), address, method).count(error);
    }
    response
}

/// Answers a call within its deadline.
async fn answer_in_time(api: Api, request: Request<Body>) -> Response<Body> {
    let Some(header) = request.headers().get(deadline::HEADER) else {
        return serve(api, request).await;
    };
    let Some(timeout) = deadline::parse_header(header) else {
        let problem = "must be up to 8 digits and one of H, M, S, m, u, n";
        return refuse(InvalidInput::new(deadline::HEADER, problem).into());
    };
    if timeout.is_zero() {
        return refuse(Error::DeadlineExceeded);
    }
    let only_reads = only_reads(request.uri().path());
    match tokio::time::timeout(timeout, serve(api, request)).await {
        Ok(response) => response,
        Err(_) if only_reads => refuse(Error::DeadlineExceeded),
        Err(_) => status::deadline_with_unknown_outcome().into_http(),
    }
}

/// Finds out who calls, and puts the caller into the request's extensions.
async fn identify(access: &Access, request: &mut Request<Body>) -> Result<(), Unproven> {
    let authorization = request.headers().get_all("authorization").iter();
    let authorization = authorization.map(|header| header.as_bytes());
    let peer = request.extensions().get::<PeerIdentity>();
    let path = request.uri().path();
    if let Some(caller) = access.authenticate(path, authorization, peer).await? {
        request.extensions_mut().insert(caller);
    }
    Ok(())
}

async fn serve(api: Api, request: Request<Body>) -> Response<Body> {
    let Api { mut routes, access, audit } = api;
    let path = request.uri().path();
    let terms = StreamTerms::of(path, || {
        let Some(caller) = request.extensions().get::<Caller>() else {
            return (Guard::of_everyone(), None);
        };
        let method = access::find_method(path);
        let denials = Denials::new(audit, Some(caller), address(&request), method);
        (access.guard(caller), Some(denials))
    });
    let request = match &terms {
        Some(terms) => terms.end_request(request),
        None => request,
    };
    // No `ready` call is needed: routes are always ready.
    let Ok(mut response) = routes.call(request).await;
    explain::explain_headers(response.headers_mut());
    match terms {
        Some(terms) => terms.hold(response),
        None => {
            reset::after(UNREAD_LIMIT);
            response
        }
    }
}

/// From where a request comes.
fn address(request: &Request<Body>) -> Option<IpAddr> {
    let connection = request.extensions().get::<TcpConnectInfo>()?;
    connection.remote_addr().map(|address| address.ip())
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
    fn only_calls_that_cannot_change_anything_count_as_reads() {
        for read in ["GetTopic", "ListProducers", "ReadMessages", "Consume", "PublishStream"] {
            assert!(only_reads(&format!("/trunkline.v1.Some/{read}")), "{read}");
        }
        for write in ["Publish", "CreateTopic", "Pull", "Commit", "Seek", "RegisterConsumer", ""] {
            assert!(!only_reads(&format!("/trunkline.v1.Some/{write}")), "{write}");
        }
    }
}
