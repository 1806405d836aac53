//! What a command finds of its message in its environment.

use std::{collections::BTreeMap, env};

use tokio::process::Command;

use crate::client::Job;

/// The longest key that becomes a variable: systems limit how long a variable can be.
const MAX_KEY_BYTES: usize = 64 * 1024;

const KEY: &str = "TRUNKLINE_KEY";
const HEADER: &str = "TRUNKLINE_HEADER_";

/// Sets a command's variables, and keeps out those that a command for another message left here.
pub(super) fn set(command: &mut Command, topic: &str, job: &Job) {
    command
        .env("TRUNKLINE_TOPIC", topic)
        .env("TRUNKLINE_OFFSET", job.offset.to_string())
        .env("TRUNKLINE_ATTEMPT", job.attempt().to_string())
        .env_remove(KEY);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with(HEADER)) {
            command.env_remove(name);
        }
    }
    if let Some(key) = job.key.as_deref().and_then(text) {
        command.env(KEY, key);
    }
    command.envs(header_variables(&job.headers));
}

/// A key as a variable can have it.
fn text(key: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(key).ok()?;
    (text.len() <= MAX_KEY_BYTES && !text.contains('\0')).then_some(text)
}

/// The headers that make a variable of one meaning, by its name.
fn header_variables(headers: &BTreeMap<String, String>) -> BTreeMap<String, &str> {
    let mut variables: BTreeMap<String, Option<&str>> = BTreeMap::new();
    for (name, value) in headers {
        let Some(name) = variable_name(name) else { continue };
        // The second header of a name makes it ambiguous.
        let value = Some(value.as_str()).filter(|value| !value.contains('\0'));
        variables.entry(name).and_modify(|known| *known = None).or_insert(value);
    }
    let clear = variables.into_iter().filter_map(|(name, value)| Some((name, value?)));
    clear.collect()
}

fn variable_name(header: &str) -> Option<String> {
    let letter = |c: char| match c {
        '-' | '.' => Some('_'),
        c if c.is_ascii_alphanumeric() || c == '_' => Some(c.to_ascii_uppercase()),
        _ => None,
    };
    let name = header.chars().map(letter).collect::<Option<String>>()?;
    Some(format!("{HEADER}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_become_variables_unless_they_are_ambiguous() {
        let headers = [
            ("content-type", "text"),
            ("trace.id", "7"),
            ("trace_id", "8"),
            ("Trace-Id", "9"),
            ("größe", "1"),
            ("a=b", "2"),
        ];
        let headers: BTreeMap<String, String> =
            headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let variables: Vec<_> = header_variables(&headers).into_iter().collect();
        assert_eq!(variables, [("TRUNKLINE_HEADER_CONTENT_TYPE".to_owned(), "text")]);
    }

    #[test]
    fn a_key_becomes_a_variable_if_it_is_text() {
        assert_eq!(text("schlüssel".as_bytes()), Some("schlüssel"));
        assert_eq!(text(b"\xff"), None);
        assert_eq!(text(b"a\0b"), None);
        assert_eq!(text(&[b'x'; MAX_KEY_BYTES + 1]), None);
    }
}
