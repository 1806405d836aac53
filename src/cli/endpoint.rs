//! Chooses the broker to use.

use std::env;

use clap::Args;

use super::{context::Contexts, failure::Failure};

const DEFAULT: &str = "http://127.0.0.1:50051";

/// The broker to use: flags take precedence over the environment, and the environment over the
/// context in use.
#[derive(Args, Debug)]
pub(super) struct EndpointArgs {
    /// The broker's address; of several, separated by commas, the first that answers is used.
    /// [env: TRUNKLINE_ENDPOINT] [default: that of the context in use, or else
    /// http://127.0.0.1:50051]
    // The environment is read below: clap would report a conflict with the other flag.
    #[arg(long, global = true, value_name = "URL")]
    endpoint: Option<String>,

    /// The name of the context whose broker to use. [env: TRUNKLINE_CONTEXT]
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "endpoint")]
    context: Option<String>,
}

impl EndpointArgs {
    pub(super) fn resolve(&self) -> Result<String, Failure> {
        let (endpoint, context) = match (&self.endpoint, &self.context) {
            (None, None) => (variable("TRUNKLINE_ENDPOINT")?, variable("TRUNKLINE_CONTEXT")?),
            (endpoint, context) => (endpoint.clone(), context.clone()),
        };
        if let Some(endpoint) = endpoint {
            return Ok(endpoint);
        }
        let chosen = Contexts::load()?.endpoint(context.as_deref())?;
        Ok(chosen.unwrap_or_else(|| DEFAULT.to_owned()))
    }
}

/// The value of an environment variable. An empty value is refused: it is a mistake, and differs
/// from an unset variable.
fn variable(name: &str) -> Result<Option<String>, Failure> {
    match env::var(name) {
        Ok(value) if value.trim().is_empty() => {
            Err(Failure::usage(format!("{name} is set but empty: give it a value, or unset it")))
        }
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(Failure::usage(format!("{name} is not UTF-8"))),
    }
}
