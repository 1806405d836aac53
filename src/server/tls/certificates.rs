//! Loads certificates and keys, and checks that they fit together.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio_rustls::rustls::{
    ServerConfig,
    pki_types::CertificateDer,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::parse_x509_certificate;

use super::files::Files;
use crate::certificates::{self, PemFile};

/// The protocol that clients must negotiate.
pub(super) const HTTP2: &[u8] = b"h2";

/// What was loaded.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: ServerConfig,
    /// What an operator should know, such as a certificate that has expired.
    pub(super) problems: Vec<String>,
}

/// Loads the files.
pub(super) fn load(files: &Files) -> Result<Loaded, certificates::Error> {
    let certificate = PemFile::of_option("--tls-cert", &files.certificate);
    let key = PemFile::of_option("--tls-key", &files.key);
    let chain = certificate.certificates()?;
    let private_key = key.key()?;
    let mut problems: Vec<String> =
        chain.iter().filter_map(|it| outside_validity(&certificate, it)).collect();
    let builder = match &files.client_ca {
        None => certificates::server().with_no_client_auth(),
        Some(path) => {
            let file = PemFile::of_option("--tls-client-ca", path);
            let authorities = file.certificates()?;
            problems.extend(authorities.iter().filter_map(|it| outside_validity(&file, it)));
            let verifier = verifier(&file, authorities, files.requires_client_certificates)?;
            certificates::server().with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, private_key)
        .map_err(|error| certificate.misfit(&key, error))?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    // A resumed session would not check its client's certificate again. Connections live for long,
    // so resumption would save little.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Loaded { config, problems })
}

fn verifier(
    file: &PemFile,
    authorities: Vec<CertificateDer<'static>>,
    required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, certificates::Error> {
    let roots = file.trust(authorities)?.into();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, certificates::provider());
    let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
    verifier.build().map_err(|error| file.error(error))
}

/// Says if a certificate is not valid now.
fn outside_validity(file: &PemFile, certificate: &CertificateDer<'_>) -> Option<String> {
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
    Some(file.error(problem).to_string())
}
