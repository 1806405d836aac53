//! Structured logs on standard error, with a span for each call.

mod json;

use std::fmt::Debug;

use tonic::codegen::http::Request;
use tracing::{Level, Metadata, Span, Subscriber, field::Field, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::MakeExt as _,
    fmt::{
        self,
        format::{JsonFields, Writer},
    },
    layer::{Context, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

use super::{
    error::Error,
    log_dedup::LogDedup,
    options::{DEFAULT_FILTER, LogFormat, LogOptions},
};

/// Starts the log of this process.
pub(super) fn start(options: &LogOptions) -> Result<(), Error> {
    let filter = filter(&options.log)?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match options.log_format {
        LogFormat::Plain => lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .fmt_fields(fmt::format::debug_fn(write_field).delimited(" "))
            .boxed(),
        LogFormat::Json => lines.fmt_fields(JsonFields::new()).event_format(json::Json).boxed(),
    };
    let log = tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .with(NoPayloads)
        .with(LogDedup::default());
    // Fails only if a log was already started, which then stays in use.
    let _ = log.try_init();
    Ok(())
}

/// The filter of a log. Parts that only name targets add to the default.
fn filter(text: &str) -> Result<EnvFilter, Error> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let is_level = |part: &&str| part.parse::<LevelFilter>().is_ok();
    if let Some(word) = parts.clone().find(|part| !part.contains('=') && !is_level(part)) {
        let problem = "is no level (off, error, warn, info, debug, trace), and no TARGET=LEVEL";
        return Err(Error::LogFilter(format!("{word:?} {problem}")));
    }
    let has_level = parts.clone().any(|part| is_level(&part));
    let default = (!has_level).then_some(DEFAULT_FILTER);
    let parts: Vec<_> = default.into_iter().chain(parts).collect();
    EnvFilter::try_new(parts.join(",")).map_err(|error| Error::LogFilter(error.to_string()))
}

/// Writes a field of a plain line. What could end the line, or do something to a terminal, is escaped:
/// an error may quote what others have written.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    for letter in format!("{value:?}").chars() {
        match letter.is_control() {
            true => write!(writer, "{}", letter.escape_default())?,
            false => writer.write_char(letter)?,
        }
    }
    Ok(())
}

/// Keeps the libraries' `debug` and `trace` lines out of the log, whatever its filter says: HTTP/2
/// frames and statement parameters hold keys and payloads, and startup messages hold passwords.
struct NoPayloads;

impl<S: Subscriber> Layer<S> for NoPayloads {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= most_verbose(metadata.target())
    }
}

fn most_verbose(target: &str) -> Level {
    match target.split("::").next().unwrap_or_default() {
        "trunkline" => Level::TRACE,
        // Its `info` lines are the server's notices, which may quote a row.
        "tokio_postgres" => Level::WARN,
        _ => Level::INFO,
    }
}

/// How many characters of a request id, and of a method's path, the log has.
const LONGEST_ID: usize = 64;
const LONGEST_METHOD: usize = 128;

/// The span of a call. It has the client's own request id, so that the logs of both ends can be
/// compared.
pub(super) fn request_span<B>(request: &Request<B>) -> Span {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let method = shorten(request.uri().path().trim_start_matches('/'), LONGEST_METHOD);
    let id = header("x-request-id").map(|id| shorten(id, LONGEST_ID));
    let id = id.filter(|id| !id.is_empty());
    let unset = tracing::field::Empty;
    tracing::info_span!("request", method, id, trace_id = unset, span_id = unset)
}

/// The beginning of a text that a client chose: up to some printable characters.
fn shorten(text: &str, longest: usize) -> &str {
    let end = text.char_indices().position(|(_, char)| !matches!(char, ' '..='~'));
    &text[..end.unwrap_or(text.len()).min(longest)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_a_client_chose_is_cut_to_printable_characters() {
        assert_eq!(shorten("order 7", 64), "order 7");
        assert_eq!(shorten(&"x".repeat(1_000), 64), "x".repeat(64));
        assert_eq!(shorten("a\tb", 64), "a");
        assert_eq!(shorten("\u{e4}\u{1b}", 64), "");
    }

    #[test]
    fn parts_of_a_filter_that_name_targets_add_to_the_default() {
        let written = |text| filter(text).unwrap().to_string();
        let sorted = |text: &str| {
            let mut parts: Vec<_> = text.split(',').map(str::to_owned).collect();
            parts.sort();
            parts
        };
        for (text, expected) in [
            ("audit=off", format!("{DEFAULT_FILTER},audit=off")),
            ("trunkline=debug", format!("{DEFAULT_FILTER},trunkline=debug")),
            ("warn, audit=info", "warn,audit=info".to_owned()),
            ("off", "off".to_owned()),
            ("", DEFAULT_FILTER.to_owned()),
        ] {
            assert_eq!(sorted(&written(text)), sorted(&expected), "{text:?}");
        }
        for wrong in ["inof", "info,audit", "audit=loud"] {
            assert!(matches!(filter(wrong), Err(Error::LogFilter(_))), "{wrong}");
        }
    }

    #[test]
    fn only_the_brokers_own_lines_may_be_verbose() {
        assert_eq!(most_verbose("trunkline::broker::stream"), Level::TRACE);
        for library in ["h2::codec::framed_read", "hyper", "tonic::transport", "trunkline_like"] {
            assert_eq!(most_verbose(library), Level::INFO);
        }
        assert_eq!(most_verbose("tokio_postgres::connection"), Level::WARN);
    }
}
