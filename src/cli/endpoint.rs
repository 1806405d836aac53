//! Which broker to talk to.

use clap::Args;

use super::{context::Contexts, failure::Failure};

const DEFAULT: &str = "http://127.0.0.1:50051";

/// Which broker to talk to: a flag goes before its environment variable, and that before the
/// context in use.
#[derive(Args, Debug)]
pub(super) struct EndpointArgs {
    /// Where the broker listens; of several, with commas between them, the first that answers.
    /// [default: that of the context in use, or else http://127.0.0.1:50051]
    #[arg(long, global = true, env = "TRUNKLINE_ENDPOINT", value_name = "URL")]
    endpoint: Option<String>,

    /// The name of a context whose broker to talk to.
    #[arg(
        long,
        global = true,
        env = "TRUNKLINE_CONTEXT",
        value_name = "NAME",
        conflicts_with = "endpoint"
    )]
    context: Option<String>,
}

impl EndpointArgs {
    pub(super) fn resolve(&self) -> Result<String, Failure> {
        if let Some(endpoint) = &self.endpoint {
            return Ok(endpoint.clone());
        }
        let chosen = Contexts::load()?.endpoint(self.context.as_deref())?;
        Ok(chosen.unwrap_or_else(|| DEFAULT.to_owned()))
    }
}
