//! Time limits that several rooms share.

use std::time::Duration;

/// How long to wait for a session before the database counts as down: this long for a free one, and
/// then this long for a new one, connected and set up.
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a statement may take, its wait for a lock not included.
///
/// Without a limit, a connection that leads nowhere would hang its user, and the streams that wait
/// for them, until the kernel notices. Behind a proxy or a pooler it never does.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a publish waits for its topic's row before it is refused, so that a session that holds
/// the row does not hold up other topics.
pub(super) const WRITER_LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// The limit for a publish to a topic whose row was found locked recently.
pub(super) const SHORT_WRITER_LOCK_TIMEOUT: Duration = Duration::from_millis(100);
