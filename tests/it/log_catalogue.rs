//! The log's events are those that docs/logs.md lists: each has one name, its levels and its fields.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::support::{Document, root};

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The log of the audit, whose lines docs/access.md describes.
const AUDIT: &str = "src/audit/log.rs";

/// Keys of the JSON format, and objects of the Elastic Common Schema, which no text or number may
/// replace. `error` is written as `error.message`.
const RESERVED: [&str; 43] = [
    "agent",
    "as",
    "client",
    "cloud",
    "container",
    "data_stream",
    "destination",
    "device",
    "dns",
    "ecs",
    "event",
    "faas",
    "file",
    "group",
    "host",
    "http",
    "input",
    "interface",
    "labels",
    "level",
    "log",
    "message",
    "network",
    "observer",
    "orchestrator",
    "organization",
    "os",
    "package",
    "process",
    "request",
    "rule",
    "server",
    "service",
    "source",
    "span",
    "span_id",
    "tags",
    "timestamp",
    "tls",
    "trace",
    "trace_id",
    "url",
    "user",
];

/// What is known of the events of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Event {
    levels: BTreeSet<String>,
    fields: BTreeSet<String>,
}

type Events = BTreeMap<String, Event>;

/// A macro that logs.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    level: String,
    fields: BTreeSet<String>,
    /// `None` if the event has no literal as its name.
    name: Option<String>,
}

/// Finds the macros that log, in other macros too.
fn calls_in(tokens: TokenStream, found: &mut Vec<Call>) {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    for window in trees.windows(3) {
        if let [TokenTree::Ident(level), TokenTree::Punct(bang), TokenTree::Group(group)] = window
            && bang.as_char() == '!'
            && LEVELS.iter().any(|known| level == known)
        {
            found.push(call_of(level.to_string(), group.stream()));
        }
    }
    for tree in trees {
        if let TokenTree::Group(group) = tree {
            calls_in(group.stream(), found);
        }
    }
}

/// Reads the arguments of a macro: fields, and then the name.
fn call_of(level: String, arguments: TokenStream) -> Call {
    let mut parts: Vec<Vec<TokenTree>> = vec![Vec::new()];
    for tree in arguments {
        match &tree {
            TokenTree::Punct(comma) if comma.as_char() == ',' => parts.push(Vec::new()),
            _ => parts.last_mut().unwrap().push(tree),
        }
    }
    let mut call = Call { level, fields: BTreeSet::new(), name: None };
    for part in parts.iter().filter(|part| !part.is_empty()) {
        if let [TokenTree::Literal(literal)] = part.as_slice() {
            let literal: syn::LitStr = syn::parse_str(&literal.to_string()).unwrap();
            assert!(call.name.is_none(), "{call:?} has another literal {:?}", literal.value());
            call.name = Some(literal.value());
            continue;
        }
        assert!(call.name.is_none(), "{call:?} has something after its name");
        let field = field_of(part);
        if !field.starts_with("target:") {
            call.fields.insert(field);
        }
    }
    call
}

/// The name of a field: `name = value`, or the last name of `%name` or `?of.name`.
fn field_of(part: &[TokenTree]) -> String {
    let is_equals = |tree: &TokenTree| matches!(tree, TokenTree::Punct(it) if it.as_char() == '=');
    let path = match part.iter().position(is_equals) {
        Some(equals) => &part[..equals],
        None => part,
    };
    let text: String = path.iter().map(ToString::to_string).collect();
    text.trim_start_matches(['%', '?']).to_owned()
}

/// A source without what only its own tests compile.
fn without_tests(tokens: TokenStream) -> TokenStream {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let is_tests = |index: usize| {
        let group = |at: usize, delimiter| match trees.get(at) {
            Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group),
            _ => None,
        };
        let cfg = index.checked_sub(3).and_then(|at| group(at, Delimiter::Bracket));
        let is_cfg = cfg.is_some_and(|it| it.stream().to_string().replace(' ', "") == "cfg(test)");
        let is_mod = matches!(trees.get(index - 2), Some(TokenTree::Ident(it)) if it == "mod");
        is_cfg && is_mod && group(index, Delimiter::Brace).is_some()
    };
    let kept = (0..trees.len()).filter(|&index| index < 3 || !is_tests(index));
    kept.map(|index| trees[index].clone()).collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The macros of the sources, with the file of each.
fn calls() -> Vec<(String, Call)> {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let path = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if path == AUDIT {
            continue;
        }
        let tokens: TokenStream = fs::read_to_string(&file).unwrap().parse().unwrap();
        let mut calls = Vec::new();
        calls_in(without_tests(tokens), &mut calls);
        all.extend(calls.into_iter().map(|call| (path.clone(), call)));
    }
    all
}

