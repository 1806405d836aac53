//! Writes an event as one line of JSON, with the names of the Elastic Common Schema.
//!
//! Guarantees that no line has a key twice, that numbers stay numbers, and that each line begins with
//! `@timestamp`, `log.level` and `message`. Loki detects the level under its name in this schema too.

use std::{
    borrow::Cow,
    fmt::{self, Debug},
    time::SystemTime,
};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    registry::LookupSpan,
};

/// The version of the schema whose names the lines have.
const SCHEMA_VERSION: &str = "8.11.0";

/// The format. It needs spans whose fields are formatted as JSON.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'fields> FormatFields<'fields> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line::of(event, SystemTime::now());
        // From the innermost span outwards.
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let Some(fields) = extensions.get::<FormattedFields<N>>() else { continue };
            // A span without fields has no text.
            let Ok(fields) = serde_json::from_str::<Map<String, Value>>(fields) else { continue };
            for (name, value) in fields {
                line.add(name_of_span_field(span.name(), &name), value);
            }
        }
        let text = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

/// The keys and values of a line, in their order.
struct Line(Vec<(Cow<'static, str>, Value)>);

impl Line {
    fn of(event: &Event<'_>, now: SystemTime) -> Self {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, target, others } = fields;
        let time = humantime::format_rfc3339_micros(now).to_string();
        let level = metadata.level().as_str().to_ascii_lowercase();
        let message = message.unwrap_or_else(|| metadata.name().to_owned());
        let target = target.unwrap_or_else(|| metadata.target().to_owned());
        let mut line = Self(Vec::with_capacity(others.len() + 8));
        line.add("@timestamp", time);
        line.add("log.level", level);
        line.add("message", message);
        line.add("ecs.version", SCHEMA_VERSION);
        line.add("log.logger", target);
        for (name, value) in others {
            line.add(name_of_field(name), value);
        }
        line
    }

    /// Adds a key, unless the line has it already.
    fn add(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        let name = name.into();
        if self.0.iter().all(|(known, _)| *known != name) {
            self.0.push((name, value.into()));
        }
    }
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// The schema keeps `error` for an object.
fn name_of_field(name: &'static str) -> &'static str {
    if name == "error" { "error.message" } else { name }
}

/// A trace belongs to a line as a whole, so its ids have names of the schema.
fn name_of_span_field(span: &str, name: &str) -> String {
    match name {
        "trace_id" => "trace.id".to_owned(),
        "span_id" => "span.id".to_owned(),
        _ => format!("{span}.{name}"),
    }
}

/// The fields of an event.
#[derive(Default)]
struct Fields {
    message: Option<String>,
    /// The target of a line that a library wrote with the crate `log`, which is in a field.
    target: Option<String>,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = Some(text),
            ("log.target", Value::String(text)) => self.target = Some(text),
            // The module, file and line of such a library.
            (name, _) if name.starts_with("log.") => {}
            (name, value) => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing::field::Empty;
    use tracing_subscriber::{
        fmt::{self, format::JsonFields},
        layer::SubscriberExt as _,
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines, without their times.
    fn lines_of(act: impl FnOnce()) -> Vec<String> {
        let log = Log::default();
        let writer = log.clone();
        let layer = fmt::layer().fmt_fields(JsonFields::new()).event_format(Json);
        let layer = layer.with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), act);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let without_time = |line: &str| {
            let (time, rest) = line.split_once(',').unwrap();
            assert!(time.starts_with(r#"{"@timestamp":"2"#) && time.ends_with(r#"Z""#), "{line}");
            rest.to_owned()
        };
        text.lines().map(without_time).collect()
    }

    #[test]
    fn a_line_has_the_event_and_its_span() {
        let lines = lines_of(|| {
            let span = tracing::info_span!("request", method = "a/B", id = "7", trace_id = Empty);
            let _inside = span.enter();
            span.record("trace_id", "abc");
            tracing::warn!(target: "here", error = "no \"room\"", left = 3, open = true, "refuse it");
        });
        let expected = r#""log.level":"warn","message":"refuse it","ecs.version":"8.11.0","log.logger":"here","error.message":"no \"room\"","left":3,"open":true,"request.id":"7","request.method":"a/B","trace.id":"abc"}"#;
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn no_key_is_there_twice() {
        let lines = lines_of(|| {
            let outer = tracing::info_span!("request", id = "outer", trace_id = "outer");
            let inner =
                tracing::info_span!(parent: &outer, "part", id = "inner", trace_id = "inner");
            let _inside = inner.enter();
            tracing::info!(target: "here", error = "first", error.message = "second", "fail");
        });
        let expected = r#""log.level":"info","message":"fail","ecs.version":"8.11.0","log.logger":"here","error.message":"first","part.id":"inner","trace.id":"inner","request.id":"outer"}"#;
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn a_line_of_the_crate_log_has_the_target_of_its_library() {
        let lines = lines_of(|| {
            tracing::info!(target: "log", { log.target = "rustls", log.line = 7 }, "shake hands");
        });
        let expected = r#""log.level":"info","message":"shake hands","ecs.version":"8.11.0","log.logger":"rustls"}"#;
        assert_eq!(lines, [expected]);
    }
}
