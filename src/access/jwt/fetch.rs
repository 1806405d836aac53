//! Reads a key set from its file or URL, bounded in size and time.

use std::{io, path::Path, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{ACCEPT, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tokio_rustls::{TlsConnector, rustls::ClientConfig, rustls::pki_types::ServerName};
use tokio_util::task::AbortOnDropHandle;

use super::location::Location;

/// The largest key set that is read, in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// How long one reading may take in all.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the key set; the error says what went wrong, without the location.
pub(super) async fn fetch(location: &Location, tls: &Arc<ClientConfig>) -> Result<Bytes, String> {
    let fetching = async {
        match location {
            Location::File(path) => read(path).await,
            Location::Url(url) => get(url, tls).await,
        }
    };
    tokio::time::timeout(TIMEOUT, fetching)
        .await
        .map_err(|_| format!("did not answer within {} s", TIMEOUT.as_secs()))?
}

async fn read(path: &Path) -> Result<Bytes, String> {
    let file = tokio::fs::File::open(path).await.map_err(|error| error.to_string())?;
    let mut content = Vec::new();
    let limited = file.take(MAX_BYTES as u64 + 1).read_to_end(&mut content).await;
    match limited {
        Ok(_) if content.len() > MAX_BYTES => Err(too_large()),
        Ok(_) => Ok(content.into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Requests the set. A redirect is an error: the operator names the place that is trusted.
async fn get(url: &Uri, tls: &Arc<ClientConfig>) -> Result<Bytes, String> {
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().unwrap_or(443);
    // An IPv6 address stands in brackets in a URL only.
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let tcp = TcpStream::connect((name.as_str(), port)).await.map_err(of_io)?;
    let server = ServerName::try_from(name).map_err(|_| "has a host that is no name".to_owned())?;
    let stream = TlsConnector::from(tls.clone()).connect(server, tcp).await.map_err(of_io)?;
    let (mut requests, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // The connection ends with this function. Its error is also that of the request.
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().map_or(host, |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("trunkline/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = requests.send_request(request).await.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        let status = answer.status();
        let hint = if status.is_redirection() { "; redirects are not followed" } else { "" };
        return Err(format!("answered {status}{hint}"));
    }
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| {
        match error.is::<http_body_util::LengthLimitError>() {
            true => too_large(),
            false => error.to_string(),
        }
    })
}

fn too_large() -> String {
    format!("is larger than the limit of {MAX_BYTES} bytes")
}

fn of_io(error: io::Error) -> String {
    error.to_string()
}
