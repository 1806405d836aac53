//! What the keys of `trunkline top` do.

use clap::ValueEnum;
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::screen::Screen;

/// What a key asks for, besides what it changes on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing.
    Nothing,
    /// To ask the broker at once.
    Again,
    /// To ask no more.
    Pause,
    /// To end.
    End,
}

/// The longest text to look for, in bytes.
const LONGEST: usize = 255;

impl Screen {
    /// Takes what a terminal reports.
    pub(super) fn take(&mut self, event: &Event) -> Asked {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.press(*key),
            // Among others, another size: the screen is drawn again.
            _ => Asked::Nothing,
        }
    }

    fn press(&mut self, KeyEvent { code, modifiers, .. }: KeyEvent) -> Asked {
        if modifiers.contains(KeyModifiers::CONTROL) {
            return match code {
                KeyCode::Char('c') => Asked::End,
                _ => Asked::Nothing,
            };
        }
        if self.is_searching {
            return self.edit(code);
        }
        match code {
            KeyCode::Char('q') => return Asked::End,
            KeyCode::Char('t') => self.wanted.topics_by = next(self.wanted.topics_by),
            KeyCode::Char('c') => self.wanted.consumers_by = next(self.wanted.consumers_by),
            KeyCode::Char('p' | ' ') => {
                self.is_paused = !self.is_paused;
                return if self.is_paused { Asked::Pause } else { Asked::Again };
            }
            KeyCode::Char('/') => {
                self.is_searching = true;
                return Asked::Nothing;
            }
            KeyCode::Esc if !self.wanted.contains.is_empty() => self.wanted.contains.clear(),
            _ => return Asked::Nothing,
        }
        Asked::Again
    }

    /// Takes a key while the text to look for is typed.
    fn edit(&mut self, code: KeyCode) -> Asked {
        let contains = &mut self.wanted.contains;
        match code {
            KeyCode::Enter => {
                self.is_searching = false;
                return Asked::Nothing;
            }
            KeyCode::Esc => {
                self.is_searching = false;
                contains.clear();
            }
            KeyCode::Backspace => drop(contains.pop()),
            KeyCode::Char(c) if contains.len() + c.len_utf8() <= LONGEST => contains.push(c),
            _ => return Asked::Nothing,
        }
        Asked::Again
    }
}

/// The next value of a list, and the first one after the last.
fn next<T: ValueEnum + PartialEq>(value: T) -> T {
    let all = T::value_variants();
    let index = all.iter().position(|it| *it == value).map_or(0, |index| index + 1);
    all[index % all.len()].clone()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            screen::tests::screen,
            wanted::{ConsumersBy, TopicsBy},
        },
        *,
    };

    fn press(screen: &mut Screen, code: KeyCode) -> Asked {
        screen.take(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    fn write(screen: &mut Screen, text: &str) -> Vec<Asked> {
        text.chars().map(|c| press(screen, KeyCode::Char(c))).collect()
    }

    #[test]
    fn keys_go_through_the_orders() {
        let mut screen = screen();
        let mut seen = Vec::new();
        for _ in TopicsBy::value_variants() {
            assert_eq!(press(&mut screen, KeyCode::Char('t')), Asked::Again);
            seen.push(screen.wanted.topics_by);
        }
        let mut all = TopicsBy::value_variants().to_vec();
        all.rotate_left(1);
        assert_eq!(seen, all);
        press(&mut screen, KeyCode::Char('c'));
        assert_eq!(screen.wanted.consumers_by, ConsumersBy::Behind);
    }

    #[test]
    fn what_is_typed_after_a_slash_is_looked_for() {
        let mut screen = screen();
        write(&mut screen, "/");
        assert_eq!(write(&mut screen, "qt"), [Asked::Again; 2]);
        assert_eq!(screen.wanted.contains, "qt");
        press(&mut screen, KeyCode::Backspace);
        press(&mut screen, KeyCode::Enter);
        assert_eq!((screen.wanted.contains.as_str(), screen.is_searching), ("q", false));
        assert_eq!(press(&mut screen, KeyCode::Esc), Asked::Again);
        assert_eq!(screen.wanted.contains, "");
        // There is nothing left to clear.
        assert_eq!(press(&mut screen, KeyCode::Esc), Asked::Nothing);

        write(&mut screen, "/");
        write(&mut screen, &"a".repeat(300));
        assert_eq!(screen.wanted.contains.len(), LONGEST);
        press(&mut screen, KeyCode::Esc);
        assert_eq!((screen.wanted.contains.as_str(), screen.is_searching), ("", false));
    }

    #[test]
    fn q_and_ctrl_c_end_it() {
        let mut screen = screen();
        assert_eq!(press(&mut screen, KeyCode::Char('q')), Asked::End);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        write(&mut screen, "/");
        assert_eq!(screen.take(&Event::Key(interrupt)), Asked::End);
    }

    #[test]
    fn a_pause_ends_with_a_fresh_answer() {
        let mut screen = screen();
        assert_eq!(press(&mut screen, KeyCode::Char('p')), Asked::Pause);
        assert!(screen.is_paused);
        assert_eq!(press(&mut screen, KeyCode::Char('p')), Asked::Again);
        assert!(!screen.is_paused);
    }
}
