//! Which lines of which files are stored: where each file goes on, and what is written down of it.

use std::{fs::File, io, path::Path};

use super::{
    super::failure::{Failure, say},
    identity::{self, Inode, Position, Print},
    input::{Input, RegularFile},
    message::Rule,
    state::{BadLinesIn, Began, FileState, State, StateFile},
};
use crate::proto::Producer;

/// What the state file says, brought in line with what the broker says.
pub(super) struct Ledger {
    file: StateFile,
    state: State,
    rule: Rule,
    bad_lines: Option<BadLinesIn>,
    inputs: Vec<Tracked>,
    /// Whether the state knows of what the producer has stored.
    is_known: bool,
    /// Whether the producer's last message comes from the last of the files, beyond what the state
    /// said of it.
    is_last_doubted: bool,
}

/// An input whose place is kept.
struct Tracked {
    inode: Inode,
    path: String,
}

/// A name on the command line and the file that it stands for.
type Named<'a> = (&'a str, &'a RegularFile);

/// An entry whose content another file has.
struct Twin {
    at: usize,
    /// Whether the entry's own file still has the content as well.
    lives_on: bool,
}

/// What is done about files that are not as they were left.
#[derive(Clone, Copy)]
pub(super) struct Choices {
    /// All files are shipped from their beginning.
    pub(super) restart: bool,
    /// A file with the content of another one is that one.
    pub(super) same_file: bool,
}

/// Where a file goes on.
#[derive(Default)]
pub(super) struct Place {
    pub(super) position: Position,
    /// Messages from behind the position that are stored as well.
    pub(super) unsettled: Option<Unsettled>,
}

/// Messages that are stored beyond what was written down.
#[derive(Clone)]
pub(super) struct Unsettled {
    pub(super) count: u64,
    /// How lines became those messages.
    pub(super) rule: Rule,
    /// Whether the last of them is the producer's last message.
    pub(super) is_last: bool,
}

impl Ledger {
    /// A ledger of a producer as the broker knows it.
    pub(super) fn open(
        file: StateFile,
        producer: &Producer,
        rule: Rule,
        bad_lines: Option<BadLinesIn>,
        choices: Choices,
    ) -> Result<Self, Failure> {
        let state = State::new(producer);
        let known = known(&file, &state)?;
        let is_known = known.as_ref().is_some_and(|state| !state.files.is_empty());
        let state = known.unwrap_or(state);
        let inputs = Vec::new();
        let is_last_doubted = false;
        let mut ledger = Self { file, state, rule, bad_lines, inputs, is_known, is_last_doubted };
        ledger.settle(producer, choices.restart)?;
        ledger.state.next_sequence = producer.next_sequence;
        ledger.state.shipping = false;
        Ok(ledger)
    }

    /// Whether the state knows of what the producer has stored.
    pub(super) fn is_known(&self) -> bool {
        self.is_known
    }

    /// The state file, as it was: nothing is written before lines are sent.
    pub(super) fn into_file(self) -> StateFile {
        self.file
    }

    /// Where the state lies, for people.
    pub(super) fn path(&self) -> String {
        self.file.path().display().to_string()
    }

    /// Brings what was written down in line with how many messages the broker has.
    fn settle(&mut self, producer: &Producer, restart: bool) -> Result<(), Failure> {
        let (noted, stored) = (self.state.next_sequence, producer.next_sequence);
        let id = &producer.producer_id;
        let was_shipping = self.state.shipping;
        let Some(last) = self.state.files.last_mut() else { return Ok(()) };
        if stored < noted {
            if restart {
                return Ok(());
            }
            if last.began.sequence > stored {
                return Err(Failure::refused(format!(
                    "the topic holds {stored} messages of producer {id}, and {noted} were \
                     acknowledged: its database has lost the others, from before the last run; \
                     --restart ships the files from their beginning"
                )));
            }
            say(&format!(
                "the database has lost {} messages that it had acknowledged: they are shipped again",
                noted - stored
            ));
            last.position = last.began.position.clone();
            last.unsettled = stored.abs_diff(last.began.sequence);
        } else if was_shipping {
            last.unsettled += stored.abs_diff(noted);
        } else if stored > noted {
            say(&format!(
                "{} messages were published as producer {id} without --resume",
                stored - noted
            ));
            return Ok(());
        }
        self.is_last_doubted = last.unsettled > 0;
        Ok(())
    }

