//! Which characters the database can store, as far as that is known.
//!
//! A database whose encoding is not UTF-8 refuses every statement with a character that its
//! encoding lacks. The broker asks it about each character once, so that a client that keeps
//! sending one is refused without another statement. If the encoding has all characters, nothing is
//! asked or looked up.

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::RwLock;

use crate::{
    broker::error::Error,
    model::{InvalidInput, Labels},
    storage::{self, Storage},
};

/// How many characters are remembered. Beyond that, all of them are forgotten.
const MAX_KNOWN: usize = 65_536;

/// How many characters are asked about together.
const MAX_SET: usize = 4_096;

/// How many statements ask about such a set of characters: enough to find one bad character in it
/// by halving.
const MAX_STATEMENTS: usize = 32;

/// How many sets of characters of the same texts are asked about, until a bad character is found.
const MAX_SETS: usize = 8;

/// Answers whether a text can be stored: the database, or a model of it.
pub(crate) trait TextStore {
    async fn can_store(&self, text: &str) -> Result<bool, storage::Error>;
}

/// What is known about the characters beyond ASCII, which every server encoding includes.
pub(crate) struct Characters {
    encoding: String,
    all_can_be_stored: bool,
    /// Whether each character can be stored.
    known: RwLock<HashMap<char, bool>>,
    /// Whether a character is known that cannot be stored.
    some_are_refused: AtomicBool,
}

impl TextStore for Storage {
    async fn can_store(&self, text: &str) -> Result<bool, storage::Error> {
        self.can_store(text).await
    }
}

impl Characters {
    pub(crate) fn of(storage: &Storage) -> Self {
        Self::new(storage.encoding(), storage.can_store_any_text())
    }

    pub(crate) fn new(encoding: &str, all_can_be_stored: bool) -> Self {
        Self {
            encoding: encoding.to_owned(),
            all_can_be_stored,
            known: RwLock::default(),
            some_are_refused: AtomicBool::new(false),
        }
    }

    /// Refuses texts of a field that cannot be stored, before they are part of a statement.
    pub(crate) async fn check<'t>(
        &self,
        database: &impl TextStore,
        field: &str,
        texts: impl Iterator<Item = &'t str> + Clone + Send,
    ) -> Result<(), Error> {
        if self.all_can_be_stored || texts.clone().all(str::is_ascii) {
            return Ok(());
        }
        self.learn(database, texts.clone()).await.map_err(Error::of_read)?;
        match self.find_refused(texts) {
            Some(character) => Err(self.refusal(field, character).into()),
            None => Ok(()),
        }
    }

    /// Whether a character is known that cannot be stored.
    pub(crate) fn some_are_refused(&self) -> bool {
        self.some_are_refused.load(Ordering::Relaxed)
    }

    /// Asks about the unknown characters of texts until one is found that cannot be stored, or none
    /// is left. Returns whether one was found.
    pub(crate) async fn learn<'t>(
        &self,
        database: &impl TextStore,
        texts: impl Iterator<Item = &'t str> + Clone + Send,
    ) -> Result<bool, storage::Error> {
        if self.all_can_be_stored {
            return Ok(false);
        }
        for _ in 0..MAX_SETS {
            let unknown = self.find_unknown(texts.clone());
            if unknown.is_empty() {
                return Ok(false);
            }
            if self.ask(database, &unknown).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Asks about characters: all of them at once, and then ever smaller parts of what was refused.
    /// Returns whether one was found that cannot be stored.
    async fn ask(
        &self,
        database: &impl TextStore,
        unknown: &[char],
    ) -> Result<bool, storage::Error> {
        let mut found = false;
        let mut parts = vec![unknown];
        for _ in 0..MAX_STATEMENTS {
            let Some(part) = parts.pop() else { break };
            let text: String = part.iter().collect();
            let can_be_stored = database.can_store(&text).await?;
            if can_be_stored || part.len() == 1 {
                found |= !can_be_stored;
                self.record(part, can_be_stored);
            } else {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
        }
        Ok(found)
    }

    fn record(&self, characters: &[char], can_be_stored: bool) {
        let mut known = self.known.write();
        if known.len() + characters.len() > MAX_KNOWN {
            known.clear();
        }
        known.extend(characters.iter().map(|&character| (character, can_be_stored)));
        if !can_be_stored {
            self.some_are_refused.store(true, Ordering::Relaxed);
        }
    }

    /// The first character of texts that is known to be refused.
    pub(crate) fn find_refused<'t>(&self, texts: impl Iterator<Item = &'t str>) -> Option<char> {
        let known = self.known.read();
        beyond_ascii(texts).find(|character| known.get(character) == Some(&false))
    }

    /// Characters of texts that have not been asked about: at most [`MAX_SET`].
    pub(crate) fn find_unknown<'t>(&self, texts: impl Iterator<Item = &'t str>) -> Vec<char> {
        if self.all_can_be_stored {
            return Vec::new();
        }
        let known = self.known.read();
        let mut unknown = BTreeSet::new();
        for character in beyond_ascii(texts).filter(|character| !known.contains_key(character)) {
            unknown.insert(character);
            if unknown.len() == MAX_SET {
                break;
            }
        }
        unknown.into_iter().collect()
    }

    /// Why a field is refused.
    pub(crate) fn refusal(&self, field: &str, character: char) -> InvalidInput {
        let (code, encoding) = (u32::from(character), &self.encoding);
        let problem = format!(
            "holds {character:?} (U+{code:04X}), which the database's encoding {encoding} cannot store"
        );
        InvalidInput::new(field, problem)
    }
}

