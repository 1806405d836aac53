//! Says why TLS failed, with the parameter and the file that have to do with it.

use std::{
    error::Error as _,
    io,
    time::{Duration, SystemTime},
};

use rustls::{AlertDescription, CertificateError, pki_types::UnixTime};

use crate::storage::connector::tls::options::{Roots, TlsOptions};

/// Why no encrypted session came about.
#[derive(Debug)]
pub(crate) struct Failure {
    pub problem: String,
    /// Whether a retry would fail in the same way.
    pub is_final: bool,
}

/// The driver's words, which nothing but its text tells apart from other errors.
const NO_TLS: &str = "server does not support TLS";
const NO_CHANNEL_BINDING: &str = "server did not use channel binding";

/// Why a session failed, if it was for TLS.
pub(crate) fn explain(error: &tokio_postgres::Error, options: &TlsOptions) -> Option<Failure> {
    let final_failure = |problem: String| Some(Failure { problem, is_final: true });
    let source = error.source()?;
    let tls = source
        .downcast_ref::<io::Error>()
        .and_then(|error| error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()));
    match (tls, source.to_string().as_str()) {
        (Some(rustls::Error::InvalidCertificate(error)), _) => {
            final_failure(describe_certificate(error, options))
        }
        (Some(rustls::Error::AlertReceived(alert)), _) => Some(describe_alert(*alert, options)),
        (Some(error), _) => {
            Some(Failure { problem: format!("TLS failed: {error}"), is_final: false })
        }
        (None, NO_TLS) => final_failure(
            "the server does not speak TLS, which is needed for a server on another machine, or \
             because the URL asks for it; set ssl = on there, or give sslmode=disable in the URL \
             if the network in between can be trusted"
                .to_owned(),
        ),
        (None, NO_CHANNEL_BINDING) => final_failure(
            "the server did not use channel binding, which channel_binding=require asks for: that \
             needs TLS and the authentication scram-sha-256"
                .to_owned(),
        ),
        _ => None,
    }
}

fn describe_certificate(error: &CertificateError, options: &TlsOptions) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            format!("the server's certificate was issued by none of {}", describe_roots(options))
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the server's certificate, or its issuer's, expired on {}", date(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the server's certificate, or its issuer's, is not valid before {}",
            date(*not_before)
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the server has a certificate for another name: {error}")
        }
        error => format!(
            "the server's certificate does not pass with {}: {error}",
            describe_roots(options)
        ),
    }
}

fn date(time: UnixTime) -> impl std::fmt::Display {
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs()))
}

fn describe_roots(options: &TlsOptions) -> String {
    match &options.roots {
        Some(Roots::File(path)) => format!("sslrootcert={}", path.display()),
        Some(Roots::System) => "sslrootcert=system".to_owned(),
        None => "no sslrootcert".to_owned(),
    }
}

/// What the server says when it ends a handshake: mostly that it does not like the broker's
/// certificate.
fn describe_alert(alert: AlertDescription, options: &TlsOptions) -> Failure {
    let certificate = match &options.identity {
        Some(identity) => format!("sslcert={}", identity.certificate.display()),
        None => "no sslcert".to_owned(),
    };
    let problem = format!("the server ended the TLS handshake with {certificate}: {alert:?}");
    Failure { problem, is_final: alert != AlertDescription::InternalError }
}
