//! Who the command calls as, and whom it trusts: a token and certificates.
//!
//! A token is given in a file or in a variable. There is no flag for it, because other users of the
//! machine see the command lines of programs.

use std::{env, fs, path::PathBuf};

use clap::Args;

use super::failure::Failure;
use crate::client::ClientBuilder;

/// The heading of the flags that say which broker to use, and as whom.
pub(super) const CONNECTION: &str = "Connection";

/// The files that the flags name. The environment is read below, as it ranks between the flags and
/// the context.
#[derive(Args, Clone, Debug)]
pub(super) struct CredentialArgs {
    /// File that holds the token to call with; it is read again when the token is replaced. A token
    /// may also be given in TRUNKLINE_TOKEN. [env: TRUNKLINE_TOKEN_FILE]
    #[arg(long, global = true, help_heading = CONNECTION, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Authority's certificate, in PEM, that must have signed the broker's [default: those that the
    /// system trusts]. [env: TRUNKLINE_CA_FILE]
    #[arg(long, global = true, help_heading = CONNECTION, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Certificate, in PEM, by which the broker identifies this client. [env: TRUNKLINE_CLIENT_CERT]
    #[arg(long, global = true, help_heading = CONNECTION, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,

    /// Key of the client certificate, in PEM. [env: TRUNKLINE_CLIENT_KEY]
    #[arg(long, global = true, help_heading = CONNECTION, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
}

/// A token and certificates that one source gives, or several sources together.
#[derive(Clone, Debug, Default)]
pub(super) struct Credentials {
    pub(super) token: Option<Token>,
    pub(super) ca_file: Option<PathBuf>,
    /// A client certificate and its key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone)]
pub(super) enum Token {
    Text(String),
    File(PathBuf),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl CredentialArgs {
    /// What the flags give.
    pub(super) fn given(&self) -> Credentials {
        let Self { token_file, ca_file, client_cert, client_key } = self.clone();
        Credentials {
            token: token_file.map(Token::File),
            ca_file,
            identity: client_cert.zip(client_key),
        }
    }
}

impl Credentials {
    /// What the environment gives.
    pub(super) fn of_environment() -> Result<Self, Failure> {
        let file = |name| Ok::<_, Failure>(variable(name)?.map(PathBuf::from));
        let token = match (variable("TRUNKLINE_TOKEN")?, file("TRUNKLINE_TOKEN_FILE")?) {
            (Some(_), Some(_)) => {
                return Err(Failure::usage(
                    "TRUNKLINE_TOKEN and TRUNKLINE_TOKEN_FILE are both set: unset one of them",
                ));
            }
            (Some(token), None) => Some(Token::Text(token)),
            (None, file) => file.map(Token::File),
        };
        let identity = match (file("TRUNKLINE_CLIENT_CERT")?, file("TRUNKLINE_CLIENT_KEY")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(Failure::usage(
                    "TRUNKLINE_CLIENT_CERT and TRUNKLINE_CLIENT_KEY belong together: set both",
                ));
            }
        };
        Ok(Self { token, ca_file: file("TRUNKLINE_CA_FILE")?, identity })
    }

    /// These, and what they lack from others.
    pub(super) fn or(self, others: Self) -> Self {
        Self {
            token: self.token.or(others.token),
            ca_file: self.ca_file.or(others.ca_file),
            identity: self.identity.or(others.identity),
        }
    }

    /// Gives a connection these credentials.
    pub(super) fn give(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, Failure> {
        builder = match &self.token {
            Some(Token::Text(token)) => builder.token(token),
            Some(Token::File(path)) => builder.token_file(path),
            None => builder,
        };
        if let Some(path) = &self.ca_file {
            builder = builder.ca_certificate(read("CA certificate", path)?);
        }
        if let Some((certificate, key)) = &self.identity {
            let certificate = read("client certificate", certificate)?;
            builder = builder.identity(certificate, read("client key", key)?);
        }
        Ok(builder)
    }
}

fn read(what: &str, path: &PathBuf) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| {
        Failure::usage(format!("use the {what}: read {}: {error}", path.display()))
    })
}

/// The value of an environment variable. An empty value is refused: it is a mistake, and differs
/// from an unset variable.
pub(super) fn variable(name: &str) -> Result<Option<String>, Failure> {
    match env::var(name) {
        Ok(value) if value.trim().is_empty() => {
            Err(Failure::usage(format!("{name} is set but empty: give it a value, or unset it")))
        }
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(Failure::usage(format!("{name} is not UTF-8"))),
    }
}
