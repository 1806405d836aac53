//! Structured logs on standard error, with a span for each request.

use tonic::codegen::http::Request;
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, fmt,
    layer::{Context, SubscriberExt as _},
    util::SubscriberInitExt as _,
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
    let log = tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .with(NoPayloads)
        .with(Repeats::default());
    // Fails only if a log was started before, which then goes on.
    let _ = log.try_init();
    Ok(())
}

/// Keeps what libraries write at `debug` and `trace` out of the log, whatever its filter says: the
/// frames of HTTP/2 and the parameters of statements hold keys and payloads, and startup messages
/// hold passwords.
struct NoPayloads;

impl<S: Subscriber> Layer<S> for NoPayloads {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= most_verbose(metadata.target())
    }
}

fn most_verbose(target: &str) -> Level {
    match target.split("::").next().unwrap_or_default() {
        "trunkline" => Level::TRACE,
        // Its `info` is what the server sends as notices, which may quote a row.
        "tokio_postgres" => Level::WARN,
        _ => Level::INFO,
    }
}

/// What the log says of the request that a line belongs to. A client's own id is taken over, so
/// that both ends' logs can be laid side by side.
pub(super) fn request_span<B>(request: &Request<B>) -> Span {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let method = request.uri().path().trim_start_matches('/');
    tracing::info_span!("request", method, id = header("x-request-id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_brokers_own_lines_may_be_verbose() {
        assert_eq!(most_verbose("trunkline::broker::stream"), Level::TRACE);
        for library in ["h2::codec::framed_read", "hyper", "tonic::transport", "trunkline_like"] {
            assert_eq!(most_verbose(library), Level::INFO);
        }
        assert_eq!(most_verbose("tokio_postgres::connection"), Level::WARN);
    }
}
