//! Every code block is run or compared, or is listed here with the reason why not.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::commands;
use crate::{
    sql_views,
    support::{Block, Document, root},
};

/// Languages of blocks that are no code, and what they are.
const NO_CODE: [(&str, &str); 2] =
    [("mermaid", "a diagram"), ("text", "a picture of folders or layers")];

/// Shell commands that no test runs as they stand, by what they begin with, and why.
const NOT_RUN: [(&str, &str); 8] = [
    ("make ", "a target that exists; CI runs it"),
    ("cargo test", "runs tests, of which this is one"),
    ("cargo install", "builds the command that the tests run"),
    ("kubectl ", "needs a cluster; scripts/check-ops checks the manifests"),
    ("sudo ", "changes the machine; scripts/check-deb does what it does"),
    ("cargo run --no-default-features", "clients/rust/test runs it"),
    (
        "benches/",
        "a script that exists, measures for minutes to hours, and begins in scripts/check-benches",
    ),
    ("../with-broker", "clients/test runs it"),
];

/// Pages whose shell blocks `clients/run-page` runs in their folder, as part of `clients/test`.
const CLIENT_PAGES: [&str; 4] = ["python", "typescript", "go", "java"];

/// Where the files lie that blocks of a language are excerpts of. All of them are compiled, and run
/// by the tests of the language.
const SOURCES: [(&str, &str, &str); 6] = [
    ("rs", "examples", "rs"),
    ("python", "clients/python", "py"),
    ("ts", "clients/typescript", "ts"),
    ("go", "clients/go", "go"),
    ("java", "clients/java", "java"),
    ("xml", "clients/java", "xml"),
];

/// First programs, which a page shows whole.
const WHOLE: [(&str, &str); 6] = [
    ("clients/rust/README.md", "examples/quickstart.rs"),
    ("clients/python/README.md", "clients/python/examples/quickstart.py"),
    ("clients/typescript/README.md", "clients/typescript/examples/quickstart.ts"),
    ("clients/go/README.md", "clients/go/examples/quickstart/main.go"),
    (
        "clients/java/README.md",
        "clients/java/examples/src/main/java/io/trunkline/examples/Quickstart.java",
    ),
    ("README.md", "examples/quickstart.rs"),
];

#[test]
fn every_code_block_is_run_or_compared_or_listed() {
    let mut unproven = Vec::new();
    for document in Document::all() {
        for block in document.blocks() {
            if let Err(problem) = prove(&document, &block) {
                unproven.push(format!("{}:{}: {problem}", document.path, block.line));
            }
        }
    }
    assert!(unproven.is_empty(), "{unproven:#?}");
}

#[test]
fn every_exception_is_needed() {
    let documents = Document::all();
    let blocks: Vec<Block> = documents.iter().flat_map(Document::blocks).collect();
    for (language, what) in NO_CODE {
        assert!(blocks.iter().any(|block| block.language == language), "no block is {what}");
    }
    let shell = blocks.iter().filter(|block| block.language == "sh");
    let commands: Vec<String> = shell.flat_map(|block| commands::of(&block.text)).collect();
    for (begin, _) in NOT_RUN {
        assert!(commands.iter().any(|it| it.starts_with(begin)), "no command begins with {begin}");
    }
}

/// Says how it is known that a block is true, or what is wrong with it.
fn prove(document: &Document, block: &Block) -> Result<&'static str, String> {
    if let Some((_, what)) = NO_CODE.iter().find(|(language, _)| *language == block.language) {
        return Ok(what);
    }
    match block.language.as_str() {
        "sh" | "python" if document.path == "docs/security.md" => Ok("clients/run-security"),
        "sh" => prove_commands(document, block),
        "sql" if sql_views::DOCUMENTS.contains(&document.path.as_str()) => Ok("sql_views.rs"),
        "psql" if document.path == "docs/sql.md" => Ok("sql_copies.rs"),
        "sql" if document.path == "docs/roles.md" => Ok("roles.rs"),
        "sql" if document.path == "docs/operations.md" => Ok("commands.rs"),
        "promql" if document.path == "docs/metrics.md" => Ok("scripts/check-ops"),
        "json" if document.path == "docs/logs.md" => Ok("log_catalogue.rs"),
        "alloy" | "yaml" if document.path == "docs/logs.md" => Ok("settings of other programs"),
        "" if document.path == "ARCHITECTURE.md" => Ok("a picture of the layers"),
        "toml" if document.path == "clients/rust/README.md" => Ok("clients/rust/test builds it"),
        language => match SOURCES.iter().find(|(known, ..)| *known == language) {
            Some((_, folder, extension)) => prove_excerpt(block, folder, extension),
            None => Err(format!("nothing runs blocks of the language {language:?} here")),
        },
    }
}

