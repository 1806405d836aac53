//! Tells people on standard error what happens, at a bounded rate.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::super::super::failure::print_notice;

/// How often the same kind of event is told.
const INTERVAL: Duration = Duration::from_secs(60);

/// How many events of a kind are told before they are only counted.
const BURST: u32 = 10;

/// What kind of event a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Lost,
    Unreadable,
    Replaced,
    LeftOut,
    BadLines,
}

#[derive(Default)]
pub(super) struct Notices {
    told: HashMap<Kind, Told>,
}

struct Told {
    since: Instant,
    count: u32,
}

impl Notices {
    /// Prints a notice, unless many of its kind were printed within a minute.
    pub(super) fn tell(&mut self, kind: Kind, text: &str) {
        let now = Instant::now();
        let told = self.told.entry(kind).or_insert(Told { since: now, count: 0 });
        if now - told.since > INTERVAL {
            let held_back = told.count.saturating_sub(BURST);
            if held_back > 0 {
                print_notice(&format!("{held_back} notices like the next one were held back"));
            }
            *told = Told { since: now, count: 0 };
        }
        told.count += 1;
        if told.count <= BURST {
            print_notice(text);
        }
    }
}
