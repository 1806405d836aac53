//! The documents say what is true: their code blocks are run or compared, their links lead
//! somewhere, and the README stays short.

mod blocks;
mod commands;

use std::collections::BTreeSet;

use crate::support::{Document, root};

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
