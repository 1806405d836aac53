//! The audit's lines in the log.

use crate::{
    model::{AuditEntry, Outcome, Principal},
    storage::Error,
};

/// The target of all of its lines, by which a log filter selects them.
pub const TARGET: &str = "audit";

/// Writes a line with every field of an entry.
macro_rules! line {
    ($level:ident, $entry:expr, $sentence:expr $(, $name:ident = $value:expr)*) => {{
        let AuditEntry { act, outcome, origin, method: _, topic, subject, reason, details, count } =
            $entry;
        tracing::$level!(
            target: TARGET,
            act = act.name(),
            outcome = outcome.name(),
            principal = origin.principal.as_ref().map(Principal::as_str),
            token = origin.token_id.as_deref(),
            address = origin.address.as_deref(),
            method = Some($entry.method).filter(|it| !it.is_empty()),
            topic = topic.as_deref(),
            subject = subject.as_deref(),
            reason = *reason,
            details = (!details.is_empty()).then(|| display(Details(details))),
            count = Some(*count).filter(|&count| count > 1),
            $($name = $value,)*
            "{}", $sentence
        )
    }};
}

struct Details<'a>(&'a std::collections::BTreeMap<&'static str, String>);

impl std::fmt::Display for Details<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(self.0).unwrap_or_default())
    }
}

/// What is in the audit.
pub(super) fn stored(entry: &AuditEntry) {
    match entry.outcome {
        Outcome::Done | Outcome::Denied => line!(info, entry, entry.act.sentence()),
        Outcome::Unknown => line!(warn, entry, format_args!("{}, perhaps", entry.act.sentence())),
        Outcome::NotRecorded => line!(warn, entry, "denied more calls than are recorded"),
    }
}

/// What should be in the audit and is not: this line is all that there is of it.
pub(super) fn not_stored(entry: &AuditEntry, error: &Error) {
    let sentence = entry.act.sentence();
    line!(
        error,
        entry,
        format_args!("{sentence}, and could not store the record of it"),
        error = display(error)
    );
}