/// The names and values of labels or headers.
pub(crate) fn texts(labels: &Labels) -> impl Iterator<Item = &str> + Clone + Send {
    labels.entries().iter().flat_map(|(name, value)| [name.as_str(), value.as_str()])
}

fn beyond_ascii<'t>(texts: impl Iterator<Item = &'t str>) -> impl Iterator<Item = char> {
    texts
        .filter(|text| !text.is_ascii())
        .flat_map(str::chars)
        .filter(|character| !character.is_ascii())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::FutureExt as _;

    use super::*;

    /// Stores characters below a bound, and counts how often it is asked.
    struct Below {
        bound: char,
        questions: Cell<usize>,
    }

    impl Below {
        fn new(bound: char) -> Self {
            Self { bound, questions: Cell::new(0) }
        }
    }

    impl TextStore for Below {
        async fn can_store(&self, text: &str) -> Result<bool, storage::Error> {
            self.questions.set(self.questions.get() + 1);
            Ok(text.chars().all(|character| character < self.bound))
        }
    }

    fn check(characters: &Characters, database: &Below, text: &str) -> Result<(), String> {
        let checked = characters.check(database, "description", [text].into_iter());
        checked.now_or_never().unwrap().map_err(|error| error.to_string())
    }

    #[test]
    fn each_character_is_asked_about_once() {
        let (characters, database) = (Characters::new("LATIN1", false), Below::new('\u{100}'));
        assert_eq!(check(&characters, &database, "plain"), Ok(()));
        assert_eq!(database.questions.get(), 0, "every encoding includes ASCII");
        assert_eq!(check(&characters, &database, "gr\u{fc}n"), Ok(()));
        assert_eq!(check(&characters, &database, "\u{fc}ber"), Ok(()));
        assert_eq!(database.questions.get(), 1);
        let refused = check(&characters, &database, "\u{fc} 3 \u{20ac}").unwrap_err();
        assert_eq!(
            refused,
            "description: holds '\u{20ac}' (U+20AC), which the database's encoding LATIN1 cannot store"
        );
        assert_eq!(check(&characters, &database, "5 \u{20ac}"), Err(refused));
        assert_eq!(database.questions.get(), 2);
    }

    #[test]
    fn a_bad_character_among_thousands_is_found_by_halving() {
        let (characters, database) = (Characters::new("EUC_JP", false), Below::new('\u{ffff}'));
        let text: String = ('\u{4e00}'..'\u{8000}').chain(['\u{ffff}']).collect();
        assert!(check(&characters, &database, &text).unwrap_err().contains("U+FFFF"));
        assert!(database.questions.get() < 40, "{} questions", database.questions.get());
    }

    #[test]
    fn a_database_that_can_store_all_characters_is_never_asked() {
        let (characters, database) = (Characters::new("UTF8", true), Below::new('\0'));
        assert_eq!(check(&characters, &database, "3 \u{20ac}"), Ok(()));
        assert_eq!(database.questions.get(), 0);
    }
}
