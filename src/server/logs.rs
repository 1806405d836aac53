//! Structured logs on standard error, with a span for each request.

use tonic::codegen::http::Request;
use tracing::Span;
use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use super::{
    Error,
    options::{LogFormat, ServeOptions},
    repeats::Repeats,
};

/// Starts the log of this process.
pub(super) fn start(options: &ServeOptions) -> Result<(), Error> {
    let filter =
        EnvFilter::try_new(&options.log).map_err(|error| Error::LogFilter(error.to_string()))?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match options.log_format {
        LogFormat::Plain => {
            lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let log = tracing_subscriber::registry().with(lines).with(filter).with(Repeats::default());
    // Fails only if a log was started before, which then goes on.
    let _ = log.try_init();
    Ok(())
}

/// What the log says of the request that a line belongs to. A client's own id is taken over, so
/// that both ends' logs can be laid side by side.
pub(super) fn request_span(request: &Request<()>) -> Span {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let method = request.uri().path().trim_start_matches('/');
    tracing::info_span!("request", method, id = header("x-request-id"))
}
