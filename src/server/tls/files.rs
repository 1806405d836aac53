//! The files that TLS uses, as the options name them.

use std::path::PathBuf;

use crate::server::options::TlsOptions;

/// The files that TLS uses.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
    pub(super) requires_client_certificates: bool,
}

impl Files {
    /// The files of the options; `None` without TLS.
    pub(super) fn of(options: &TlsOptions) -> Option<Self> {
        Some(Self {
            certificate: options.tls_cert.clone()?,
            key: options.tls_key.clone()?,
            client_ca: options.tls_client_ca.clone(),
            requires_client_certificates: options.requires_client_certificates(),
        })
    }
}
