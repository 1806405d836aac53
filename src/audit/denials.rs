//! Denied calls that are counted and not written yet.
//!
//! Strangers and principals have limits of their own, so that a flood of strangers hides nothing that a
//! principal tries. One of either has a limit too: beyond it, its calls are counted by their reason
//! alone.

use std::{cmp::Reverse, collections::HashMap, mem, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::model::{Act, AuditEntry, Origin, Outcome, Principal};

/// How many principals, or addresses of strangers, are counted at a time.
const MAX_CALLERS: usize = 256;

/// How many kinds of denied calls of one of them are told apart at a time.
const MAX_KINDS: usize = 16;

/// How many rows a broker adds in a minute.
const MAX_ROWS_OF_STRANGERS: usize = 60;
const MAX_ROWS_OF_PRINCIPALS: usize = 240;

/// How many of them one caller can use up.
const MAX_ROWS_OF_ADDRESS: usize = 8;
const MAX_ROWS_OF_PRINCIPAL: usize = 32;

/// The detail that says whose they are.
const CALLERS: &str = "callers";

/// Whose denied calls a row counts that lists none of them.
const STRANGERS: &str = "strangers";
const PRINCIPALS: &str = "principals";

const MINUTE: Duration = Duration::from_secs(60);

/// A call that was refused because of who made it.
#[derive(Clone, Debug)]
pub struct Denial {
    /// Who made it. The address is that of the client's host, or network, as many calls are counted
    /// together. The principal may be one that the caller has not proved to be.
    pub origin: Origin,
    /// Whether the caller has proved who it is. Otherwise it counts as a stranger.
    pub is_proven: bool,
    /// The call, as `package.Service/Method`; empty if there is none of that name.
    pub method: &'static str,
    /// Why it was refused.
    pub reason: &'static str,
    /// The topic that it was about, if it was.
    pub topic: Option<String>,
    /// What it was about, if that is not the topic.
    pub subject: Option<String>,
}

/// Denied calls that are not written yet.
#[derive(Default)]
pub(super) struct Denials {
    counted: Mutex<Counted>,
    /// Notified when there is something to write.
    added: Notify,
}

#[derive(Default)]
struct Counted {
    strangers: Class,
    principals: Class,
}

/// Those of strangers, or those of principals.
#[derive(Default)]
struct Class {
    callers: HashMap<Caller, HashMap<Kind, u64>>,
    /// Denied calls that no row lists.
    not_recorded: u64,
    /// Since when rows are counted, and how many there were.
    minute: Option<Instant>,
    rows: usize,
    /// How many of these each caller has.
    rows_of: HashMap<Caller, usize>,
}

/// Rows to be written.
pub(super) struct Rows {
    pub(super) entries: Vec<AuditEntry>,
    /// The first ones are of strangers.
    of_strangers: usize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Caller {
    Principal(Principal),
    Address(Option<Arc<str>>),
}

/// What equal calls have in common, besides who makes them.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Kind {
    /// Whom a stranger's token stood for.
    claimed: Option<Principal>,
    token_id: Option<Arc<str>>,
    address: Option<Arc<str>>,
    method: &'static str,
    reason: &'static str,
    topic: Option<String>,
    subject: Option<String>,
}

impl Denials {
    pub(super) fn count(&self, denial: Denial) {
        let Denial { origin: Origin { principal, token_id, address }, .. } = denial;
        let Denial { is_proven, method, reason, topic, subject, .. } = denial;
        let mut counted = self.counted.lock();
        let (class, caller, claimed) = match principal {
            Some(principal) if is_proven => {
                (&mut counted.principals, Caller::Principal(principal), None)
            }
            claimed => (&mut counted.strangers, Caller::Address(address.clone()), claimed),
        };
        class.count(caller, Kind { claimed, token_id, address, method, reason, topic, subject });
        drop(counted);
        self.added.notify_one();
    }

    /// Waits until there is something to write.
    pub(super) async fn added(&self) {
        self.added.notified().await;
    }

    /// What is to be written now. What is beyond the limits follows in the next minute, or at once if
    /// this is the last time.
    pub(super) fn take(&self, now: Instant, is_last: bool) -> Rows {
        let mut counted = self.counted.lock();
        let mut entries = Vec::new();
        counted.strangers.take(STRANGERS, now, is_last, &mut entries);
        let of_strangers = entries.len();
        counted.principals.take(PRINCIPALS, now, is_last, &mut entries);
        Rows { entries, of_strangers }
    }

    /// Whether something is left for the next minute.
    pub(super) fn owe_rows(&self) -> bool {
        let counted = self.counted.lock();
        counted.strangers.not_recorded > 0 || counted.principals.not_recorded > 0
    }

    /// Counts calls whose rows could not be stored.
    pub(super) fn give_back(&self, Rows { entries, of_strangers }: &Rows) {
        let mut counted = self.counted.lock();
        let calls = |part: &[AuditEntry]| part.iter().map(|entry| entry.count).sum::<u64>();
        let (strangers, principals) = entries.split_at(*of_strangers);
        counted.strangers.not_recorded += calls(strangers);
        counted.principals.not_recorded += calls(principals);
    }
}

impl Class {
    fn count(&mut self, caller: Caller, kind: Kind) {
        if self.callers.len() >= MAX_CALLERS && !self.callers.contains_key(&caller) {
            self.not_recorded += 1;
            return;
        }
        let kinds = self.callers.entry(caller).or_default();
        let is_known = kinds.contains_key(&kind);
        let kind = match is_known || kinds.len() < MAX_KINDS {
            true => kind,
            // There are few reasons.
            false => Kind { reason: kind.reason, ..Kind::default() },
        };
        *kinds.entry(kind).or_default() += 1;
    }

    /// Takes what is to be written now; `callers` says whose it is.
    fn take(&mut self, callers: &str, now: Instant, is_last: bool, entries: &mut Vec<AuditEntry>) {
        let (limit, limit_of_each) = match callers == PRINCIPALS {
            true => (MAX_ROWS_OF_PRINCIPALS, MAX_ROWS_OF_PRINCIPAL),
            false => (MAX_ROWS_OF_STRANGERS, MAX_ROWS_OF_ADDRESS),
        };
        let is_over = self.minute.is_none_or(|since| now.duration_since(since) >= MINUTE);
        if is_over {
            (self.minute, self.rows) = (Some(now), 0);
            self.rows_of.clear();
        }
        if (is_over || is_last) && self.not_recorded > 0 {
            self.rows += 1;
            entries.push(not_recorded(callers, mem::take(&mut self.not_recorded)));
        }
        for (caller, kinds) in mem::take(&mut self.callers) {
            let before = self.rows_of.get(&caller).copied().unwrap_or_default();
            let mut own = before;
            for (kind, count) in sort_kinds(kinds) {
                if self.rows >= limit || own >= limit_of_each {
                    self.not_recorded += count;
                    continue;
                }
                self.rows += 1;
                own += 1;
                entries.push(entry(&caller, kind, count));
            }
            // There are no more of them than rows.
            if own > before {
                self.rows_of.insert(caller, own);
            }
        }
        if is_last && self.not_recorded > 0 {
            entries.push(not_recorded(callers, mem::take(&mut self.not_recorded)));
        }
    }
}

/// Sorts a caller's calls by what their rows tell, as there may be room for a few rows only: one of each
/// reason comes before a second one of any, and among those of a reason the one with the most calls.
fn sort_kinds(kinds: HashMap<Kind, u64>) -> Vec<(Kind, u64)> {
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_unstable_by_key(|&(_, count)| Reverse(count));
    let mut seen = HashMap::<_, usize>::new();
    let mut ranked: Vec<_> = kinds
        .into_iter()
        .map(|kind| {
            let rank = seen.entry(kind.0.reason).or_default();
            *rank += 1;
            (*rank, kind)
        })
        .collect();
    ranked.sort_by_key(|&(rank, _)| rank);
    ranked.into_iter().map(|(_, kind)| kind).collect()
}

fn not_recorded(callers: &str, count: u64) -> AuditEntry {
    let act = AuditEntry::new(Act::DeniedCall, Origin::default()).with(CALLERS, callers);
    AuditEntry { outcome: Outcome::NotRecorded, count, ..act }
}

fn entry(caller: &Caller, kind: Kind, count: u64) -> AuditEntry {
    let Kind { claimed, token_id, address, method, reason, topic, subject } = kind;
    let (principal, address) = match caller {
        Caller::Principal(principal) => (Some(principal.clone()), address),
        Caller::Address(address) => (claimed, address.clone()),
    };
    let origin = Origin { principal, token_id, address };
    AuditEntry {
        outcome: Outcome::Denied,
        method,
        topic,
        subject,
        reason: Some(reason),
        count,
        ..AuditEntry::new(Act::DeniedCall, origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(principal: Option<&str>, address: &str, topic: &str) -> Denial {
        Denial {
            origin: Origin {
                principal: principal.map(Principal::stored),
                token_id: None,
                address: Some(address.into()),
            },
            is_proven: principal.is_some(),
            method: "trunkline.v1.TopicService/GetTopic",
            reason: "NOT_GRANTED",
            topic: Some(topic.to_owned()),
            subject: None,
        }
    }

    fn total(entries: &[AuditEntry]) -> u64 {
        entries.iter().map(|entry| entry.count).sum()
    }

    #[test]
    fn equal_calls_are_one_row_and_others_are_not() {
        let denials = Denials::default();
        for _ in 0..1_000 {
            denials.count(denial(Some("shop"), "192.0.2.1", "orders"));
            denials.count(denial(None, "192.0.2.1", "orders"));
        }
        denials.count(denial(Some("shop"), "192.0.2.1", "payments"));
        let mut counts: Vec<_> = denials
            .take(Instant::now(), false)
            .entries
            .into_iter()
            .map(|entry| (entry.origin.principal.is_some(), entry.topic.unwrap(), entry.count))
            .collect();
        counts.sort();
        let row = |principal, topic: &str, count| (principal, topic.to_owned(), count);
        let expected =
            [row(false, "orders", 1_000), row(true, "orders", 1_000), row(true, "payments", 1)];
        assert_eq!(counts, expected);
        assert!(denials.take(Instant::now(), true).entries.is_empty());
    }

    #[test]
    fn one_caller_that_tries_everything_gets_few_rows_and_every_call_is_counted() {
        let denials = Denials::default();
        for number in 0..1_000 {
            denials.count(denial(Some("thief"), "192.0.2.1", &format!("topic-{number}")));
        }
        denials.count(denial(Some("shop"), "192.0.2.2", "orders"));
        let Rows { entries, .. } = denials.take(Instant::now(), false);
        assert_eq!((entries.len(), total(&entries)), (MAX_KINDS + 2, 1_001));
        let merged = entries.iter().find(|entry| entry.topic.is_none()).unwrap();
        assert_eq!(merged.count, 1_000 - MAX_KINDS as u64);
        assert_eq!(merged.reason, Some("NOT_GRANTED"));
    }

    #[test]
    fn a_flood_of_strangers_is_limited_and_hides_no_principal() {
        let denials = Denials::default();
        for number in 0..100_000 {
            denials.count(denial(None, &format!("10.0.{}.{}", number / 256, number % 256), "x"));
        }
        denials.count(denial(Some("shop"), "192.0.2.2", "orders"));
        let now = Instant::now();
        let Rows { entries, .. } = denials.take(now, false);
        assert_eq!(entries.len(), MAX_ROWS_OF_STRANGERS + 1);
        assert!(entries.iter().any(|entry| entry.origin.principal.is_some()));
        denials.count(denial(None, "192.0.2.3", "x"));
        // The minute's rows are used up.
        assert!(denials.take(now + MINUTE / 2, false).entries.is_empty());
        assert!(denials.owe_rows());
        let Rows { entries: rest, .. } = denials.take(now + MINUTE, false);
        assert_eq!((rest.len(), rest[0].outcome), (1, Outcome::NotRecorded));
        assert_eq!(rest[0].details[CALLERS], STRANGERS);
        assert_eq!(total(&entries) + total(&rest), 100_002);
        assert!(!denials.owe_rows());
    }

    #[test]
    fn what_could_not_be_stored_is_counted_once_more() {
        let denials = Denials::default();
        denials.count(denial(Some("shop"), "192.0.2.2", "orders"));
        let lost = denials.take(Instant::now(), false);
        denials.give_back(&lost);
        let Rows { entries: last, .. } = denials.take(Instant::now(), true);
        assert_eq!((last.len(), last[0].outcome, last[0].count), (1, Outcome::NotRecorded, 1));
        assert_eq!(last[0].details[CALLERS], PRINCIPALS);
    }

    #[test]
    fn few_rows_show_each_reason_and_the_most_calls() {
        let denials = Denials::default();
        for number in 0..MAX_KINDS - 1 {
            denials.count(denial(None, "192.0.2.1", &format!("topic-{number}")));
        }
        for _ in 0..2 {
            denials.count(denial(None, "192.0.2.1", "topic-7"));
        }
        denials.count(Denial { reason: "TOKEN_MALFORMED", ..denial(None, "192.0.2.1", "orders") });
        let Rows { entries, .. } = denials.take(Instant::now(), false);
        assert_eq!(entries.len(), MAX_ROWS_OF_ADDRESS);
        let first: Vec<_> = entries[..2].iter().map(|entry| (entry.reason, entry.count)).collect();
        assert_eq!(first, [(Some("NOT_GRANTED"), 3), (Some("TOKEN_MALFORMED"), 1)]);
        assert_eq!(entries[0].topic.as_deref(), Some("topic-7"));
    }

    #[test]
    fn no_caller_uses_up_the_rows_of_all() {
        let (denials, now) = (Denials::default(), Instant::now());
        let mut rows = HashMap::<_, usize>::new();
        for round in 0..20 {
            for number in 0..MAX_KINDS {
                let topic = format!("topic-{round}-{number}");
                denials.count(denial(Some("thief"), "192.0.2.1", &topic));
                denials.count(denial(None, "192.0.2.1", &topic));
            }
            for entry in denials.take(now, false).entries {
                *rows.entry(entry.origin.principal).or_default() += 1;
            }
        }
        assert_eq!(rows[&Some(Principal::stored("thief"))], MAX_ROWS_OF_PRINCIPAL);
        assert_eq!(rows[&None], MAX_ROWS_OF_ADDRESS);
        denials.count(denial(Some("shop"), "192.0.2.2", "orders"));
        denials.count(denial(None, "192.0.2.2", "orders"));
        assert_eq!(denials.take(now, false).entries.len(), 2);
        // All have theirs again.
        denials.count(denial(Some("thief"), "192.0.2.1", "orders"));
        let next = denials.take(now + MINUTE, false).entries;
        assert!(next.iter().any(|entry| entry.origin.principal.is_some()));
        let counted: u64 = next.iter().map(|entry| entry.count).sum();
        let listed = (MAX_ROWS_OF_PRINCIPAL + MAX_ROWS_OF_ADDRESS) as u64;
        assert_eq!(counted, 2 * 20 * MAX_KINDS as u64 - listed + 1);
    }

    #[test]
    fn whoever_presents_a_token_that_has_ended_counts_as_a_stranger() {
        let denials = Denials::default();
        for number in 0..MAX_ROWS_OF_STRANGERS + 1 {
            let address = format!("192.0.2.{number}");
            let denial = denial(Some("leaver"), &address, "orders");
            denials.count(Denial { is_proven: false, ..denial });
        }
        let rows = denials.take(Instant::now(), false);
        assert_eq!((rows.of_strangers, rows.entries.len()), (60, 60));
        assert!(rows.entries.iter().all(|entry| entry.origin.principal.is_some()));
        denials.give_back(&rows);
        let last = denials.take(Instant::now(), true).entries;
        assert_eq!((last.len(), &*last[0].details[CALLERS], last[0].count), (1, STRANGERS, 61));
    }
}
