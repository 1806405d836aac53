//! The architecture, as ARCHITECTURE.md draws it: which layer may import which, which room of the
//! broker may import which, and no two files that import each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{Item, UseTree, visit::Visit};

/// A layer or a room, and those that it may import.
type Arrows = &'static [(&'static str, &'static [&'static str])];

const LAYERS: Arrows = &[
    ("model", &[]),
    ("proto", &[]),
    ("metrics", &["model"]),
    ("trace_context", &[]),
    ("traces", &["model", "metrics", "trace_context"]),
    ("embedded", &[]),
    ("certificates", &[]),
    ("storage", &["model", "certificates", "metrics"]),
    ("audit", &["model", "storage"]),
    ("access", &["model", "storage", "audit", "certificates"]),
    ("broker", &["model", "storage", "audit", "metrics", "traces"]),
    ("grpc", &["model", "access", "audit", "broker", "metrics", "proto", "traces"]),
    ("http", &["model", "storage", "access", "broker", "grpc", "metrics", "proto"]),
    (
        "server",
        &[
            "storage",
            "access",
            "audit",
            "broker",
            "grpc",
            "http",
            "proto",
            "embedded",
            "certificates",
            "traces",
        ],
    ),
    ("client", &["proto", "trace_context"]),
    ("cli", &["client", "proto", "server", "storage"]),
];

const ROOMS: Arrows = &[
    ("error", &[]),
    ("backoff", &[]),
    ("budget", &[]),
    ("calls", &["error"]),
    ("catalogue", &["error"]),
    ("quotas", &[]),
    ("characters", &["error"]),
    ("notify", &["backoff", "testing"]),
    ("load", &["budget", "lease", "log"]),
    ("log", &["budget", "error", "testing"]),
    ("overview", &["load"]),
    ("truncation", &["backoff", "error", "log"]),
    ("lease", &["backoff", "error", "log", "notify", "testing"]),
    (
        "publish",
        &["budget", "calls", "characters", "error", "log", "notify", "testing", "truncation"],
    ),
    (
        "consume",
        &[
            "backoff",
            "budget",
            "calls",
            "catalogue",
            "characters",
            "error",
            "lease",
            "log",
            "notify",
            "truncation",
        ],
    ),
    (
        "admin",
        &["catalogue", "characters", "error", "lease", "log", "notify", "quotas", "truncation"],
    ),
    ("relay", &["backoff", "log", "notify"]),
    (
        "subscription",
        &["budget", "calls", "consume", "error", "lease", "log", "publish", "testing"],
    ),
    ("retention", &["log"]),
    ("health", &["backoff", "hot_topics", "log", "truncation"]),
    ("hot_topics", &[]),
    ("testing", &[]),
];

/// Crates that only some layers may name.
const OWNERS: [(&str, &[&str]); 9] = [
    ("tokio_postgres", &["storage"]),
    ("deadpool", &["storage"]),
    ("deadpool_postgres", &["storage"]),
    ("refinery", &["storage"]),
    ("prometheus_client", &["metrics"]),
    ("opentelemetry", &["traces", "client", "trace_context"]),
    ("opentelemetry_sdk", &["traces"]),
    ("opentelemetry_otlp", &["traces"]),
    ("tonic::Status", &["grpc", "http", "client", "cli"]),
];

/// A module's path in the crate: `["broker", "log"]`.
type Module = Vec<String>;

/// The modules of the library that are files.
struct Library {
    files: BTreeMap<Module, File>,
}

struct File {
    path: PathBuf,
    /// Names that the file re-exports, with the absolute paths that they stand for.
    exports: BTreeMap<String, Vec<String>>,
    /// Absolute paths that the file re-exports all names of.
    glob_exports: Vec<Vec<String>>,
    /// The absolute paths that the file names.
    paths: Vec<Vec<String>>,
}

impl Library {
    fn read() -> Self {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut library = Self { files: BTreeMap::new() };
        library.add(Vec::new(), src.join("lib.rs"), &src);
        library
    }

    fn add(&mut self, module: Module, path: PathBuf, folder: &Path) {
        let source = fs::read_to_string(&path).unwrap();
        let syntax = syn::parse_file(&source).unwrap();
        for name in file_modules(&syntax.items) {
            let child = [module.clone(), vec![name.clone()]].concat();
            self.add(child, folder.join(format!("{name}.rs")), &folder.join(name));
        }
        let mut names = Names {
            module: module.clone(),
            depth: 0,
            file: File {
                path,
                exports: BTreeMap::new(),
                glob_exports: Vec::new(),
                paths: Vec::new(),
            },
        };
        names.visit_file(&syntax);
        self.files.insert(module, names.file);
    }

    /// The module whose file defines what a path names.
    fn definition(&self, path: &[String]) -> Module {
        self.lookup(path, 0).unwrap_or_default()
    }

    fn lookup(&self, path: &[String], hops: usize) -> Option<Module> {
        assert!(hops < 20, "re-exports of {} form a cycle", path.join("::"));
        let depth =
            (0..=path.len()).rev().find(|&depth| self.files.contains_key(&path[..depth]))?;
        let (module, rest) = path.split_at(depth);
        let Some(name) = rest.first() else { return Some(module.to_vec()) };
        let file = &self.files[module];
        if let Some(target) = file.exports.get(name) {
            return self.lookup(&[target, &rest[1..]].concat(), hops + 1);
        }
        Some(module.to_vec())
    }

    /// The modules whose files a module's file imports from.
    fn imports(&self, module: &Module) -> BTreeSet<Module> {
        let file = &self.files[module];
        let mut imports: BTreeSet<_> =
            file.paths.iter().map(|path| self.definition(path)).collect();
        imports.remove(module);
        imports
    }
}

