//! What the README shows of other files is what is in them.

use std::{fs, path::Path};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Each language's suite runs its first program as it stands.
#[test]
fn the_readme_shows_the_first_programs_as_they_are() {
    let readme = read("README.md");
    for (kind, path) in [
        ("rs", "examples/quickstart.rs"),
        ("python", "clients/python/examples/quickstart.py"),
        ("ts", "clients/typescript/examples/quickstart.ts"),
        ("go", "clients/go/examples/quickstart/main.go"),
        ("java", "clients/java/examples/src/main/java/io/trunkline/examples/Quickstart.java"),
    ] {
        let shown = format!("```{kind}\n{}\n```", read(path).trim_end());
        assert!(readme.contains(&shown), "the README does not show {path} as it is");
    }
}

#[test]
fn every_link_of_the_readme_to_a_file_leads_somewhere() {
    let documents = [
        "README.md",
        "ARCHITECTURE.md",
        "docs/roles.md",
        "docs/shipping.md",
        "docs/sql.md",
        "proto/README.md",
    ];
    for document in documents {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        let folder = folder.parent().unwrap();
        let text = read(document);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http") && !link.starts_with('#')) {
            let file = link.split('#').next().unwrap();
            assert!(folder.join(file).exists(), "{document} links to {link}");
        }
    }
}
