//! How far a file was shipped, and whether another file has the same content.

use std::{fmt, fs::File, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    super::failure::Failure,
    identity::{self, Fingerprint, Inode, Position},
    input::RegularFile,
    message::{OnBadLine, Rule},
};

/// How far a file was shipped.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileState {
    pub(super) path: String,
    /// [`Inode::NONE`] once the file's content has changed: a copy may still have the old content.
    pub(super) inode: Inode,
    /// The file's beginning, as far as it was shipped.
    pub(super) head: Option<Fingerprint>,
    pub(super) position: Position,
    /// The number of messages after the position that are stored as well.
    pub(super) unsettled: u64,
    /// Where the last run began: if the database loses messages, they are shipped again from here.
    pub(super) began: RunStart,
    /// How the last run turned lines into messages.
    pub(super) rule: Rule,
    /// Where the last run kept skipped and cut lines, if it kept them.
    #[serde(default)]
    pub(super) bad_lines: Option<BadLinesDestination>,
}

/// Where a run began.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunStart {
    pub(super) sequence: i64,
    pub(super) position: Position,
}

/// Where skipped and cut lines are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BadLinesDestination {
    File(String),
    Topic(String),
}

/// The flag that sets the destination.
impl fmt::Display for BadLinesDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "--bad-lines-file {path}"),
            Self::Topic(topic) => write!(f, "--bad-lines-topic {topic}"),
        }
    }
}

/// A file as it was named on the command line.
#[derive(Clone, Copy)]
pub(super) struct NamedFile<'a> {
    pub(super) name: &'a str,
    pub(super) file: &'a RegularFile,
}

impl FileState {
    /// Refuses to count off stored messages if the last run kept bad lines and this one does not.
    pub(super) fn check_bad_lines(&self, name: &str, keeps: bool) -> Result<(), Failure> {
        let Some(kept) = self.bad_lines.as_ref().filter(|_| self.unsettled > 0 && !keeps) else {
            return Ok(());
        };
        let what = if self.rule.on_bad_line == OnBadLine::Cut { "cut" } else { "skip" };
        Err(Failure::usage(format!(
            "the last run did not end well, and what it stored of {name} is counted off: give \
             --on-bad-line {what} and {kept} as it did, so that bad lines among it are kept"
        )))
    }

    /// Whether a file begins with what was shipped of this one. After a run that was killed early,
    /// only the beginning of what it read may be known.
    pub(super) fn is_begun_in(&self, file: &File) -> io::Result<bool> {
        let is_known = self.position.offset > 0 || (self.unsettled > 0 && self.head.is_some());
        Ok(is_known && identity::leads_to(file, self.head.as_ref(), &self.position)?)
    }

    /// Whether the file itself still has the content that was shipped. The inode alone does not
    /// show that, as `copytruncate` keeps it. A file that cannot be read counts as gone, so that a
    /// copy of it is not shipped by mistake.
    pub(super) fn still_exists(&self, inputs: &[NamedFile<'_>]) -> bool {
        let has_content = |file: &File| self.is_begun_in(file).unwrap_or(false);
        match inputs.iter().find(|input| input.file.inode == self.inode) {
            Some(input) => has_content(&input.file.file),
            None => identity::find_beside(self.path.as_ref(), self.inode)
                .is_some_and(|path| File::open(path).is_ok_and(|file| has_content(&file))),
        }
    }

    /// What another file has in common with this one, for people.
    pub(super) fn describe_copy(&self, name: &str) -> String {
        let path = &self.path;
        match self.position.offset {
            0 => format!(
                "{name} begins with lines of {path}, {} of which are stored",
                self.unsettled
            ),
            shipped => {
                format!("{name} begins with the {shipped} bytes that were shipped of {path}")
            }
        }
    }

    /// The number of bytes after the position in a file that may be this one; 0 if it is not.
    pub(super) fn rest_in(&self, path: &Path) -> io::Result<u64> {
        let file = File::open(path)?;
        match identity::leads_to(&file, self.head.as_ref(), &self.position)? {
            true => Ok(file.metadata()?.len().saturating_sub(self.position.offset)),
            false => Ok(0),
        }
    }
}
