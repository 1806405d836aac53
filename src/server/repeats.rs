//! Warnings and errors that are said once, not a thousand times.
//!
//! A database that is away refuses every call, and each would say so. Of lines that differ in
//! nothing but the numbers of what went wrong one is written in ten seconds; those between are left
//! out, whatever request they belong to.

use std::{
    collections::HashMap,
    fmt::{Debug, Write as _},
    sync::Mutex,
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

/// How long a line that was written is not written again.
const QUIET: Duration = Duration::from_secs(10);

/// Lines that are remembered; more than a broker has to say in ten seconds.
const REMEMBERED: usize = 256;

/// Leaves repeated warnings and errors out of the log.
#[derive(Default)]
pub(super) struct Repeats {
    written: Mutex<HashMap<Line, Instant>>,
}

/// Where a line comes from, and what it says but for the numbers.
type Line = (Identifier, String);

impl Repeats {
    /// Whether a line is to be written now.
    fn is_news(&self, line: Line, now: Instant) -> bool {
        let mut written = self.written.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if written.get(&line).is_some_and(|at| now.duration_since(*at) < QUIET) {
            return false;
        }
        if written.len() >= REMEMBERED {
            written.retain(|_, at| now.duration_since(*at) < QUIET);
        }
        // With more than that, somebody should read them all.
        if written.len() < REMEMBERED {
            written.insert(line, now);
        }
        true
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if *event.metadata().level() > Level::WARN {
            return true;
        }
        let mut words = Words::default();
        event.record(&mut words);
        self.is_news((event.metadata().callsite(), words.0), Instant::now())
    }
}

/// What an event says, without the digits of what went wrong.
#[derive(Default)]
struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let before = self.0.len();
        // A string takes whatever is written to it.
        let _ = write!(self.0, "{value:?} ");
        // What went wrong is told with numbers that do not matter; what it concerns is not.
        if ["error", "problem", "message"].contains(&field.name())
            && self.0[before..].contains(|c: char| c.is_ascii_digit())
        {
            let without: String =
                self.0[before..].chars().filter(|c| !c.is_ascii_digit()).collect();
            self.0.truncate(before);
            self.0.push_str(&without);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, MutexGuard},
    };

    use tracing::{callsite::Callsite as _, metadata::Kind};
    use tracing_subscriber::{fmt, layer::SubscriberExt as _};

    use super::*;

    /// A log that a test reads.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
            self.0.lock().unwrap()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.bytes().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_said_again_but_for_its_numbers_is_left_out() {
        let log = Log::default();
        let writer = log.clone();
        let lines = fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(lines).with(Repeats::default());
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..100 {
                tracing::warn!(
                    error = format!("reset by peer (os error {number})"),
                    "refuse a call"
                );
                tracing::info!("started");
            }
            tracing::warn!(error = "out of disk", "refuse a call");
            for topic in ["shard-1", "shard-2", "shard-1"] {
                tracing::error!(topic, "lose messages");
            }
        });
        let text = String::from_utf8(log.bytes().clone()).unwrap();
        assert_eq!(text.matches("refuse a call").count(), 2, "{text}");
        assert!(text.contains("os error 0") && text.contains("out of disk"), "{text}");
        assert_eq!(text.matches("lose messages").count(), 2, "{text}");
        assert_eq!(text.matches("started").count(), 100);
    }

    #[test]
    fn it_is_said_again_after_a_while() {
        let repeats = Repeats::default();
        let callsite = tracing::callsite!(name: "line", kind: Kind::EVENT, fields: );
        let line = || (callsite.metadata().callsite(), "down".to_owned());
        let now = Instant::now();
        assert!(repeats.is_news(line(), now));
        assert!(!repeats.is_news(line(), now + QUIET / 2));
        assert!(repeats.is_news(line(), now + QUIET));
    }
}
