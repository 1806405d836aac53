//! How the records of each file become messages.

use std::sync::Arc;

use super::super::{message::Rule, problem::ascii_excerpt};

/// The most characters of a header's value.
const MAX_VALUE: usize = 1_000;

pub(super) struct MessageRules {
    rule: Rule,
    /// The name of this machine, if messages have headers about their file.
    host: Option<String>,
}

impl MessageRules {
    pub(super) fn new(rule: Rule, with_file_headers: bool) -> Self {
        let name = || {
            let name = nix::unistd::gethostname().unwrap_or_default();
            ascii_excerpt(&name.to_string_lossy(), MAX_VALUE)
        };
        Self { rule, host: with_file_headers.then(name) }
    }

    /// The rule for the records of a file. Headers of the command line, and those of a JSON line,
    /// take precedence over those about the file.
    pub(super) fn of(&self, name: &str) -> Arc<Rule> {
        let mut rule = self.rule.clone();
        if let Some(host) = &self.host {
            let about = [("host", host.clone()), ("file", ascii_excerpt(name, MAX_VALUE))];
            for (name, value) in about {
                rule.headers.entry(name.to_owned()).or_insert(value);
            }
        }
        Arc::new(rule)
    }

    pub(super) fn rule(&self) -> &Rule {
        &self.rule
    }
}