/// The events of the tables in a document: level, name, fields, and what they mean.
fn events_of(document: &str) -> Events {
    let mut events = Events::new();
    for line in document.lines() {
        let cells: Vec<&str> =
            line.trim_matches('|').splitn(4, '|').map(|cell| cell.trim()).collect();
        let [levels, name, fields, meaning] = cells[..] else { continue };
        let levels: BTreeSet<String> = levels.split(", ").map(str::to_owned).collect();
        if !levels.iter().all(|level| LEVELS.contains(&level.as_str())) {
            continue;
        }
        let name = name.trim_matches('`').to_owned();
        let fields = fields.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert!(!meaning.is_empty(), "{name} has no meaning");
        let before = events.insert(name.clone(), Event { levels, fields });
        assert!(before.is_none(), "{name} is listed twice");
    }
    events
}

/// The documented name of every event.
pub(crate) fn documented_names() -> BTreeSet<String> {
    events_of(&Document::read("docs/logs.md").text).into_keys().collect()
}

#[test]
fn every_event_of_the_log_is_documented() {
    let mut problems = Vec::new();
    let mut logged = Events::new();
    let calls = calls();
    for (file, Call { level, fields, name }) in &calls {
        let Some(name) = name else {
            problems.push(format!("{file}: an event with the fields {fields:?} has no fixed name"));
            continue;
        };
        let words = name.split_whitespace().count();
        // Acronyms and names of PostgreSQL keep their capitals.
        let begins_low = name.starts_with(|c: char| c.is_ascii_lowercase());
        if name.contains(['{', '`', '|']) || !(1..=8).contains(&words) || !begins_low {
            problems.push(format!("{file}: {name:?} is not one to eight words in lower case"));
        }
        for field in fields.iter().filter(|field| RESERVED.contains(&field.as_str())) {
            problems.push(format!("{file}: {name:?} has the field {field}, which is reserved"));
        }
        let event = logged.entry(name.clone()).or_default();
        if !event.levels.is_empty() && event.fields != *fields {
            let (one, other) = (&event.fields, fields);
            problems.push(format!("{file}: {name:?} has the fields {one:?}, and also {other:?}"));
        }
        event.levels.insert(level.clone());
        event.fields = fields.clone();
    }
    assert!(logged.len() >= 60, "only {} events were found", logged.len());
    let documented = events_of(&Document::read("docs/logs.md").text);
    for (name, event) in &logged {
        match documented.get(name) {
            None => problems.push(format!("docs/logs.md has no row for {name:?}: {event:?}")),
            Some(row) if row != event => {
                problems.push(format!("docs/logs.md says {row:?} of {name:?}, which is {event:?}"));
            }
            Some(_) => {}
        }
    }
    for name in documented.keys().filter(|name| !logged.contains_key(*name)) {
        problems.push(format!("docs/logs.md lists {name:?}, which nothing logs"));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn macros_and_rows_are_read() {
    let source = r#"
        fn act() {
            match read() {
                Err(error) => tracing::warn!(%error, ?of.key, took = ?began.elapsed(), "fail"),
                Ok(number) => return info!(target: "here", number, list = f(1, 2), "do it"),
            }
            tokio::select! { () = wait() => debug!("wait {a}"), }
            error!(sentence);
        }
        #[cfg(test)]
        mod tests { fn test() { warn!("not logged"); } }
    "#;
    let mut found = Vec::new();
    calls_in(without_tests(source.parse().unwrap()), &mut found);
    let call = |level: &str, fields: &[&str], name: Option<&str>| Call {
        level: level.to_owned(),
        fields: fields.iter().map(|&field| field.to_owned()).collect(),
        name: name.map(str::to_owned),
    };
    found.sort_by_key(|call| call.level.clone());
    assert_eq!(
        found,
        [
            call("debug", &[], Some("wait {a}")),
            call("error", &["sentence"], None),
            call("info", &["list", "number"], Some("do it")),
            call("warn", &["error", "of.key", "took"], Some("fail")),
        ]
    );
    let table = "| level | event | fields | meaning |\n|---|---|---|---|\n\
                 | warn, error | fail | `error`, `took` | It \\| them. |\n| info | do it | | Done. |\n";
    let events = events_of(table);
    assert_eq!(events.len(), 2);
    assert_eq!(events["fail"].levels.len(), 2);
    assert_eq!(Vec::from_iter(&events["fail"].fields), ["error", "took"]);
    assert!(events["do it"].fields.is_empty());
}
