//! What a person is called who gives no name: after the user and the machine.

use nix::unistd::{User, gethostname, getuid};

/// The id as which this user publishes; empty if the system knows neither user nor machine.
pub(super) fn producer_id() -> String {
    join(names(), permitted, "-")
}

/// How this user is shown to others; empty if the system knows neither user nor machine.
pub(super) fn client_name() -> String {
    join(names(), printable, "@")
}

fn names() -> [Option<String>; 2] {
    let user = User::from_uid(getuid()).ok().flatten().map(|user| user.name);
    let host = gethostname().ok().and_then(|name| name.into_string().ok());
    [user, host]
}

fn join(names: [Option<String>; 2], clean: fn(&str) -> String, separator: &str) -> String {
    let names = names.into_iter().flatten().map(|name| clean(&name));
    let known: Vec<String> = names.filter(|name| !name.is_empty()).collect();
    known.join(separator)
}

/// The characters of a name that an id may have: at most 100 of them, so that two names fit into one.
fn permitted(name: &str) -> String {
    let is_permitted = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.chars().filter(is_permitted).take(100).collect()
}

/// A name as a client may have it: at most 30 characters, so that two names fit into one.
fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(30).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn an_id_has_only_characters_that_a_broker_permits() {
        let id = |names| join(names, permitted, "-");
        assert_eq!(id([name("ann"), name("mill.example")]), "ann-mill.example");
        assert_eq!(id([name("DOM\\Ann Ö"), None]), "DOMAnn");
        assert_eq!(id([name("日本"), None]), "");
        assert!(id([name(&"x".repeat(300)), name(&"y".repeat(300))]).len() < 255);
    }

    #[test]
    fn a_client_name_says_who_and_where() {
        let shown = |names| join(names, printable, "@");
        assert_eq!(shown([name("ann"), name("mill")]), "ann@mill");
        assert_eq!(shown([None, name("mill\n")]), "mill");
        assert_eq!(shown([None, None]), "");
    }
}
