//! What a connection is made of besides its endpoints: certificates, and a token.

use std::{fmt, time::Duration};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};

use super::connect::{Client, ConnectError, root_cause};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a silent broker is asked whether it is there, also between calls.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// What a broker may send ahead of being read: several frames of 1 MiB.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// What a connection needs besides its endpoints; from [`Client::builder`].
#[derive(Clone)]
#[must_use = "a builder does nothing until it connects"]
pub struct ClientBuilder {
    endpoints: String,
    token: Option<String>,
    ca_certificate: Option<Certificate>,
    identity: Option<Identity>,
}

/// Who is calling: a bearer token, sent with every call, or nobody in particular.
#[derive(Clone, Default)]
pub struct Credentials {
    authorization: Option<MetadataValue<Ascii>>,
}

impl ClientBuilder {
    pub(super) fn new(endpoints: &str) -> Self {
        let endpoints = endpoints.to_owned();
        Self { endpoints, token: None, ca_certificate: None, identity: None }
    }

    /// A token that says who is calling; sent with every call as `authorization: Bearer TOKEN`,
    /// and readable on the way unless the endpoint is `https`.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The certificate in PEM that the broker's is to be signed with; without one, any that the
    /// system trusts. For `https` alone.
    pub fn ca_certificate(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.ca_certificate = Some(Certificate::from_pem(pem));
        self
    }

    /// A certificate and its key in PEM, by which the broker knows this client. For `https` alone.
    pub fn identity(mut self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.identity = Some(Identity::from_pem(certificate, key));
        self
    }

    /// Checks the endpoints and credentials without connecting.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] says which of them is not well-formed.
    pub fn check(&self) -> Result<(), ConnectError> {
        self.endpoints()?;
        self.check_credentials()?;
        self.token.as_deref().map(authorization).transpose()?;
        Ok(())
    }

    /// Connects to the first of the endpoints that answers.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] says which endpoint or credential is not well-formed, or why no broker was
    /// reached.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let endpoints = self.endpoints()?;
        self.check_credentials()?;
        let authorization = self.token.as_deref().map(authorization).transpose()?;
        Client::to(endpoints, Credentials { authorization }).await
    }

    /// Refuses credentials that are given but empty, as from a variable that was not set.
    fn check_credentials(&self) -> Result<(), ConnectError> {
        let token = self.token.as_ref().map(|token| ("token", token.as_bytes()));
        let certificate = self.ca_certificate.as_ref();
        let certificate = certificate.map(|pem| ("CA certificate", pem.as_ref()));
        for (what, given) in token.into_iter().chain(certificate) {
            if given.trim_ascii().is_empty() {
                let reason = "it is empty".to_owned();
                return Err(ConnectError::Credentials { what, reason });
            }
        }
        Ok(())
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, ConnectError> {
        self.endpoints.split(',').map(|endpoint| self.endpoint(endpoint.trim())).collect()
    }

    fn endpoint(&self, text: &str) -> Result<Endpoint, ConnectError> {
        let wrong = || ConnectError::Endpoint { endpoint: text.to_owned() };
        let endpoint = Endpoint::from_shared(text.to_owned()).map_err(|_| wrong())?;
        let scheme = endpoint.uri().scheme_str().map(str::to_owned);
        if endpoint.uri().port().is_none() || endpoint.uri().host().is_none_or(str::is_empty) {
            return Err(wrong());
        }
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        match scheme.as_deref() {
            Some("http") if self.ca_certificate.is_some() || self.identity.is_some() => {
                let reason = format!("{text} is not encrypted: it must begin with https://");
                Err(ConnectError::Credentials { what: "certificates", reason })
            }
            Some("http") => Ok(endpoint),
            Some("https") => self.with_tls(endpoint),
            _ => Err(wrong()),
        }
    }

    fn with_tls(&self, endpoint: Endpoint) -> Result<Endpoint, ConnectError> {
        let mut tls = match &self.ca_certificate {
            Some(certificate) => ClientTlsConfig::new().ca_certificate(certificate.clone()),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some(identity) = &self.identity {
            tls = tls.identity(identity.clone());
        }
        endpoint.tls_config(tls).map_err(|error| ConnectError::Credentials {
            what: "certificates",
            reason: root_cause(&error).to_string(),
        })
    }
}

fn authorization(token: &str) -> Result<MetadataValue<Ascii>, ConnectError> {
    let mut value = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| {
        let reason = "it holds characters that a header may not".to_owned();
        ConnectError::Credentials { what: "token", reason }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("token", &self.authorization.is_some()).finish()
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("endpoints", &self.endpoints)
            .field("token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}
