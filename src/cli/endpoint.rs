//! Which broker to talk to.

use std::env;

use clap::Args;

use super::{context::Contexts, failure::Failure};

const DEFAULT: &str = "http://127.0.0.1:50051";

/// Which broker to talk to: what a flag says goes before what the environment does, and that before
/// the context in use.
#[derive(Args, Debug)]
pub(super) struct EndpointArgs {
    /// Where the broker listens; of several, with commas between them, the first that answers.
    /// [env: TRUNKLINE_ENDPOINT] [default: that of the context in use, or else
    /// http://127.0.0.1:50051]
    // Read here: to clap, the environment would contradict the other flag.
    #[arg(long, global = true, value_name = "URL")]
    endpoint: Option<String>,

    /// The name of a context whose broker to talk to. [env: TRUNKLINE_CONTEXT]
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

/// What a variable says; one that is set to nothing is a mistake in whatever set it, and not the
/// same as none.
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
