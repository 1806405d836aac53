//! Decides whether to trust a server's certificate, as `sslmode` says.
//!
//! Every mode verifies that the server holds the certificate's key. Without certificates of
//! authorities nothing else is verified, so an attacker on the path can pose as the server.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// Verifies what a URL asks for.
#[derive(Debug)]
pub(crate) struct Verifier {
    authorities: Option<Authorities>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Whom to trust, and for what.
#[derive(Debug)]
struct Authorities {
    chain: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
    /// Whether the certificate must be for the server's name.
    verifies_name: bool,
}

impl Verifier {
    /// Accepts every certificate.
    pub(crate) fn of_nothing(provider: &CryptoProvider) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        Self { authorities: None, algorithms }
    }

    /// Accepts certificates that these authorities issued, and these certificates themselves.
    /// Fails if one of them cannot be parsed.
    pub(crate) fn of_authorities(
        certificates: Vec<CertificateDer<'static>>,
        verifies_name: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| error.to_string())?;
        }
        let chain =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        let chain = chain.map_err(|error| error.to_string())?;
        Ok(Self {
            authorities: Some(Authorities { chain, certificates, verifies_name }),
            algorithms: provider.signature_verification_algorithms,
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(Authorities { chain, certificates, verifies_name }) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // Verified last, when the chain is known to be good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !verifies_name => {}
            // A server's self-signed certificate is often marked as an authority's. That is found
            // after its dates were verified.
            Err(error) if is_authority(&error) && certificates.contains(certificate) => {
                if *verifies_name {
                    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                }
            }
            outcome => return outcome,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether a server's certificate is refused because it is marked as an authority's. rustls passes
/// on the error of a library below it, which it does not export.
fn is_authority(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(CertificateError::Other(other))
            if other.to_string() == "CaUsedAsEndEntity"
    )
}
