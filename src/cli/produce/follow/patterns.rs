//! Which files are followed.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::Metadata,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};

use super::super::{super::failure::Failure, identity::Inode};

/// Suffixes of compressed files, which patterns do not match.
const COMPRESSED: [&str; 4] = ["gz", "bz2", "xz", "zst"];

/// A pattern matches within a folder.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// The files and patterns of the command line.
pub(super) struct Patterns {
    patterns: Vec<PathPattern>,
    /// Whether patterns match files that end in .gz.
    gzip: bool,
}

struct PathPattern {
    text: String,
    /// Whether it names one file, so that its suffix was chosen on purpose.
    is_literal: bool,
}

/// A file that is there.
#[derive(Clone, Debug)]
pub(super) struct FoundFile {
    pub(super) path: PathBuf,
    pub(super) inode: Inode,
    pub(super) size: u64,
    /// When it was last written to, in seconds and nanoseconds since 1970.
    pub(super) modified: (i64, i64),
    pub(super) is_gzip: bool,
}

impl FoundFile {
    pub(super) fn new(path: PathBuf, metadata: &Metadata) -> Self {
        let is_gzip = path.extension().is_some_and(|extension| extension == "gz");
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { path, inode: Inode::from(metadata), size: metadata.len(), modified, is_gzip }
    }
}

/// Whether a file is compressed, by its name.
pub(super) fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| COMPRESSED.iter().any(|known| extension == *known))
}

impl Patterns {
    pub(super) fn parse(files: &[OsString], gzip: bool) -> Result<Self, Failure> {
        let parse = |file: &OsString| {
            let text = file.to_str().ok_or_else(|| {
                Failure::usage(format!("--follow: the name {file:?} is not UTF-8"))
            })?;
            if text == "-" {
                return Err(Failure::usage("--follow needs files, and - is standard input"));
            }
            let path = std::path::absolute(text)
                .map_err(|error| Failure::refused(format!("find {text}: {error}")))?;
            let text = path.to_string_lossy().into_owned();
            let found = Path::new(&text).metadata().ok();
            if found.as_ref().is_some_and(|found| !found.is_file()) {
                return Err(Failure::usage(format!("--follow: {text} is not a regular file")));
            }
            let is_literal = found.is_some() || Pattern::escape(&text) == text;
            if !is_literal {
                Pattern::new(&text)
                    .map_err(|error| Failure::usage(format!("the pattern {text:?}: {error}")))?;
            }
            Ok(PathPattern { text, is_literal })
        };
        let patterns = files.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { patterns, gzip })
    }

    /// Whether a path is named, other than by a pattern.
    pub(super) fn names(&self, path: &Path) -> bool {
        let inode = |path: &Path| std::fs::metadata(path).ok().map(|it| Inode::from(&it));
        let Ok(path) = std::path::absolute(path) else { return false };
        let named = self.patterns.iter().filter(|pattern| pattern.is_literal);
        let mut named = named.map(|pattern| Path::new(&pattern.text));
        named.any(|name| name == path || (inode(name).is_some() && inode(name) == inode(&path)))
    }

    /// The patterns that match no file, for people.
    pub(super) fn unmatched(&self) -> Vec<&str> {
        let is_unmatched = |pattern: &&PathPattern| self.matches(pattern).is_empty();
        self.patterns.iter().filter(is_unmatched).map(|pattern| pattern.text.as_str()).collect()
    }

    /// The folders in which files may appear, as far as they are known.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let folder = |pattern: &PathPattern| {
            let folder = Path::new(&pattern.text).parent()?;
            folder.is_dir().then(|| folder.to_owned())
        };
        self.patterns.iter().filter_map(folder).collect()
    }

    /// The files that are there, each once however many names it has.
    pub(super) fn find(&self) -> Vec<FoundFile> {
        let mut found = BTreeMap::new();
        for pattern in &self.patterns {
            for path in self.matches(pattern) {
                let Ok(metadata) = std::fs::metadata(&path) else { continue };
                if metadata.is_file() {
                    let file = FoundFile::new(path, &metadata);
                    found.entry((file.inode.device, file.inode.inode)).or_insert(file);
                }
            }
        }
        let mut found: Vec<_> = found.into_values().collect();
        found.sort_by(|one, other| one.path.cmp(&other.path));
        found
    }

    fn matches(&self, pattern: &PathPattern) -> Vec<PathBuf> {
        if pattern.is_literal {
            let path = PathBuf::from(&pattern.text);
            return if path.exists() { vec![path] } else { Vec::new() };
        }
        let Ok(paths) = glob::glob_with(&pattern.text, OPTIONS) else { return Vec::new() };
        // A folder that cannot be read may become readable.
        paths.flatten().filter(|path| self.admits(pattern, path)).collect()
    }

    /// Whether a pattern stands for a file that it matches: compressed files are the copies of
    /// rotated ones, unless they are asked for.
    fn admits(&self, pattern: &PathPattern, path: &Path) -> bool {
        let Some(extension) = path.extension().filter(|_| is_compressed(path)) else { return true };
        let is_asked_for = Path::new(&pattern.text).extension() == Some(extension);
        is_asked_for || (self.gzip && extension == "gz")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_files_that_are_not_compressed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.log", "a.log.1", "a.log.2.gz", "a.log.3.xz", "b.txt", ".c.log"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        std::fs::create_dir(folder.path().join("d.log")).unwrap();
        let find = |patterns: &[&str], gzip| {
            let files: Vec<OsString> =
                patterns.iter().map(|pattern| folder.path().join(pattern).into()).collect();
            let found = Patterns::parse(&files, gzip).unwrap().find();
            let name =
                |file: FoundFile| file.path.file_name().unwrap().to_str().unwrap().to_owned();
            found.into_iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(find(&["*.log"], false), ["a.log"]);
        assert_eq!(find(&["a.log*"], false), ["a.log", "a.log.1"]);
        assert_eq!(find(&["a.log*"], true), ["a.log", "a.log.1", "a.log.2.gz"]);
        assert_eq!(find(&["a.log.*.gz"], false), ["a.log.2.gz"]);
        assert_eq!(
            find(&["a.log.2.gz", "a.log", "a.*"], false),
            ["a.log", "a.log.1", "a.log.2.gz"]
        );
        assert_eq!(find(&["none.log"], false), [""; 0]);
    }

    #[test]
    fn a_bad_pattern_is_refused() {
        for (pattern, problem) in [("/a/**b", "pattern"), ("-", "standard input")] {
            let refused = Patterns::parse(&[pattern.into()], false).err().unwrap();
            assert!(refused.message().contains(problem), "{}", refused.message());
        }
    }
}
