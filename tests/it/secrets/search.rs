//! Looks for planted texts in everything that others can see.

use std::{
    fs,
    sync::{Arc, Mutex},
};

/// What must not be seen, and where it was planted.
#[derive(Clone)]
pub struct Secret {
    pub what: &'static str,
    pub text: String,
}

impl Secret {
    pub fn new(what: &'static str, text: impl Into<String>) -> Self {
        Self { what, text: text.into() }
    }

    /// The forms in which it could be written: as it is, as `Debug` prints bytes, and as PostgreSQL
    /// prints them.
    fn forms(&self) -> [Vec<u8>; 4] {
        let bytes = self.text.as_bytes();
        let numbers = format!("{bytes:?}");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        [
            bytes.to_vec(),
            numbers.trim_matches(['[', ']']).as_bytes().to_vec(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
        ]
    }
}

/// Everything that was seen so far. Cheap to clone.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<Found>>>);

/// Where something was seen, and what.
type Found = (String, Vec<u8>);

impl Seen {
    /// Adds what was seen somewhere.
    pub fn add(&self, place: impl Into<String>, content: impl AsRef<[u8]>) {
        self.0.lock().unwrap().push((place.into(), content.as_ref().to_vec()));
    }

    /// Adds the command lines of all processes, and the environments of those that may be read.
    pub fn add_processes(&self) {
        for entry in fs::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            for file in ["cmdline", "environ"] {
                // Most entries are no processes, and processes end.
                if let Ok(content) = fs::read(path.join(file)) {
                    self.add(path.join(file).display().to_string(), content);
                }
            }
        }
    }

    /// Where each secret was seen.
    pub fn leaks(&self, secrets: &[Secret]) -> Vec<String> {
        let seen = self.0.lock().unwrap();
        let mut leaks = Vec::new();
        for secret in secrets {
            let forms = secret.forms();
            for (place, content) in seen.iter() {
                if forms.iter().any(|form| contains(content, form)) {
                    let content = String::from_utf8_lossy(content);
                    leaks.push(format!("{} is in {place}: {content:.1000}", secret.what));
                }
            }
        }
        leaks
    }

    /// Whether a text was seen.
    pub fn has(&self, text: &str) -> bool {
        let seen = self.0.lock().unwrap();
        seen.iter().any(|(_, content)| contains(content, text.as_bytes()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

fn contains(content: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(content, text).is_some()
}
