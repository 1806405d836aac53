//! Reads the files that a URL's parameters name.
//!
//! They are read at the start, where a fault in one is an error, and again for each new session, so
//! that a renewed certificate needs no restart. A fault found then is logged, and the files as they
//! were read last stay in use. The system's certificates are read once.

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;
use rustls::{ClientConfig, ConfigBuilder, client::WantsClientCert};
use tokio_postgres::config::SslNegotiation;
use tracing::warn;

use crate::{
    certificates::{self, PemFile},
    storage::connector::tls::{
        options::{Identity, Roots, TlsOptions},
        verifier::Verifier,
    },
};

/// What servers that speak TLS from the first byte call PostgreSQL's protocol.
const PROTOCOL: &[u8] = b"postgresql";

/// The configuration of TLS, as the files say.
#[derive(Clone)]
pub(crate) struct TlsFiles {
    options: Arc<TlsOptions>,
    /// As it was read last.
    current: Arc<Mutex<Arc<ClientConfig>>>,
}

impl TlsFiles {
    pub(crate) fn read(options: Arc<TlsOptions>) -> Result<Self, String> {
        let current = Arc::new(Mutex::new(Arc::new(configure(&options)?)));
        Ok(Self { options, current })
    }

    pub(crate) fn options(&self) -> &TlsOptions {
        &self.options
    }

    /// The configuration for a new session.
    pub(crate) async fn config(&self) -> Arc<ClientConfig> {
        if self.options.may_use_tls() && names_files(&self.options) {
            let options = self.options.clone();
            let read = tokio::task::spawn_blocking(move || configure(&options));
            match read.await {
                Ok(Ok(config)) => *self.current.lock() = Arc::new(config),
                Ok(Err(error)) => warn!(error, "read the database's TLS files again"),
                Err(error) => warn!(%error, "read the database's TLS files again"),
            }
        }
        self.current.lock().clone()
    }
}

/// Checks that the files can be read and fit each other.
pub(crate) fn check_files(options: &TlsOptions) -> Result<(), String> {
    configure(options).map(drop)
}

fn names_files(options: &TlsOptions) -> bool {
    options.identity.is_some() || matches!(options.roots, Some(Roots::File(_)))
}

fn configure(options: &TlsOptions) -> Result<ClientConfig, String> {
    let verifier = match &options.roots {
        Some(roots) if options.may_use_tls() => verifier(roots, options.verifies_name())?,
        _ => Verifier::of_nothing(&certificates::provider()),
    };
    let builder =
        certificates::client().dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &options.identity {
        Some(identity) if options.may_use_tls() => {
            identify(builder, identity).map_err(|error| error.to_string())?
        }
        _ => builder.with_no_client_auth(),
    };
    if options.negotiation == SslNegotiation::Direct {
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
    }
    Ok(config)
}

fn identify(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: &Identity,
) -> Result<ClientConfig, certificates::Error> {
    let certificate = PemFile::of_parameter("sslcert", &identity.certificate);
    let key = PemFile::of_parameter("sslkey", &identity.key);
    let config = builder.with_client_auth_cert(certificate.certificates()?, key.key()?);
    config.map_err(|error| certificate.misfit(&key, error))
}

fn verifier(roots: &Roots, verifies_name: bool) -> Result<Verifier, String> {
    match roots {
        Roots::File(path) => {
            verifier_of_file(path, verifies_name).map_err(|error| error.to_string())
        }
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                let problems: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
                let problems = problems.join("; ");
                return Err(format!(
                    "sslrootcert=system: the system has no certificates {problems}"
                ));
            }
            Verifier::of_authorities(found.certs, verifies_name, &certificates::provider())
                .map_err(|problem| format!("sslrootcert=system: {problem}"))
        }
    }
}

fn verifier_of_file(path: &Path, verifies_name: bool) -> Result<Verifier, certificates::Error> {
    let file = PemFile::of_parameter("sslrootcert", path);
    Verifier::of_authorities(file.certificates()?, verifies_name, &certificates::provider())
        .map_err(|problem| file.error(problem))
}
