//! Tells people on standard error what happens, at a bounded rate.

use std::time::Instant;

use super::super::super::{
    failure::print_notice,
    notices::{NoticeLimits, held_back_before},
};

/// What kind of event a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Lost,
    Unreadable,
    Replaced,
    LeftOut,
    BadLines,
}

pub(super) struct Notices(NoticeLimits<Kind>);

impl Default for Notices {
    fn default() -> Self {
        Self(NoticeLimits::new())
    }
}

impl Notices {
    /// Prints a notice, unless many of its kind were printed within a minute.
    pub(super) fn tell(&mut self, kind: Kind, text: &str) {
        let Some(held_back) = self.0.admit(kind, Instant::now()) else { return };
        if let Some(before) = held_back_before(held_back) {
            print_notice(&before);
        }
        print_notice(text);
    }
}
