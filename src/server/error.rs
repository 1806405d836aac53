//! Why a broker could not start or had to stop.

use std::{io::Write as _, process::ExitCode};

use super::options::LogFormat;
use crate::{access, certificates, embedded, storage, traces};

/// The exit code when the database could not be reached, as in sysexits.h.
const EX_UNAVAILABLE: u8 = 69;

/// Why a broker could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter is malformed.
    #[error("read the log filter: {0}")]
    LogFilter(String),
    /// The file with the database URL cannot be read.
    #[error("read {path}: {source}")]
    UrlFile {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A database URL is given, but it is empty.
    #[error(
        "read the database URL: {given} is empty; give it a URL, or leave it out for a private \
         PostgreSQL"
    )]
    EmptyUrl {
        /// The flag, variable or file.
        given: String,
    },
    /// A database URL is not text.
    #[error("read the database URL: {given} is not UTF-8")]
    UrlNotUnicode {
        /// The variable.
        given: String,
    },
    /// A database URL is malformed or asks for something unsupported.
    #[error("read the database URL of {given}: {problem}")]
    DatabaseUrl {
        /// The flag, the variable or the file that it comes from.
        given: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A direct database URL is given without a database URL.
    #[error(
        "use --direct-database-url: it goes with a --database-url that leads to a pooler, and there is none"
    )]
    DirectUrlAlone,
    /// Other hosts could use the broker without protection.
    #[error(
        "listen on {address}: other hosts could use this broker without {missing}; give it \
         --tls-cert and --tls-key, and --auth required or --tls-client-ca; or listen on 127.0.0.1 \
         (--listen, --http); \
         or pass --insecure if you trust everyone who reaches this address"
    )]
    Exposed {
        /// The address.
        address: std::net::SocketAddr,
        /// What is missing.
        missing: &'static str,
    },
    /// The certificates for TLS cannot be used.
    #[error("load {0}")]
    Tls(#[from] certificates::Error),
    /// The keys of the identity provider cannot be used.
    #[error("load {0}")]
    Jwt(#[from] access::jwt::Error),
    /// Traces cannot be exported.
    #[error("export traces to --otlp-endpoint: {0}")]
    Traces(#[from] traces::Error),
    /// Tokens of an issuer are to be accepted, but callers need none.
    #[error("use --jwt-issuer: it goes with --auth required, without which nobody needs a token")]
    JwtWithoutAuth,
    /// The private PostgreSQL could not be started.
    #[error("start a private PostgreSQL: {0}")]
    Embedded(#[from] embedded::Error),
    /// The database cannot be used.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The broker cannot listen on the address.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The broker cannot listen on the address for HTTP.
    #[error("listen on {address} for HTTP: {source}; give --http another address, or off")]
    ListenHttp {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The broker cannot wait for signals.
    #[error("wait for signals: {0}")]
    Signals(std::io::Error),
    /// A call has no rule that says who may make it.
    #[error("check who may make which call: there is no rule for {call}")]
    NoRule {
        /// The call's path.
        call: String,
    },
    /// The descriptors of the services cannot be decoded.
    #[error("decode the descriptors of the services: {0}")]
    Descriptors(prost::DecodeError),
    /// The first administrator cannot be created.
    #[error(transparent)]
    Bootstrap(#[from] access::BootstrapError),
    /// The first administrator is created, but its token was not printed.
    #[error(
        "print the token of the first administrator: {0}; to get another, set its revoked_at in \
         trunkline.access_token, and run this again"
    )]
    PrintToken(std::io::Error),
    /// The reflection service cannot be built.
    #[error("build the reflection service: {}", storage::chain(.0))]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl Error {
    /// Says on standard error why the command failed; returns what it exits with.
    pub(super) fn report(&self, format: LogFormat) -> ExitCode {
        match (format, self) {
            // There is no log yet.
            (LogFormat::Plain, _) | (_, Self::LogFilter(_)) => {
                // Standard error may be closed.
                let _ = writeln!(std::io::stderr(), "trunkline: {self}");
            }
            (LogFormat::Json, _) => tracing::error!(error = %self, "end with an error"),
        }
        self.exit_code()
    }

    /// What the process exits with: 2 for a wrong option, as clap does.
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Storage(error) | Self::Bootstrap(access::BootstrapError::Storage(error))
                if error.is_transient() =>
            {
                EX_UNAVAILABLE.into()
            }
            Self::LogFilter(_)
            | Self::EmptyUrl { .. }
            | Self::UrlNotUnicode { .. }
            | Self::DatabaseUrl { .. }
            | Self::DirectUrlAlone
            | Self::Exposed { .. }
            | Self::JwtWithoutAuth
            | Self::Traces(_)
            | Self::Bootstrap(access::BootstrapError::Principal(_))
            | Self::Embedded(embedded::Error::EmptyBinariesVariable) => 2.into(),
            _ => ExitCode::FAILURE,
        }
    }
}
