//! Chooses the broker to use, and what to call it with.

use clap::Args;

use super::{
    context::Contexts,
    credentials::{CONNECTION, CredentialArgs, Credentials, variable},
    failure::Failure,
};
use crate::client::{Client, ClientBuilder};

const DEFAULT: &str = "http://127.0.0.1:50051";

/// The broker to use: flags take precedence over the environment, and the environment over the
/// context in use. A context that a flag names takes precedence over the environment as well.
#[derive(Args, Debug)]
pub(super) struct EndpointArgs {
    /// The broker's address as HOST:PORT, http://HOST:PORT or https://HOST:PORT; of several,
    /// separated by commas, the first that answers is used. [env: TRUNKLINE_ENDPOINT] [default: that
    /// of the context in use, or else http://127.0.0.1:50051]
    // The environment is read below: clap would report a conflict with the other flag.
    #[arg(long, global = true, help_heading = CONNECTION, value_name = "ADDRESS")]
    endpoint: Option<String>,

    /// The name of the context whose broker to use. [env: TRUNKLINE_CONTEXT]
    #[arg(long, global = true, help_heading = CONNECTION, value_name = "NAME", conflicts_with = "endpoint")]
    context: Option<String>,

    #[command(flatten)]
    pub(super) credentials: CredentialArgs,
}

/// A broker, and what to call it with.
pub(super) struct Endpoint {
    pub(super) url: String,
    credentials: Credentials,
}

impl EndpointArgs {
    pub(super) fn resolve(&self) -> Result<Endpoint, Failure> {
        let (endpoint, context) = match (&self.endpoint, &self.context) {
            (None, None) => (variable("TRUNKLINE_ENDPOINT")?, variable("TRUNKLINE_CONTEXT")?),
            (endpoint, context) => (endpoint.clone(), context.clone()),
        };
        let (given, environment) = (self.credentials.given(), Credentials::of_environment()?);
        if let Some(url) = endpoint {
            return Ok(Endpoint { url, credentials: given.or(environment) });
        }
        let (url, stored) = match Contexts::load()?.chosen(context.as_deref())? {
            Some(context) => (context.endpoint.clone(), context.credentials()?),
            None => (DEFAULT.to_owned(), Credentials::default()),
        };
        let credentials = match self.context {
            Some(_) => given.or(stored).or(environment),
            None => given.or(environment).or(stored),
        };
        Ok(Endpoint { url, credentials })
    }
}

impl Endpoint {
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        Ok(self.builder()?.connect().await?)
    }

    fn builder(&self) -> Result<ClientBuilder, Failure> {
        self.credentials.give(Client::builder(&self.url))
    }
}
