//! Clocks that jump: the brokers' own, by libfaketime.

use std::{fs, path::Path};

use tempfile::NamedTempFile;

/// What processes with its [`environment`](Clock::environment) take for the time, but for
/// monotonic time.
pub struct Clock {
    library: &'static str,
    /// How far it is from what everybody else takes for the time.
    ahead: NamedTempFile,
}

impl Clock {
    /// One that is right; `None`, after saying so, where that cannot be done.
    pub fn new() -> Option<Self> {
        let library = [
            "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
            "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        ]
        .into_iter()
        .find(|path| Path::new(path).exists());
        let Some(library) = library else {
            crate::support::say(
                "skipped: no clock jumps without libfaketime (package libfaketime)",
            );
            return None;
        };
        let clock = Self { library, ahead: NamedTempFile::new().unwrap() };
        clock.is_ahead_by("+0");
        Some(clock)
    }

    pub fn environment(&self) -> [(&str, &str); 4] {
        [
            ("LD_PRELOAD", self.library),
            ("FAKETIME_TIMESTAMP_FILE", self.ahead.path().to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }

    /// It jumps to a time ahead of the right one, such as `+1h`, or behind it, such as `-1d`.
    pub fn is_ahead_by(&self, time: &str) {
        fs::write(self.ahead.path(), time).unwrap();
    }
}
