//! The layers: each module imports only what lies below it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A layer, and those it may import.
const LAYERS: [(&str, &[&str]); 9] = [
    ("model", &[]),
    ("proto", &[]),
    ("embedded", &[]),
    ("storage", &["model"]),
    ("broker", &["model", "storage"]),
    ("grpc", &["model", "broker", "proto"]),
    ("server", &["storage", "broker", "grpc", "proto", "embedded"]),
    ("client", &["proto"]),
    ("cli", &["client", "proto", "server", "storage"]),
];

/// Crates that only one layer may know.
const OWNERS: [(&str, &[&str]); 5] = [
    ("tokio_postgres", &["storage"]),
    ("deadpool", &["storage"]),
    ("deadpool_postgres", &["storage"]),
    ("refinery", &["storage"]),
    ("tonic::Status", &["grpc", "client", "cli"]),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false => found.push(path),
        }
    }
    found
}

/// The files of a layer with their text.
fn layer(name: &str) -> Vec<(PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![src.join(format!("{name}.rs"))];
    if src.join(name).is_dir() {
        files.extend(sources(&src.join(name)));
    }
    files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The layers that a text names in `crate::x` and in `use crate::{x::…, y::…}`.
fn imports(text: &str) -> Vec<String> {
    let mut imports = Vec::new();
    for rest in text.split("crate::").skip(1) {
        let group = rest.strip_prefix('{').map(top_level_names);
        imports.extend(group.unwrap_or_else(|| vec![first_word(rest)]));
    }
    imports
}

fn top_level_names(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut names = vec![String::new()];
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(String::new()),
            _ => {}
        }
        if depth == 0 && c != ',' {
            names.last_mut().unwrap().push(c);
        }
    }
    names.iter().map(|name| first_word(name.trim())).filter(|name| !name.is_empty()).collect()
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn no_layer_imports_one_above_it() {
    for (name, allowed) in LAYERS {
        for (path, text) in layer(name) {
            for import in imports(&text) {
                let fine = import == name || allowed.contains(&import.as_str());
                assert!(fine, "{} imports {import}, which {name} may not", path.display());
            }
        }
    }
}

#[test]
fn a_crate_that_belongs_to_one_layer_is_named_nowhere_else() {
    for (name, _) in LAYERS {
        for (path, text) in layer(name) {
            for (owned, owners) in OWNERS {
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let named =
                    code.filter(|line| !line.contains('"')).any(|line| line.contains(owned));
                assert!(!named || owners.contains(&name), "{} names {owned}", path.display());
            }
        }
    }
}

#[test]
fn every_module_of_the_library_is_a_layer() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let modules = text.lines().filter_map(|line| line.strip_prefix("pub mod "));
    let mut modules: Vec<&str> = modules.map(|name| name.trim_end_matches(';')).collect();
    let mut layers: Vec<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    modules.sort_unstable();
    layers.sort_unstable();
    assert_eq!(modules, layers);
}

#[test]
fn imports_are_found_in_groups_and_alone() {
    let text = "use crate::{\n model::{A, B},\n storage,\n};\nlet x = crate::grpc::y();";
    assert_eq!(imports(text), ["model", "storage", "grpc"]);
}
