//! Ends connections that are idle, old, or whose client does not read.
//!
//! An idle or old connection is asked to end by GOAWAY: the client opens its next calls on another
//! one, and calls that are under way may end. Only those of an old connection have a time limit, as
//! a call that keeps an idle connection open began after it was asked to end.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{open_calls::OpenCalls, write_progress::WriteProgress};

/// How long a client may leave a connection's writes blocked.
const MAX_BLOCKED: Duration = Duration::from_secs(30);

/// How much the age at which connections end varies, so that those that began together do not end
/// together: up to a tenth less.
const JITTER: f64 = 0.1;

/// How long connections may live.
#[derive(Clone, Copy)]
pub(super) struct Lifetime {
    /// How long a connection may have no open call.
    pub(super) max_idle: Option<Duration>,
    pub(super) max_age: Option<Duration>,
    /// How long calls may go on when the greatest age is reached.
    pub(super) age_grace: Duration,
}

/// When one connection ends.
#[derive(Clone)]
pub(super) struct Ending {
    /// No new calls are accepted; calls that are under way may end.
    pub(super) closing: CancellationToken,
    /// All calls are cut off at once.
    pub(super) cut_off: CancellationToken,
}

/// Watches one connection.
pub(super) struct Watch {
    lifetime: Lifetime,
    calls: OpenCalls,
    writes: WriteProgress,
    ending: Ending,
    /// When the connection reaches its greatest age.
    old_at: Option<Instant>,
    /// When it is cut off, once it has.
    cut_off_at: Option<Instant>,
}

impl Ending {
    /// The ending of a connection, which may come before that of all.
    pub(super) fn of_one(&self) -> Self {
        Self { closing: self.closing.child_token(), cut_off: self.cut_off.child_token() }
    }
}

impl Lifetime {
    /// The age that one connection may reach.
    fn varied_age(&self) -> Option<Duration> {
        self.max_age.map(|age| age.mul_f64(1.0 - JITTER * fastrand::f64()))
    }
}

impl Watch {
    pub(super) fn new(
        lifetime: Lifetime,
        calls: OpenCalls,
        writes: WriteProgress,
        ending: Ending,
    ) -> Self {
        let old_at = lifetime.varied_age().and_then(|age| Instant::now().checked_add(age));
        Self { lifetime, calls, writes, ending, old_at, cut_off_at: None }
    }

    /// Ends the connection when it is time, and returns once it is cut off.
    pub(super) async fn end_when_due(mut self) {
        while let Some(due) = self.check(Instant::now()) {
            tokio::time::sleep_until(due).await;
        }
    }

    /// Ends the connection if it is time; returns when to check again, or `None` if it is cut off.
    fn check(&mut self, now: Instant) -> Option<Instant> {
        let blocked = self.writes.blocked(now).unwrap_or_default();
        if blocked >= MAX_BLOCKED {
            warn!(after = ?MAX_BLOCKED, "cut off a blocked connection");
            self.ending.cut_off.cancel();
            return None;
        }
        if self.cut_off_at.is_some_and(|at| at <= now) {
            debug!("cut off an old connection");
            self.ending.cut_off.cancel();
            return None;
        }
        if self.old_at.take_if(|at| *at <= now).is_some() {
            debug!("close an old connection");
            self.ending.closing.cancel();
            self.cut_off_at = now.checked_add(self.lifetime.age_grace);
        }
        let idle_until = self.idle_until(now);
        if idle_until.is_some_and(|until| until <= now) {
            debug!("close an idle connection");
            self.ending.closing.cancel();
        }
        let idle_until = idle_until.filter(|until| *until > now);
        let ends = [self.old_at, self.cut_off_at, idle_until];
        Some(ends.into_iter().flatten().fold(now + (MAX_BLOCKED - blocked), Ord::min))
    }

    /// Until when the connection may stay open if no call begins; `None` if there is no such limit,
    /// or the connection is ending already.
    fn idle_until(&self, now: Instant) -> Option<Instant> {
        if self.ending.closing.is_cancelled() {
            return None;
        }
        self.calls.idle_since().unwrap_or(now).checked_add(self.lifetime.max_idle?)
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Executor as _;
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::server::write_progress::Noted;

    const UNLIMITED: Lifetime = Lifetime { max_idle: None, max_age: None, age_grace: seconds(30) };

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn watch(lifetime: Lifetime) -> Watch {
        let ending =
            Ending { closing: CancellationToken::new(), cut_off: CancellationToken::new() };
        Watch::new(lifetime, OpenCalls::new(usize::MAX), WriteProgress::new(), ending)
    }

    #[tokio::test]
    async fn a_connection_whose_client_does_not_read_is_cut_off() {
        let mut watch = watch(UNLIMITED);
        let (stream, _client) = tokio::io::duplex(4);
        let mut stream = Noted::new(stream, watch.writes.clone());
        let mut writing = std::pin::pin!(stream.write_all(b"too much"));
        assert!(futures::poll!(writing.as_mut()).is_pending());
        let blocked = Instant::now();
        let due = watch.check(blocked + seconds(29)).unwrap();
        assert!(due <= blocked + seconds(30), "{:?}", due - blocked);
        assert!(!watch.ending.cut_off.is_cancelled());
        assert_eq!(watch.check(blocked + seconds(30)), None);
        assert!(watch.ending.cut_off.is_cancelled());
    }

    #[tokio::test]
    async fn a_client_that_has_nothing_to_read_is_left_alone() {
        let mut watch = watch(UNLIMITED);
        let now = Instant::now();
        assert!(watch.check(now + seconds(86_400)).is_some());
        assert!(!watch.ending.cut_off.is_cancelled() && !watch.ending.closing.is_cancelled());
    }

    #[tokio::test]
    async fn an_old_connection_is_asked_to_end_and_is_cut_off_after_the_grace() {
        let began = Instant::now();
        let mut watch = watch(Lifetime { max_age: Some(seconds(600)), ..UNLIMITED });
        watch.check(began + seconds(539)).unwrap();
        assert!(!watch.ending.closing.is_cancelled());
        let asked = began + seconds(601);
        assert_eq!(watch.check(asked), Some(asked + seconds(30)));
        assert!(watch.ending.closing.is_cancelled() && !watch.ending.cut_off.is_cancelled());
        assert_eq!(watch.check(asked + seconds(30)), None);
        assert!(watch.ending.cut_off.is_cancelled());
    }

    #[tokio::test]
    async fn a_connection_without_calls_is_asked_to_end_and_one_with_a_call_is_not() {
        let began = Instant::now();
        let limited = Lifetime { max_idle: Some(seconds(20)), ..UNLIMITED };
        let mut idle = watch(limited);
        assert!(idle.check(began + seconds(19)).unwrap() < began + seconds(21));
        assert!(!idle.ending.closing.is_cancelled());
        idle.check(began + seconds(21)).unwrap();
        assert!(idle.ending.closing.is_cancelled() && !idle.ending.cut_off.is_cancelled());

        let mut busy = watch(limited);
        busy.calls.execute(std::future::pending::<()>());
        busy.check(began + seconds(3_600)).unwrap();
        assert!(!busy.ending.closing.is_cancelled());
    }

    #[test]
    fn connections_that_began_together_end_at_different_ages() {
        let limited = Lifetime { max_age: Some(seconds(600)), ..UNLIMITED };
        let ages: Vec<_> = (0..100).map(|_| limited.varied_age().unwrap()).collect();
        assert!(ages.iter().all(|age| (seconds(540)..=seconds(600)).contains(age)), "{ages:?}");
        assert!(ages.iter().any(|age| *age != ages[0]));
    }
}
