//! File descriptors: as many as the system allows, some of which connections never get.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{debug, info, warn};

/// Descriptors that connections leave free besides the database's sessions: standard streams,
/// the runtime's own, the listener, files, and requests to cancel a statement.
const RESERVED: usize = 32;

/// What each of the database's sessions may take: one while it is open, another while a new one
/// replaces it.
const A_SESSION: usize = 2;

/// A limit that cannot be asked for; the least that POSIX systems commonly set.
const UNKNOWN_LIMIT: usize = 1_024;

/// Raises the limit of open files to what the system allows. Most systems set a low one only for
/// programs that use `select`.
pub(super) fn raise_limit() {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => return warn!(%error, "ask for the limit of open files"),
    };
    if soft >= hard {
        return debug!(limit = soft, "the limit of open files is as high as it may be");
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => info!(limit = hard, before = soft, "raised the limit of open files"),
        Err(error) => warn!(%error, limit = soft, "raise the limit of open files"),
    }
}

/// How many connections may be open at a time, so that `sessions` of the database always find
/// descriptors.
pub(super) fn max_connections(sessions: usize) -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE)
        .map_or(UNKNOWN_LIMIT, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX));
    left_for_connections(limit, sessions)
}

fn left_for_connections(limit: usize, sessions: usize) -> usize {
    let reserved = RESERVED.saturating_add(sessions.saturating_mul(A_SESSION));
    // With a limit as low as that, the database has to do with less.
    limit.saturating_sub(reserved).max(limit / 4).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_database() {
        assert_eq!(left_for_connections(1_024, 13), 1_024 - 32 - 26);
        assert_eq!(left_for_connections(100, 13), 42);
        assert_eq!(left_for_connections(40, 13), 10);
        assert_eq!(left_for_connections(0, 13), 1);
        assert_eq!(left_for_connections(usize::MAX, 13), usize::MAX - 58);
    }
}
