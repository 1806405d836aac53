//! The documents say what is true: their code blocks are run or compared, their links lead
//! somewhere, and the README stays short.

mod blocks;
mod commands;
mod deployments;

use std::{collections::BTreeSet, fs};

use crate::support::{Document, Trunkline, root};

/// The most that a README takes to be read.
const MAX_README_BYTES: usize = 9 * 1024;

#[test]
fn the_readme_is_short() {
    let bytes = Document::read("README.md").text.len();
    assert!(bytes <= MAX_README_BYTES, "README.md has {bytes} bytes: move something to docs");
}

#[test]
fn every_relative_link_and_anchor_leads_somewhere() {
    let mut broken = Vec::new();
    for document in Document::all() {
        for link in document.links() {
            if !link.contains("://") && !leads_somewhere(&document, &link) {
                broken.push(format!("{}: {link}", document.path));
            }
        }
    }
    assert!(broken.is_empty(), "broken links: {broken:#?}");
}

fn leads_somewhere(document: &Document, link: &str) -> bool {
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, it)| (file, Some(it)));
    let path = match file {
        "" => root().join(&document.path),
        file => document.folder().join(file),
    };
    let Ok(path) = path.canonicalize() else { return false };
    let Some(anchor) = anchor else { return true };
    let path = path.strip_prefix(root().canonicalize().unwrap()).unwrap().to_owned();
    Document::read(path.to_str().unwrap()).anchors().iter().any(|it| it == anchor)
}

/// A page that nobody links to is not read.
#[test]
fn every_page_of_docs_is_linked_from_the_readme() {
    let links: BTreeSet<_> = Document::read("README.md").links().into_iter().collect();
    for document in Document::all() {
        let is_page = document.path.starts_with("docs/");
        assert!(!is_page || links.contains(&document.path), "nothing leads to {}", document.path);
    }
}

#[test]
fn anchors_are_those_of_github() {
    let text = "# A `b` and C's *d*\n```sh\n# no heading\n```\n## Same\n## Same\n#none\n";
    let document = Document { path: "x.md".to_owned(), text: text.to_owned() };
    assert_eq!(document.anchors(), ["a-b-and-cs-d", "same", "same-1"]);
}

/// A reader of the README looks a promise up in the semantics, which says where it ends.
#[test]
fn the_readme_and_the_semantics_promise_the_same() {
    let promises = |path| {
        let text = Document::read(path).text;
        let numbered = text.lines().filter_map(|line| line.split_once(". **"));
        let numbered = numbered.filter(|(number, _)| number.parse::<u8>().is_ok());
        let title = |(number, rest): (&str, &str)| {
            let title = rest.split("**").next().unwrap().trim_end_matches(['.', ':']);
            format!("{number}. {title}")
        };
        numbered.map(title).collect::<Vec<_>>()
    };
    assert_eq!(promises("README.md"), promises("docs/semantics.md"));
    assert!(!promises("README.md").is_empty());
}

#[test]
fn every_reason_of_an_error_is_documented() {
    let text = Document::read("docs/semantics.md").text;
    let (_, errors) = text.split_once("\n## Errors\n").unwrap();
    let (errors, _) = errors.split_once("\n## ").unwrap();
    let rows = errors.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let documented: BTreeSet<&str> =
        rows.flat_map(|(_, reasons)| reasons.split('`').skip(1).step_by(2)).collect();
    let read = |path| fs::read_to_string(root().join(path)).unwrap();
    let sources = ["", "/describe", "/limits"];
    let source = sources.map(|file| read(format!("src/grpc/status{file}.rs"))).concat();
    let literals = source.split('"').skip(1).step_by(2);
    // Two are no reasons, but kinds of preconditions.
    let is_reason = |text: &&str| {
        text.len() > 1
            && text.chars().all(|c| c.is_ascii_uppercase() || c == '_')
            && !["LEASE", "EPOCH"].contains(text)
    };
    let reasons: BTreeSet<&str> = literals.filter(is_reason).collect();
    // What is hidden is a reason of the audit only: callers are told that it does not exist.
    let (audited, given): (BTreeSet<&str>, BTreeSet<&str>) =
        reasons.into_iter().partition(|reason| reason.ends_with("_HIDDEN"));
    assert_eq!(documented, given);
    let access = Document::read("docs/access.md").text;
    assert!(audited.iter().all(|reason| access.contains(&format!("`{reason}`"))), "{audited:?}");
}

#[tokio::test]
async fn every_flag_and_variable_of_the_broker_is_documented() {
    let text = Document::read("docs/configuration.md").text;
    let help = Trunkline::run(&["serve", "--help"]).await.stdout;
    let words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    let named = words.filter(|word| word.starts_with("TRUNKLINE_") || word.starts_with("--"));
    let missing: BTreeSet<&str> = named
        .filter(|word| !["--help", "--version"].contains(word))
        .filter(|word| !text.contains(&format!("`{word}`")))
        .collect();
    assert!(missing.is_empty(), "docs/configuration.md does not name {missing:?}");
}
