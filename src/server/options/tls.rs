//! The options for TLS.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// The options for TLS.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsOptions {
    /// Certificate chain of the broker, in PEM. Clients must then use TLS. Certificates and keys are
    /// read again when their files change.
    #[arg(long, env = "TRUNKLINE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM.
    #[arg(long, env = "TRUNKLINE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Certificates of the authorities that sign the certificates of clients, in PEM.
    #[arg(long, env = "TRUNKLINE_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,

    /// Whether a client must present a certificate [default: required, with --tls-client-ca].
    #[arg(
        long,
        env = "TRUNKLINE_TLS_CLIENT_AUTH",
        value_name = "WHETHER",
        requires = "tls_client_ca"
    )]
    pub tls_client_auth: Option<ClientAuth>,
}

/// Whether a client must present a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClientAuth {
    /// A client without a valid certificate cannot connect.
    Required,
    /// A client may connect without a certificate. One that it presents must be valid.
    Optional,
}

impl TlsOptions {
    /// Whether only clients with a valid certificate can connect.
    pub(in crate::server) fn requires_client_certificates(&self) -> bool {
        self.tls_client_ca.is_some() && self.tls_client_auth != Some(ClientAuth::Optional)
    }
}
