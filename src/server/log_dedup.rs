//! Suppresses repeated warnings and errors.
//!
//! While the database is down every call fails, and each failure would log the same line. Of lines
//! that differ only in the numbers of their error, or in the client, one is written every ten seconds.
//! The others are suppressed, whichever call they belong to.

use std::{
    collections::HashMap,
    fmt::{Debug, Write as _},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use crate::audit;

/// How long a line is suppressed after it was written.
const QUIET: Duration = Duration::from_secs(10);

/// How many lines are remembered: more than a broker usually logs in ten seconds.
const REMEMBERED: usize = 256;

/// A layer that suppresses repeated warnings and errors.
#[derive(Default)]
pub(super) struct LogDedup {
    written: Mutex<HashMap<Line, Instant>>,
}

/// Where a line comes from, and its text without the client and the numbers of the error.
type Line = (Identifier, String);

impl LogDedup {
    /// Whether a line is to be written now.
    fn admits(&self, line: Line, now: Instant) -> bool {
        let mut written = self.written.lock();
        if written.get(&line).is_some_and(|at| now.duration_since(*at) < QUIET) {
            return false;
        }
        if written.len() >= REMEMBERED {
            written.retain(|_, at| now.duration_since(*at) < QUIET);
        }
        // Lines beyond that are all written: they are worth reading.
        if written.len() < REMEMBERED {
            written.insert(line, now);
        }
        true
    }
}

impl<S: Subscriber> Layer<S> for LogDedup {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        // Each line of the audit is one that nobody else has.
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN || metadata.target() == audit::TARGET {
            return true;
        }
        let mut words = Words::default();
        event.record(&mut words);
        self.admits((metadata.callsite(), words.0), Instant::now())
    }
}

/// The values of an event, without its client and the digits of its error.
#[derive(Default)]
struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Each connection has another port, and a flood may come from any number of addresses.
        if field.name() == "peer" {
            return;
        }
        let before = self.0.len();
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{value:?} ");
        // Numbers in an error's text do not matter; those in what it concerns, such as a topic, do.
        if ["error", "message"].contains(&field.name())
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
    use std::{io, sync::Arc};

    use parking_lot::MutexGuard;

    use tracing::{callsite::Callsite as _, metadata::Kind};
    use tracing_subscriber::{fmt, layer::SubscriberExt as _};

    use super::*;

    /// A log that a test reads.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
            self.0.lock()
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
    fn lines_that_differ_only_in_the_numbers_of_an_error_are_suppressed() {
        let log = Log::default();
        let writer = log.clone();
        let lines = fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(lines).with(LogDedup::default());
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..100 {
                tracing::warn!(
                    error = format!("reset by peer (os error {number})"),
                    "refuse a call"
                );
                tracing::info!("started");
            }
            tracing::warn!(error = "out of disk", "refuse a call");
            for port in 0..100 {
                let peer =
                    Some(std::net::SocketAddr::from(([10, 0, 0, port], 1000 + u16::from(port))));
                tracing::warn!(?peer, "closed a connection");
            }
            for topic in ["shard-1", "shard-2", "shard-1"] {
                tracing::error!(topic, "lose messages");
            }
        });
        let text = String::from_utf8(log.bytes().clone()).unwrap();
        assert_eq!(text.matches("refuse a call").count(), 2, "{text}");
        assert!(text.contains("os error 0") && text.contains("out of disk"), "{text}");
        assert_eq!(text.matches("lose messages").count(), 2, "{text}");
        assert_eq!(text.matches("closed a connection").count(), 1, "{text}");
        assert!(text.contains("10.0.0.0:1000"), "the first one is named: {text}");
        assert_eq!(text.matches("started").count(), 100);
    }

    #[test]
    fn a_line_is_written_again_after_a_while() {
        let dedup = LogDedup::default();
        let callsite = tracing::callsite!(name: "line", kind: Kind::EVENT, fields: );
        let line = || (callsite.metadata().callsite(), "down".to_owned());
        let now = Instant::now();
        assert!(dedup.admits(line(), now));
        assert!(!dedup.admits(line(), now + QUIET / 2));
        assert!(dedup.admits(line(), now + QUIET));
    }
}
