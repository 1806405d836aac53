//! The documents: their links, headings and code blocks.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Markdown file of the repository.
pub struct Document {
    /// Its path from the root.
    pub path: String,
    pub text: String,
}

/// A fenced code block.
pub struct Block {
    /// The line of the opening fence; lines count from 1.
    pub line: usize,
    /// What the fence says, such as `sh`; may be empty.
    pub language: String,
    pub text: String,
}

impl Document {
    pub fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path));
        Self { path: path.to_owned(), text: text.unwrap_or_else(|error| panic!("{path}: {error}")) }
    }

    /// Every document of the repository.
    pub fn all() -> Vec<Self> {
        let mut paths = Vec::new();
        find(root(), &mut paths);
        paths.sort();
        let relative = |path: &PathBuf| path.strip_prefix(root()).unwrap().to_owned();
        paths.iter().map(|path| Self::read(relative(path).to_str().unwrap())).collect()
    }

    /// The folder that relative links start from.
    pub fn folder(&self) -> PathBuf {
        root().join(&self.path).parent().unwrap().to_owned()
    }

    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut is_open = false;
        for (number, line) in self.text.lines().enumerate() {
            match line.strip_prefix("```") {
                Some(_) if is_open => is_open = false,
                Some(language) => {
                    let (line, language) = (number + 1, language.trim().to_owned());
                    blocks.push(Block { line, language, text: String::new() });
                    is_open = true;
                }
                None if is_open => {
                    let block = blocks.last_mut().unwrap();
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                None => {}
            }
        }
        assert!(!is_open, "{}: a code block has no end", self.path);
        blocks
    }

    /// The texts of the blocks in a language.
    pub fn blocks_in(&self, language: &str) -> Vec<String> {
        let blocks = self.blocks().into_iter().filter(|block| block.language == language);
        blocks.map(|block| block.text).collect()
    }

    /// The targets of all links.
    pub fn links(&self) -> Vec<String> {
        let mut links = Vec::new();
        for line in self.prose() {
            let text = without_code(line);
            let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            links.extend(targets.map(str::to_owned));
        }
        links
    }

    /// The anchors that GitHub gives to the headings.
    pub fn anchors(&self) -> Vec<String> {
        let mut anchors: Vec<String> = Vec::new();
        for line in self.prose() {
            let title = line.trim_start_matches('#');
            if title.len() == line.len() || !title.starts_with(' ') {
                continue;
            }
            let anchor: String = title
                .trim()
                .chars()
                .filter_map(|c| match c {
                    ' ' => Some('-'),
                    '-' | '_' => Some(c),
                    c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
                    _ => None,
                })
                .collect();
            let earlier = anchors.iter().filter(|it| **it == anchor).count();
            anchors.push(if earlier == 0 { anchor } else { format!("{anchor}-{earlier}") });
        }
        anchors
    }

    /// The lines outside of code blocks.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let mut is_code = false;
        self.text.lines().filter(move |line| {
            let is_fence = line.starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        })
    }
}

/// A line without what stands between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// Finds the documents, but not those of tools and of what was built.
fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    const FOREIGN: [&str; 3] = ["target", "node_modules", "trunkline-data"];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with('.') || FOREIGN.contains(&name) {
            continue;
        }
        if path.is_dir() {
            find(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}
