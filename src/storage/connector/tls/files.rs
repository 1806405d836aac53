//! Reads the files that a URL's parameters name.
//!
//! They are read at the start, where a fault in one is an error, and again for each new session, so
//! that a renewed certificate needs no restart. A fault found then is logged, and the files as they
//! were read last stay in use. The system's certificates are read once.

use std::{fs, path::Path, sync::Arc};

use parking_lot::Mutex;
use rustls::{
    ClientConfig, InconsistentKeys,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};
use tokio_postgres::config::SslNegotiation;
use tracing::warn;

use crate::storage::connector::tls::{
    options::{Identity, Roots, TlsOptions},
    verifier::Verifier,
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
                Ok(Err(problem)) => warn!(problem, "read the files for TLS to the database again"),
                Err(error) => warn!(%error, "read the files for TLS to the database again"),
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
    let provider = Arc::new(ring::default_provider());
    let verifier = match &options.roots {
        Some(roots) if options.may_use_tls() => {
            verifier(roots, options.verifies_name(), &provider)?
        }
        _ => Verifier::of_nothing(&provider),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &options.identity {
        Some(identity) if options.may_use_tls() => {
            let (certificates, key) = read_identity(identity)?;
            builder
                .with_client_auth_cert(certificates, key)
                .map_err(|error| describe_misfit(identity, &error))?
        }
        _ => builder.with_no_client_auth(),
    };
    if options.negotiation == SslNegotiation::Direct {
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
    }
    Ok(config)
}

fn verifier(
    roots: &Roots,
    verifies_name: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Verifier, String> {
    match roots {
        Roots::File(path) => {
            let certificates = read_certificates("sslrootcert", path)?;
            Verifier::of_authorities(certificates, verifies_name, provider)
                .map_err(|problem| format!("sslrootcert={}: {problem}", path.display()))
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
            let provider = provider.clone();
            Verifier::of_authorities(found.certs, verifies_name, &provider)
                .map_err(|problem| format!("sslrootcert=system: {problem}"))
        }
    }
}

fn read_identity(
    identity: &Identity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let certificates = read_certificates("sslcert", &identity.certificate)?;
    let path = identity.key.display();
    let key = PrivateKeyDer::from_pem_slice(&read("sslkey", &identity.key)?);
    let key = key.map_err(|error| match error {
        pem::Error::NoItemsFound => {
            format!("sslkey={path} holds no private key in PEM that is not encrypted")
        }
        error => format!("sslkey={path}: {error}"),
    })?;
    Ok((certificates, key))
}

fn read_certificates(parameter: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(parameter, path)?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let certificates =
        certificates.map_err(|error| format!("{parameter}={}: {error}", path.display()))?;
    match certificates.is_empty() {
        true => Err(format!("{parameter}={} holds no certificate in PEM", path.display())),
        false => Ok(certificates),
    }
}

fn read(parameter: &str, path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{parameter}={}: {error}", path.display()))
}

fn describe_misfit(identity: &Identity, error: &rustls::Error) -> String {
    let (certificate, key) = (identity.certificate.display(), identity.key.display());
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            format!("sslkey={key} is not the key of sslcert={certificate}")
        }
        error => format!("sslcert={certificate} with sslkey={key}: {error}"),
    }
}
