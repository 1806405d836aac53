//! How a client connects: its endpoints, certificates and token.

use std::{fmt, path::PathBuf, time::Duration};

use tonic::{
    codegen::http::uri::Scheme,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};

use crate::client::{
    address,
    connect::Client,
    credentials::{Credentials, Token, is_loopback},
    error::{ConnectError, root_cause},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a silent broker is pinged, also between calls.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// How many bytes a broker may send before they are read: several frames of 1 MiB.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// The options of a connection; from [`Client::builder`].
#[derive(Clone)]
#[must_use = "a builder does nothing until it connects"]
pub struct ClientBuilder {
    endpoints: String,
    token: Option<Token>,
    ca_certificate: Option<Certificate>,
    identity: Option<Identity>,
}

impl Client {
    /// Connects to a broker, `http://127.0.0.1:50051` for example, or to the first that answers of
    /// several, separated by commas.
    ///
    /// An endpoint is `HOST`, `HOST:PORT`, or either of them after `http://` or `https://`. The port
    /// is 50051 unless it is given. Without a scheme, the connection is not encrypted, unless the
    /// client has certificates.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), trunkline::client::ConnectError> {
    /// use trunkline::client::Client;
    ///
    /// let client = Client::connect("http://10.0.0.1:50051,http://10.0.0.2:50051").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConnectError`] says which endpoint is malformed, or why no broker was reached.
    pub async fn connect(endpoints: &str) -> Result<Self, ConnectError> {
        Self::builder(endpoints).connect().await
    }

    /// A connection with a token or certificates.
    ///
    /// ```no_run
    /// # async fn example(token: String) -> Result<(), Box<dyn std::error::Error>> {
    /// use trunkline::client::Client;
    ///
    /// let client = Client::builder("https://broker.example:50051")
    ///     .token(token)
    ///     .ca_certificate(std::fs::read("ca.pem")?)
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(endpoints: &str) -> ClientBuilder {
        let endpoints = endpoints.to_owned();
        ClientBuilder { endpoints, token: None, ca_certificate: None, identity: None }
    }
}

impl ClientBuilder {
    /// A token that says who is calling. It is sent with every call as
    /// `authorization: Bearer TOKEN`.
    ///
    /// Every endpoint must then be `https`, or `http` on this machine's loopback interface: on a
    /// network, a token that is not encrypted can be read.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Token::Text(token.into()));
        self
    }

    /// A file that holds the token, in place of [`Self::token`]. White space around the token is
    /// ignored.
    ///
    /// The token may be replaced while the client runs. A call reads the file again if it was last
    /// read more than a second ago. Producers and consumers that the broker ends with
    /// UNAUTHENTICATED read it at once, and continue if it holds another token.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = Some(Token::File(path.into()));
        self
    }

    /// The authority's certificate, in PEM, that must have signed the broker's; by default, any
    /// authority that the system trusts. For `https` only.
    pub fn ca_certificate(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.ca_certificate = Some(Certificate::from_pem(pem));
        self
    }

    /// A certificate and its key, in PEM, by which the broker identifies this client. For `https`
    /// only.
    pub fn identity(mut self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.identity = Some(Identity::from_pem(certificate, key));
        self
    }

    /// Checks the endpoints and credentials without connecting.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] says which of them is malformed.
    pub fn check(&self) -> Result<(), ConnectError> {
        self.endpoints()?;
        self.credentials()?;
        Ok(())
    }

    /// Connects to the first endpoint that answers.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] says which endpoint or credential is malformed, or why no broker was
    /// reached.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        Client::to(self.endpoints()?, self.credentials()?).await
    }

    fn credentials(&self) -> Result<Credentials, ConnectError> {
        self.refuse_empty()?;
        Credentials::new(self.token.as_ref())
    }

    /// Refuses a certificate that is given but empty, as from a variable that was not set.
    fn refuse_empty(&self) -> Result<(), ConnectError> {
        let is_blank = |pem: &Certificate| pem.as_ref().trim_ascii().is_empty();
        match self.ca_certificate.as_ref().is_some_and(is_blank) {
            true => Err(ConnectError::Credentials {
                what: "CA certificate",
                reason: "it is empty".to_owned(),
            }),
            false => Ok(()),
        }
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, ConnectError> {
        self.endpoints.split(',').map(|endpoint| self.endpoint(endpoint.trim())).collect()
    }

    fn endpoint(&self, text: &str) -> Result<Endpoint, ConnectError> {
        let has_certificates = self.ca_certificate.is_some() || self.identity.is_some();
        let scheme = if has_certificates { Scheme::HTTPS } else { Scheme::HTTP };
        let malformed = || ConnectError::Endpoint { endpoint: text.to_owned() };
        let uri = address::complete(text, scheme).ok_or_else(malformed)?;
        let scheme = uri.scheme_str().map(str::to_owned);
        let stays_here = is_loopback(uri.host().unwrap_or_default());
        let endpoint = Endpoint::from(uri);
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        match scheme.as_deref() {
            Some("http") if has_certificates => {
                let reason = format!("{text} is not encrypted: it must begin with https://");
                Err(ConnectError::Credentials { what: "certificates", reason })
            }
            Some("http") if self.token.is_some() && !stays_here => {
                let reason = format!(
                    "{text} is not encrypted, so that the network could read it: the endpoint must \
                     begin with https://, or name this machine as 127.0.0.1, [::1] or localhost"
                );
                Err(ConnectError::Credentials { what: "token", reason })
            }
            Some("http") => Ok(endpoint),
            _ => self.with_tls(endpoint),
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

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("endpoints", &self.endpoints)
            .field("token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}
