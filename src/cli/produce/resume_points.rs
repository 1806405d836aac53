//! Finds out where each file is continued.

use std::io;

use super::{
    super::failure::{Failure, print_notice},
    file_state::{FileState, NamedFile},
    identity::{self, Inode, Position},
    input::RegularFile,
    message::Rule,
};

/// Where a file is continued.
#[derive(Default)]
pub(super) struct ResumePoint {
    pub(super) position: Position,
    /// Messages after the position that are stored as well.
    pub(super) unsettled: Option<Unsettled>,
}

/// Messages that were stored after the state was written.
#[derive(Clone)]
pub(super) struct Unsettled {
    pub(super) count: u64,
    /// How lines became those messages.
    pub(super) rule: Rule,
    /// Whether the last of them is the producer's last message.
    pub(super) is_last: bool,
}

/// What to do about files that are not as they were left.
#[derive(Clone, Copy)]
pub(super) struct Choices {
    /// Ship all files from their beginning.
    pub(super) restart: bool,
    /// Continue in a file that has the content of another one.
    pub(super) same_file: bool,
}

/// A search for the positions of a run's files.
pub(super) struct Search<'a> {
    /// What is known of the files; the most recent is last.
    pub(super) files: &'a mut Vec<FileState>,
    /// All inputs of the run.
    pub(super) inputs: &'a [NamedFile<'a>],
    pub(super) choices: Choices,
    /// Whether the run keeps bad lines.
    pub(super) keeps_bad_lines: bool,
    /// Whether the producer's last message comes from the last of the files, after its position.
    pub(super) is_last_unsettled: bool,
}

/// A known file whose content an input has.
struct Original {
    /// Its index.
    at: usize,
    /// Whether the file itself still has the content as well.
    still_exists: bool,
}

impl Search<'_> {
    /// Finds out where a file is continued, and prints why if it is not simply continued.
    pub(super) fn resume_point(&mut self, input: NamedFile<'_>) -> Result<ResumePoint, Failure> {
        let NamedFile { name, file } = input;
        let failed = |error| Failure::refused(format!("read {name}: {error}"));
        let found = self.find(file).map_err(failed)?;
        let mut replaced = None;
        if let Some(at) = found {
            let FileState { head, position, .. } = &self.files[at];
            let is_same =
                identity::leads_to(&file.file, head.as_ref(), position).map_err(failed)?;
            match (is_same, self.choices.restart) {
                (true, true) => drop(self.files.remove(at)),
                (true, false) => return self.continue_at(at, input),
                (false, _) => {
                    replaced = Some(position.offset);
                    // A copy may still have the content: `copytruncate` creates one.
                    self.files[at].inode = Inode::NONE;
                }
            }
        }
        if self.choices.restart {
            return Ok(ResumePoint::default());
        }
        // Even a known inode may have belonged to another file before, so the input may be a copy.
        let Some(original) = self.find_original(file).map_err(failed)? else {
            match replaced {
                Some(shipped) => print_notice(&format!(
                    "{name} has been truncated or replaced since {shipped} bytes of it were \
                     shipped: shipping it from its beginning"
                )),
                None => self.report_rotation(input),
            }
            return Ok(ResumePoint::default());
        };
        let begins = self.files[original.at].describe_copy(name);
        if original.still_exists {
            print_notice(&format!(
                "{begins}, which still has them: shipping it from its beginning"
            ));
            return Ok(ResumePoint::default());
        }
        if self.choices.same_file {
            return self.continue_at(original.at, input);
        }
        Err(Failure::refused(format!(
            "{begins}, which is gone or has other content now: nothing was sent; --same-file \
             continues after them, --restart ships it from its beginning"
        )))
    }

    /// The index of a file. Devices may be renumbered by a restart of the machine: then the content
    /// decides.
    fn find(&self, file: &RegularFile) -> io::Result<Option<usize>> {
        if let Some(at) = self.files.iter().rposition(|known| known.inode == file.inode) {
            return Ok(Some(at));
        }
        for (at, known) in self.files.iter().enumerate().rev() {
            if known.inode.inode == file.inode.inode && known.is_begun_in(&file.file)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// The known file whose content this one has: it is a copy, or a new file that happens to begin
    /// with the same lines. A known file that has lost the content itself takes precedence.
    fn find_original(&self, file: &RegularFile) -> io::Result<Option<Original>> {
        let mut existing = None;
        for (at, known) in self.files.iter().enumerate().rev() {
            if known.is_begun_in(&file.file)? {
                if !known.still_exists(self.inputs) {
                    return Ok(Some(Original { at, still_exists: false }));
                }
                existing = existing.or(Some(Original { at, still_exists: true }));
            }
        }
        Ok(existing)
    }

    /// Continues a file where a known one was left.
    fn continue_at(&mut self, at: usize, input: NamedFile<'_>) -> Result<ResumePoint, Failure> {
        let is_last = self.is_last_unsettled && at + 1 == self.files.len();
        let known = &mut self.files[at];
        known.check_bad_lines(input.name, self.keeps_bad_lines)?;
        known.inode = input.file.inode;
        known.path = input.file.path.to_string_lossy().into_owned();
        let count = known.unsettled;
        let rule = known.rule.clone();
        let unsettled = (count > 0).then_some(Unsettled { count, rule, is_last });
        Ok(ResumePoint { position: known.position.clone(), unsettled })
    }

    /// If another file was shipped from this path, prints that, and where the rest of it is.
    fn report_rotation(&self, NamedFile { name, file }: NamedFile<'_>) {
        let mut known = self.files.iter().rev();
        let is_here = |known: &FileState| *known.path == *file.path.to_string_lossy();
        // If the content was replaced, that has been printed already.
        let Some(old) = known.find(|known| is_here(known)).filter(|old| old.inode != Inode::NONE)
        else {
            return;
        };
        let mut notice = format!(
            "{name} is not the file that was shipped before: shipping it from its beginning"
        );
        let is_given = self.inputs.iter().any(|input| input.file.inode == old.inode);
        let renamed = identity::find_beside(&file.path, old.inode).filter(|_| !is_given);
        if let Some(path) = renamed
            && let Ok(rest @ 1..) = old.rest_in(&path)
        {
            let path = path.display();
            notice.push_str(&format!(
                "; the old one is {path}, and up to {rest} bytes at its end are not shipped: to \
                 ship them, name it before {name}"
            ));
        }
        print_notice(&notice);
    }
}