/// The modules that items declare as files of their own.
fn file_modules(items: &[Item]) -> Vec<String> {
    let modules = items.iter().filter_map(|item| match item {
        Item::Mod(module) if module.content.is_none() => Some(module.ident.to_string()),
        _ => None,
    });
    modules.collect()
}

/// Gathers what a file names.
struct Names {
    module: Module,
    /// How deep in modules within the file the visit is.
    depth: usize,
    file: File,
}

impl Names {
    /// Makes a path absolute; `None` if it leads out of the crate. Modules within a file count as the
    /// file.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([&self.module, rest].concat()),
            "super" => {
                let supers = path.iter().take_while(|name| *name == "super").count();
                let up = supers.saturating_sub(self.depth);
                let base = &self.module[..self.module.len().checked_sub(up)?];
                Some([base, &path[supers..]].concat())
            }
            _ => None,
        }
    }

    fn leaves(tree: &UseTree, before: &[String]) -> Vec<(Vec<String>, Option<String>)> {
        let path = |name: &dyn ToString| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(tree) => Self::leaves(&tree.tree, &path(&tree.ident)),
            UseTree::Name(name) if name.ident == "self" => {
                vec![(before.to_vec(), before.last().cloned())]
            }
            UseTree::Name(name) => vec![(path(&name.ident), Some(name.ident.to_string()))],
            UseTree::Rename(name) => vec![(path(&name.ident), Some(name.rename.to_string()))],
            UseTree::Glob(_) => vec![(before.to_vec(), None)],
            UseTree::Group(group) => {
                group.items.iter().flat_map(|tree| Self::leaves(tree, before)).collect()
            }
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.depth += 1;
        syn::visit::visit_item_mod(self, module);
        self.depth -= 1;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let children = self.file.path.with_extension("");
        for (mut path, name) in Self::leaves(&item.tree, &[]) {
            // `pub use child::Item` names a module of this file.
            if path.len() > 1 && children.join(format!("{}.rs", path[0])).exists()
                || self.module.is_empty() && LAYERS.iter().any(|(layer, _)| *layer == path[0])
            {
                path.insert(0, "self".to_owned());
            }
            let Some(path) = self.absolute(&path) else { continue };
            if !matches!(item.vis, syn::Visibility::Inherited) {
                match name {
                    Some(name) => drop(self.file.exports.insert(name, path.clone())),
                    None => self.file.glob_exports.push(path.clone()),
                }
            }
            self.file.paths.push(path);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|name| name.ident.to_string()).collect();
        if names.len() > 1 {
            self.file.paths.extend(self.absolute(&names));
        }
        syn::visit::visit_path(self, path);
    }
}

fn check_arrows(library: &Library, below: &[&str], arrows: Arrows) {
    let part_of = |module: &Module| {
        let (above, rest) = module.split_at_checked(below.len())?;
        (above == below).then(|| rest.first().cloned())?
    };
    for (module, file) in &library.files {
        let Some(part) = part_of(module) else { continue };
        let (_, allowed) = arrows.iter().find(|(name, _)| *name == part).expect("a listed part");
        for imported in library.imports(module).iter().filter_map(part_of) {
            let is_fine = imported == part || allowed.contains(&imported.as_str());
            assert!(is_fine, "{} imports {imported}, which {part} may not", file.path.display());
        }
    }
}

#[test]
fn no_layer_imports_one_above_it() {
    check_arrows(&Library::read(), &[], LAYERS);
}

#[test]
fn no_room_of_the_broker_imports_one_that_it_may_not() {
    check_arrows(&Library::read(), &["broker"], ROOMS);
}

#[test]
fn no_two_files_import_each_other() {
    let library = Library::read();
    let imports: BTreeMap<_, _> =
        library.files.keys().map(|module| (module, library.imports(module))).collect();
    let mut cycles = Vec::new();
    for (one, imported) in &imports {
        for other in imported.iter().filter(|other| one < other) {
            if imports[other].contains(*one) {
                cycles.push(format!("{} ⇄ {}", one.join("::"), other.join("::")));
            }
        }
    }
    assert!(cycles.is_empty(), "{cycles:#?}");
}

#[test]
fn every_layer_and_every_room_is_listed() {
    let library = Library::read();
    let parts = |depth: usize, above: &[&str]| -> BTreeSet<String> {
        let modules = library.files.keys().filter(|module| module.len() == depth + 1);
        modules.filter(|module| module[..depth] == *above).map(|m| m[depth].clone()).collect()
    };
    let listed = |arrows: Arrows| arrows.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(parts(0, &[]), listed(LAYERS));
    assert_eq!(parts(1, &["broker"]), listed(ROOMS));
}

#[test]
fn a_crate_that_belongs_to_one_layer_is_named_nowhere_else() {
    for (module, file) in Library::read().files {
        let Some(layer) = module.first() else { continue };
        let text = fs::read_to_string(&file.path).unwrap();
        for (owned, owners) in OWNERS {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let named = code.filter(|line| !line.contains('"')).any(|line| line.contains(owned));
            let is_fine = !named || owners.contains(&layer.as_str());
            assert!(is_fine, "{} names {owned}", file.path.display());
        }
    }
}

#[test]
fn imports_are_found_in_groups_in_expressions_and_behind_re_exports() {
    let library = Library::read();
    let path = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
    // Re-exported by `broker`, and defined in a room of its own.
    assert_eq!(library.definition(&path("broker::Publisher")), path("broker::publish::queue"));
    assert_eq!(library.definition(&path("broker::Broker::start")), path("broker"));
    let imports = library.imports(&path("broker::publish::queue"));
    assert!(imports.contains(&path("broker::calls")) && imports.contains(&path("model::name")));
}
