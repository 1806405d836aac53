//! Clocks of brokers that jump, by libfaketime.

use std::{fs, path::Path};

use tempfile::NamedTempFile;

/// The wall clock of processes with its [`environment`](Clock::environment).
pub struct Clock {
    library: &'static str,
    /// Holds the offset from the real time.
    offset: NamedTempFile,
}

impl Clock {
    /// A clock that is right; prints why and returns `None` if libfaketime is not installed.
    pub fn new() -> Option<Self> {
        let library = [
            "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
            "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        ]
        .into_iter()
        .find(|path| Path::new(path).exists());
        let Some(library) = library else {
            crate::support::print_always(
                "skipped: no clock jumps without libfaketime (package libfaketime)",
            );
            return None;
        };
        let clock = Self { library, offset: NamedTempFile::new().unwrap() };
        clock.shift("+0");
        Some(clock)
    }

    pub fn environment(&self) -> [(&str, &str); 4] {
        [
            ("LD_PRELOAD", self.library),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.path().to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }

    /// Makes the clock jump to an offset from the real time, such as `+1h` or `-1d`.
    pub fn shift(&self, time: &str) {
        fs::write(self.offset.path(), time).unwrap();
    }
}
