//! Reads certificates and keys, and checks that they fit together.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio_rustls::rustls::{
    self, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::parse_x509_certificate;

use super::files::Files;

/// The protocol that clients must negotiate.
pub(super) const HTTP2: &[u8] = b"h2";

/// The most that is read of a file; certificate bundles of systems have a quarter of this.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{option} {}: {problem}", path.display())]
pub struct LoadError {
    /// The option that names the file.
    option: &'static str,
    path: PathBuf,
    problem: String,
}

/// What was loaded.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: ServerConfig,
    /// What an operator should know, such as a certificate that has expired.
    pub(super) problems: Vec<String>,
}

const CERTIFICATE: &str = "--tls-cert";
const KEY: &str = "--tls-key";
const CLIENT_CA: &str = "--tls-client-ca";

/// Loads the files.
pub(super) fn load(files: &Files) -> Result<Loaded, LoadError> {
    let chain = read_certificates(CERTIFICATE, &files.certificate)?;
    let key = read_key(&files.key)?;
    let mut problems: Vec<String> = chain
        .iter()
        .filter_map(|it| outside_validity(CERTIFICATE, &files.certificate, it))
        .collect();
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| failure(CERTIFICATE, &files.certificate, error))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let authorities = read_certificates(CLIENT_CA, path)?;
            problems
                .extend(authorities.iter().filter_map(|it| outside_validity(CLIENT_CA, path, it)));
            let required = files.requires_client_certificates;
            builder.with_client_cert_verifier(verifier(path, authorities, required, provider)?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let certificate = files.certificate.display();
            failure(KEY, &files.key, format!("it is not the key of {certificate}"))
        }
        error => failure(CERTIFICATE, &files.certificate, error),
    })?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    // A resumed session would not check its client's certificate again. Connections live for long,
    // so resumption would save little.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Loaded { config, problems })
}

fn verifier(
    path: &Path,
    authorities: Vec<CertificateDer<'static>>,
    required: bool,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, LoadError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| failure(CLIENT_CA, path, error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
    verifier.build().map_err(|error| failure(CLIENT_CA, path, error))
}

fn read_certificates(
    option: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let text = read(option, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(failure(option, path, "it contains no certificate in PEM"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(failure(option, path, error)),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, LoadError> {
    PrivateKeyDer::from_pem_slice(&read(KEY, path)?).map_err(|error| match error {
        pem::Error::NoItemsFound => failure(KEY, path, "it contains no private key in PEM"),
        error => failure(KEY, path, error),
    })
}

fn read(option: &'static str, path: &Path) -> Result<Vec<u8>, LoadError> {
    let metadata = fs::metadata(path).map_err(|error| failure(option, path, error))?;
    if !metadata.is_file() {
        return Err(failure(option, path, "it is not a file"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        let problem = format!("it is larger than {MAX_FILE_BYTES} bytes");
        return Err(failure(option, path, problem));
    }
    fs::read(path).map_err(|error| failure(option, path, error))
}

/// Says if a certificate is not valid now.
fn outside_validity(
    option: &'static str,
    path: &Path,
    certificate: &CertificateDer<'_>,
) -> Option<String> {
    // The TLS library judges a certificate that cannot be parsed.
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let validity = certificate.validity();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let problem = if now > validity.not_after.timestamp() {
        format!("a certificate expired at {}", validity.not_after)
    } else if now < validity.not_before.timestamp() {
        format!("a certificate is valid only from {}", validity.not_before)
    } else {
        return None;
    };
    Some(failure(option, path, problem).to_string())
}

fn failure(option: &'static str, path: &Path, problem: impl ToString) -> LoadError {
    LoadError { option, path: path.to_owned(), problem: problem.to_string() }
}
