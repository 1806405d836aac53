//! Who is logged in.
//!
//! A browser gets a random number as a cookie, and the broker keeps the token that it stands for. The
//! token is checked again with each call, so that one that is revoked or expired logs its owner out. A
//! broker that restarts has forgotten all sessions.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tonic::codegen::http::HeaderValue;

/// How many sessions there may be, and of one principal. The one of them that was used the longest time
/// ago makes room.
const MOST: usize = 1_000;
const MOST_OF_ONE: usize = 50;

/// How long a session lasts that nobody uses, and any: a page that is open is a use.
const IDLE: Duration = Duration::from_secs(12 * 3600);
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// The sessions of a broker.
pub(super) struct Sessions {
    /// By the hash of their number, so that the time that a look-up takes tells nothing of numbers.
    open: Mutex<HashMap<[u8; 32], Session>>,
}

struct Session {
    principal: String,
    authorization: HeaderValue,
    csrf: String,
    began_at: Instant,
    used_at: Instant,
}

/// What a session stands for.
#[derive(Clone)]
pub(super) struct LoggedIn {
    pub(super) authorization: HeaderValue,
    /// What each form that changes something must send.
    pub(super) csrf: String,
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.used_at) >= IDLE || now.duration_since(self.began_at) >= LONGEST
    }
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self { open: Mutex::default() }
    }

    /// Begins a session; returns its number. `None` if the system has no random numbers.
    pub(super) fn begin(&self, principal: String, authorization: HeaderValue) -> Option<String> {
        let (number, csrf) = (random()?, random()?);
        let now = Instant::now();
        let mut open = self.open.lock();
        open.retain(|_, session| !session.is_over(now));
        make_room(&mut open, MOST_OF_ONE, |session| session.principal == principal);
        make_room(&mut open, MOST, |_| true);
        let session = Session { principal, authorization, csrf, began_at: now, used_at: now };
        open.insert(key(&number), session);
        Some(number)
    }

    /// What a session's number stands for.
    pub(super) fn find(&self, number: &str) -> Option<LoggedIn> {
        let now = Instant::now();
        let mut open = self.open.lock();
        let session = open.get_mut(&key(number))?;
        if session.is_over(now) {
            return None;
        }
        session.used_at = now;
        let Session { authorization, csrf, .. } = session;
        Some(LoggedIn { authorization: authorization.clone(), csrf: csrf.clone() })
    }

    /// Ends a session.
    pub(super) fn end(&self, number: &str) {
        self.open.lock().remove(&key(number));
    }
}

/// Makes room for one more of the sessions that count.
fn make_room(
    open: &mut HashMap<[u8; 32], Session>,
    most: usize,
    counts: impl Fn(&Session) -> bool,
) {
    let counted = || open.iter().filter(|(_, session)| counts(session));
    if counted().count() >= most
        && let Some(oldest) = counted().min_by_key(|(_, it)| it.used_at).map(|(key, _)| *key)
    {
        open.remove(&oldest);
    }
}

fn key(number: &str) -> [u8; 32] {
    Sha256::digest(number).into()
}

/// 256 random bits.
pub(super) fn random() -> Option<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody logs in.
    fn begin(sessions: &Sessions, principal: &str) -> String {
        let authorization = HeaderValue::from_str(principal).unwrap();
        sessions.begin(principal.to_owned(), authorization).unwrap()
    }

    #[test]
    fn a_session_stands_for_its_token_until_it_ends() {
        let sessions = Sessions::new();
        let (ann, bob) = (begin(&sessions, "ann"), begin(&sessions, "bob"));
        assert_ne!(ann, bob);
        assert_eq!(sessions.find(&ann).unwrap().authorization, "ann");
        assert_ne!(sessions.find(&ann).unwrap().csrf, sessions.find(&bob).unwrap().csrf);
        sessions.end(&ann);
        assert!(sessions.find(&ann).is_none() && sessions.find("").is_none());
        assert!(sessions.find(&bob).is_some());
    }

    #[test]
    fn the_session_that_was_used_the_longest_time_ago_makes_room() {
        let sessions = Sessions::new();
        let (first, second) = (begin(&sessions, "first"), begin(&sessions, "second"));
        for number in 2..MOST {
            begin(&sessions, &number.to_string());
        }
        assert!(sessions.find(&first).is_some());
        begin(&sessions, "one more");
        assert!(sessions.find(&first).is_some() && sessions.find(&second).is_none());
    }

    #[test]
    fn a_principal_that_logs_in_again_and_again_logs_out_nobody_else() {
        let sessions = Sessions::new();
        let (ann, first) = (begin(&sessions, "ann"), begin(&sessions, "bob"));
        let second = begin(&sessions, "bob");
        for _ in 2..MOST {
            begin(&sessions, "bob");
        }
        let last = begin(&sessions, "bob");
        assert!(sessions.find(&ann).is_some() && sessions.find(&last).is_some());
        assert!(sessions.find(&first).is_none() && sessions.find(&second).is_none());
        assert_eq!(sessions.open.lock().len(), 1 + MOST_OF_ONE);
    }
}
