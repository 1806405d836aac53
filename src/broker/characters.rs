//! Which characters the database can store, as far as it was asked.
//!
//! A database whose encoding is not UTF-8 refuses every statement with a character that it lacks.
//! It is asked about each character once, so that whoever keeps sending one is refused without
//! another statement. Where the encoding has all characters, nothing is ever asked or looked up.

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

/// As many characters are remembered. When there are more, it begins anew.
const MAX_KNOWN: usize = 65_536;

/// As many characters are asked about together.
const MAX_TOGETHER: usize = 4_096;

/// As many statements ask about them: enough to find one bad character among them by halving.
const MAX_QUESTIONS: usize = 32;

/// As often are characters of one text asked about, until a bad one is found.
const MAX_ROUNDS: usize = 8;

/// What answers whether a text can be stored.
pub(crate) trait TextStore {
    async fn can_store(&self, text: &str) -> Result<bool, storage::Error>;
}

/// What is known of the characters beyond ASCII, which every encoding of a server has.
pub(crate) struct Characters {
    encoding: String,
    all_can_be_stored: bool,
    /// Whether each character can be stored.
    known: RwLock<HashMap<char, bool>>,
    /// Whether one is known that cannot.
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

    /// Refuses texts of a field that cannot be stored, before a statement is given them.
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

    /// Asks about the unknown characters of texts until one is found that cannot be stored, or
    /// none is left; whether one was found.
    pub(crate) async fn learn<'t>(
        &self,
        database: &impl TextStore,
        texts: impl Iterator<Item = &'t str> + Clone + Send,
    ) -> Result<bool, storage::Error> {
        if self.all_can_be_stored {
            return Ok(false);
        }
        for _ in 0..MAX_ROUNDS {
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

    /// Asks about characters: about all of them first, and then about ever smaller parts of what
    /// was refused.
    async fn ask(
        &self,
        database: &impl TextStore,
        unknown: &[char],
    ) -> Result<bool, storage::Error> {
        let mut found = false;
        let mut pieces = vec![unknown];
        for _ in 0..MAX_QUESTIONS {
            let Some(piece) = pieces.pop() else { break };
            let text: String = piece.iter().collect();
            let can_be_stored = database.can_store(&text).await?;
            if can_be_stored || piece.len() == 1 {
                found |= !can_be_stored;
                self.note(piece, can_be_stored);
            } else {
                let (first, second) = piece.split_at(piece.len() / 2);
                pieces.extend([second, first]);
            }
        }
        Ok(found)
    }

    fn note(&self, characters: &[char], can_be_stored: bool) {
        let mut known = self.known.write();
        if known.len() + characters.len() > MAX_KNOWN {
            known.clear();
        }
        known.extend(characters.iter().map(|&character| (character, can_be_stored)));
        if !can_be_stored {
            self.some_are_refused.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn find_refused<'t>(&self, texts: impl Iterator<Item = &'t str>) -> Option<char> {
        let known = self.known.read();
        beyond_ascii(texts).find(|character| known.get(character) == Some(&false))
    }

    pub(crate) fn find_unknown<'t>(&self, texts: impl Iterator<Item = &'t str>) -> Vec<char> {
        let known = self.known.read();
        let mut unknown = BTreeSet::new();
        for character in beyond_ascii(texts).filter(|character| !known.contains_key(character)) {
            unknown.insert(character);
            if unknown.len() == MAX_TOGETHER {
                break;
            }
        }
        unknown.into_iter().collect()
    }

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

    /// Stores characters below a bound, and counts what it is asked.
    struct Below(char, Cell<usize>);

    impl TextStore for Below {
        async fn can_store(&self, text: &str) -> Result<bool, storage::Error> {
            self.1.set(self.1.get() + 1);
            Ok(text.chars().all(|character| character < self.0))
        }
    }

    fn check(characters: &Characters, database: &Below, text: &str) -> Result<(), String> {
        let checked = characters.check(database, "description", [text].into_iter());
        checked.now_or_never().unwrap().map_err(|error| error.to_string())
    }

    #[test]
    fn each_character_is_asked_about_once() {
        let (characters, database) =
            (Characters::new("LATIN1", false), Below('\u{100}', Cell::new(0)));
        assert_eq!(check(&characters, &database, "plain"), Ok(()));
        assert_eq!(database.1.get(), 0, "ASCII is everywhere");
        assert_eq!(check(&characters, &database, "gr\u{fc}n"), Ok(()));
        assert_eq!(check(&characters, &database, "\u{fc}ber"), Ok(()));
        assert_eq!(database.1.get(), 1);
        let refused = check(&characters, &database, "\u{fc} 3 \u{20ac}").unwrap_err();
        assert_eq!(
            refused,
            "description: holds '\u{20ac}' (U+20AC), which the database's encoding LATIN1 cannot store"
        );
        assert_eq!(check(&characters, &database, "5 \u{20ac}"), Err(refused));
        assert_eq!(database.1.get(), 2);
    }

    #[test]
    fn a_bad_character_among_thousands_is_found_by_halving() {
        let (characters, database) =
            (Characters::new("EUC_JP", false), Below('\u{ffff}', Cell::new(0)));
        let text: String = ('\u{4e00}'..'\u{8000}').chain(['\u{ffff}']).collect();
        assert!(check(&characters, &database, &text).unwrap_err().contains("U+FFFF"));
        assert!(database.1.get() < 40, "{} questions", database.1.get());
    }

    #[test]
    fn a_database_that_has_all_characters_is_asked_nothing() {
        let (characters, database) = (Characters::new("UTF8", true), Below('\0', Cell::new(0)));
        assert_eq!(check(&characters, &database, "3 \u{20ac}"), Ok(()));
        assert_eq!(database.1.get(), 0);
    }
}