fn prove_commands(document: &Document, block: &Block) -> Result<&'static str, String> {
    for command in commands::of(&block.text) {
        let is_run = commands::DOCUMENTS.contains(&document.path.as_str());
        let has_runner = CLIENT_PAGES.iter().any(|it| document.path == client_page(it));
        if let Some((begin, _)) = not_run(&command) {
            prove_existence(begin, &command)?;
        } else if command.starts_with("grpcurl ") {
            // clients/grpcurl/test runs those of all documents.
        } else if !is_run && !has_runner {
            return Err(format!("nothing runs `{command}`"));
        }
    }
    Ok("its commands are run")
}

/// Whether a command is one that no test runs, and why.
pub(super) fn not_run(command: &str) -> Option<(&'static str, &'static str)> {
    NOT_RUN.into_iter().find(|(begin, _)| command.starts_with(begin))
}

fn client_page(language: &str) -> String {
    format!("clients/{language}/README.md")
}

/// What a command that is not run names must be there.
fn prove_existence(begin: &str, command: &str) -> Result<(), String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let exists = match begin {
        "make " => {
            let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
            words[1..].iter().all(|word| match word.split_once('=') {
                Some((variable, _)) => {
                    makefile.contains(&format!("$({variable})"))
                        || makefile.contains(&format!("$(or $({variable}),"))
                }
                None => makefile.contains(&format!("\n{word}:")),
            })
        }
        "benches/" => root().join(words[0]).is_file(),
        "kubectl " | "sudo " => {
            let mut files = words.iter().filter(|word| word.starts_with("ops/"));
            files.all(|file| root().join(file).exists())
        }
        _ => true,
    };
    exists.then_some(()).ok_or_else(|| format!("what `{command}` names is not there"))
}

/// A block must be a piece of one file, whatever its indentation.
fn prove_excerpt(block: &Block, folder: &str, extension: &str) -> Result<&'static str, String> {
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let wanted = lines(&block.text);
    let mut files = Vec::new();
    sources(&root().join(folder), extension, &mut files);
    let is_in = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        lines(&text).windows(wanted.len()).any(|piece| piece == wanted)
    };
    match files.iter().any(is_in) {
        true => Ok("an excerpt"),
        false => Err(format!("no file .{extension} in {folder} has this piece")),
    }
}

fn sources(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with('.') || ["node_modules", "target", "gen"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            sources(&path, extension, found);
        } else if name.ends_with(&format!(".{extension}")) {
            found.push(path);
        }
    }
}

/// Each language's suite runs its first program as it stands.
#[test]
fn pages_show_the_first_programs_whole() {
    for (page, program) in WHOLE {
        let text = fs::read_to_string(root().join(program)).unwrap();
        let shown = format!("\n{}\n```", text.trim_end());
        assert!(
            Document::read(page).text.contains(&shown),
            "{page} does not show {program} as it is"
        );
    }
}

#[test]
fn a_block_that_nothing_proves_is_found() {
    let page = |path: &str, text: &str| Document { path: path.to_owned(), text: text.to_owned() };
    for (path, text, is_proven) in [
        ("docs/new.md", "```sh\ntrunkline topic list\n```", false),
        ("docs/tour.md", "```sh\ntrunkline topic list\n```", true),
        ("docs/new.md", "```sh\nmake run\n```", true),
        ("docs/new.md", "```sh\nmake nothing\n```", false),
        ("docs/new.md", "```sh\nmake soak SECONDS=1\n```", true),
        ("docs/new.md", "```sh\nmake soak NOTHING=1\n```", false),
        ("docs/new.md", "```sh\nbenches/nothing\n```", false),
        ("docs/new.md", "```sh\nkubectl apply -f ops/kubernetes\n```", true),
        ("docs/new.md", "```sh\nkubectl apply -f ops/nothing\n```", false),
        ("docs/new.md", "```sql\nselect 1;\n```", false),
        ("docs/new.md", "```rs\nlet client = nothing();\n```", false),
        ("docs/new.md", "```rs\nproducer.close().await?;\n```", true),
        ("docs/new.md", "```\nanything\n```", false),
        ("docs/new.md", "```text\nanything\n```", true),
    ] {
        let document = page(path, text);
        let proof = prove(&document, &document.blocks()[0]);
        assert_eq!(proof.is_ok(), is_proven, "{text}: {proof:?}");
    }
}