    /// Finds out where the files go on; what is decided of each is said.
    pub(super) fn places(
        &mut self,
        inputs: &[Input],
        choices: Choices,
    ) -> Result<Vec<Place>, Failure> {
        let files = inputs.iter().filter_map(|input| Some((input.name.as_str(), input.file()?)));
        let files: Vec<Named<'_>> = files.collect();
        for (_, RegularFile { inode, path, .. }) in &files {
            let path = path.to_string_lossy().into_owned();
            self.inputs.push(Tracked { inode: *inode, path });
        }
        files.iter().map(|file| self.place(*file, &files, choices)).collect()
    }

    fn place(
        &mut self,
        (name, file): Named<'_>,
        inputs: &[Named<'_>],
        choices: Choices,
    ) -> Result<Place, Failure> {
        let failed = |error| Failure::refused(format!("read {name}: {error}"));
        let found = self.find(file).map_err(failed)?;
        let mut replaced = None;
        if let Some(at) = found {
            let FileState { head, position, .. } = &self.state.files[at];
            let is_same =
                identity::leads_to(&file.file, head.as_ref(), position).map_err(failed)?;
            match (is_same, choices.restart) {
                (true, true) => drop(self.state.files.remove(at)),
                (true, false) => return self.go_on(at, (name, file)),
                (false, _) => {
                    replaced = Some(position.offset);
                    // A copy may have the content still, as `copytruncate` makes one.
                    self.state.files[at].inode = Inode::NONE;
                }
            }
        }
        if choices.restart {
            return Ok(Place::default());
        }
        // The inode may have been another file's before, so a copy is looked for in any case.
        let Some(twin) = self.find_twin(file, inputs).map_err(failed)? else {
            match replaced {
                Some(shipped) => say(&format!(
                    "{name} has been cut off or replaced since {shipped} bytes of it were \
                     shipped: from its beginning"
                )),
                None => self.say_if_rotated(name, file),
            }
            return Ok(Place::default());
        };
        let begins = self.state.files[twin.at].told_of_another(name);
        if twin.lives_on {
            say(&format!("{begins}, which has them still: from its beginning"));
            return Ok(Place::default());
        }
        if choices.same_file {
            return self.go_on(twin.at, (name, file));
        }
        Err(Failure::refused(format!(
            "{begins}, which is gone or has other content now: nothing was sent; --same-file goes \
             on behind them, --restart ships it from its beginning"
        )))
    }

    /// The entry of a file. A device may have another number after a restart: then the content
    /// decides.
    fn find(&self, file: &RegularFile) -> io::Result<Option<usize>> {
        let files = &self.state.files;
        if let Some(at) = files.iter().rposition(|entry| entry.inode == file.inode) {
            return Ok(Some(at));
        }
        for (at, entry) in files.iter().enumerate().rev() {
            if entry.inode.inode == file.inode.inode && entry.is_begun_in(&file.file)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// The entry whose content this file has: it is a copy, or a new file that happens to begin with
    /// the same lines. An entry whose own file has lost the content comes first.
    fn find_twin(&self, file: &RegularFile, inputs: &[Named<'_>]) -> io::Result<Option<Twin>> {
        let mut living = None;
        for (at, entry) in self.state.files.iter().enumerate().rev() {
            if entry.is_begun_in(&file.file)? {
                if !entry.lives_on(inputs) {
                    return Ok(Some(Twin { at, lives_on: false }));
                }
                living = living.or(Some(Twin { at, lives_on: true }));
            }
        }
        Ok(living)
    }

    fn go_on(&mut self, at: usize, (name, file): Named<'_>) -> Result<Place, Failure> {
        let is_last = self.is_last_doubted && at + 1 == self.state.files.len();
        let entry = &mut self.state.files[at];
        entry.check_bad_lines(name, self.bad_lines.is_some())?;
        entry.inode = file.inode;
        entry.path = file.path.to_string_lossy().into_owned();
        let count = entry.unsettled;
        let rule = entry.rule.clone();
        let unsettled = (count > 0).then_some(Unsettled { count, rule, is_last });
        Ok(Place { position: entry.position.clone(), unsettled })
    }

    /// Says so if another file was shipped from this path, and where the rest of that one lies.
    fn say_if_rotated(&self, name: &str, file: &RegularFile) {
        let mut entries = self.state.files.iter().rev();
        let is_here = |entry: &FileState| *entry.path == *file.path.to_string_lossy();
        // If the content was replaced, that has been said.
        let Some(old) = entries.find(|entry| is_here(entry)).filter(|old| old.inode != Inode::NONE)
        else {
            return;
        };
        let mut told =
            format!("{name} is another file than the one shipped before: from its beginning");
        let is_given = self.inputs.iter().any(|input| input.inode == old.inode);
        let renamed = identity::find_beside(&file.path, old.inode).filter(|_| !is_given);
        if let Some(path) = renamed
            && let Ok(rest @ 1..) = old.rest_in(&path)
        {
            let path = path.display();
            told.push_str(&format!(
                "; the old one is {path}, and up to {rest} bytes at its end are not shipped: name \
                 it before {name}, and they are"
            ));
        }
        say(&told);
    }

    /// Lines from behind a position are about to be sent. All that was sent before is answered.
    pub(super) fn begin(
        &mut self,
        input: usize,
        at: Position,
        head: &[u8],
        sequence: i64,
    ) -> Result<(), Failure> {
        let began = Began { sequence, position: at.clone() };
        self.note(input, at, head, Some(began));
        self.state.next_sequence = sequence;
        self.state.shipping = true;
        self.file.save(&self.state)
    }

    /// All up to a position is dealt with; more may be under way if it is `shipping`.
    pub(super) fn advance(
        &mut self,
        input: usize,
        at: Position,
        head: &[u8],
        sequence: i64,
        shipping: bool,
    ) -> Result<(), Failure> {
        self.note(input, at, head, None);
        self.state.next_sequence = sequence;
        self.state.shipping = shipping;
        self.file.save(&self.state)
    }

    /// Nothing is under way any more.
    pub(super) fn close(&mut self, sequence: i64) -> Result<(), Failure> {
        self.state.next_sequence = sequence;
        self.state.shipping = false;
        // A state without files would say that nothing is known to be stored.
        if self.state.files.is_empty() {
            return Ok(());
        }
        self.file.save(&self.state)
    }

    /// Writes a file's entry, which becomes the last one.
    fn note(&mut self, input: usize, position: Position, head: &[u8], began: Option<Began>) {
        let Tracked { inode, path } = &self.inputs[input];
        let files = &mut self.state.files;
        let old = files.iter().position(|entry| entry.inode == *inode).map(|at| files.remove(at));
        let began = began.or(old.map(|old| old.began));
        files.push(FileState {
            path: path.clone(),
            inode: *inode,
            head: (!head.is_empty()).then(|| Print::of(0, head)),
            began: began.unwrap_or(Began {
                sequence: self.state.next_sequence,
                position: position.clone(),
            }),
            position,
            unsettled: 0,
            rule: self.rule.clone(),
            bad_lines: self.bad_lines.clone(),
        });
        self.state.prune(self.inputs.len());
    }
}

impl FileState {
    /// Whether a file begins with what was shipped of this one. Of a run that was killed early,
    /// nothing but the beginning of what it read may be known.
    fn is_begun_in(&self, file: &File) -> io::Result<bool> {
        let is_known = self.position.offset > 0 || (self.unsettled > 0 && self.head.is_some());
        Ok(is_known && identity::leads_to(file, self.head.as_ref(), &self.position)?)
    }

    /// Whether the file itself still has what was shipped of it: its inode alone says nothing, as
    /// `copytruncate` keeps it. A file that cannot be read counts as gone, so that no copy of it is
    /// shipped by mistake.
    fn lives_on(&self, inputs: &[Named<'_>]) -> bool {
        let holds = |file: &File| self.is_begun_in(file).unwrap_or(false);
        match inputs.iter().find(|(_, input)| input.inode == self.inode) {
            Some((_, input)) => holds(&input.file),
            None => identity::find_beside(self.path.as_ref(), self.inode)
                .is_some_and(|path| File::open(path).is_ok_and(|file| holds(&file))),
        }
    }

    /// What another file has in common with this one, for people.
    fn told_of_another(&self, name: &str) -> String {
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

    /// How many bytes lie behind the position in a file that may be this one.
    fn rest_in(&self, path: &Path) -> io::Result<u64> {
        let file = File::open(path)?;
        match identity::leads_to(&file, self.head.as_ref(), &self.position)? {
            true => Ok(file.metadata()?.len().saturating_sub(self.position.offset)),
            false => Ok(0),
        }
    }
}

/// What was saved of this very registration; nothing, if that was another one.
fn known(file: &StateFile, new: &State) -> Result<Option<State>, Failure> {
    file.check_owner(&new.topic, &new.producer)?;
    let Some(saved) = file.saved() else { return Ok(None) };
    let path = file.path().display();
    if saved.registered != new.registered {
        let id = &new.producer;
        say(&format!("producer {id} was registered anew, so what {path} says counts no more"));
        return Ok(None);
    }
    Ok(Some(saved.clone()))
}
