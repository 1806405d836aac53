//! File descriptors: raises their limit, and keeps some from connections.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{debug, info, warn};

/// Descriptors kept free besides those of database sessions: for the standard streams, the runtime,
/// the listener, files, and requests to cancel a statement.
const RESERVED: usize = 32;

/// Descriptors of a database session: one while it is open, another while a new session replaces it.
const PER_SESSION: usize = 2;

/// Assumed where the limit cannot be read: the lowest that POSIX systems commonly set.
const ASSUMED_LIMIT: usize = 1_024;

/// Raises the limit of open files to what the system allows. Most systems set a low limit only
/// because of programs that use `select`.
pub(super) fn raise_limit() {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => return warn!(%error, "read the limit of open files"),
    };
    if soft >= hard {
        return debug!(limit = soft, "kept the limit of open files");
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => info!(limit = hard, before = soft, "raised the limit of open files"),
        Err(error) => warn!(%error, limit = soft, "raise the limit of open files"),
    }
}

/// How many connections may be open at a time, so that there are always descriptors for this many
/// database sessions, and for connections of the HTTP port.
pub(super) fn max_connections(sessions: usize, http: usize) -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE)
        .map_or(ASSUMED_LIMIT, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX));
    left_for_connections(limit, sessions, http)
}

fn left_for_connections(limit: usize, sessions: usize, http: usize) -> usize {
    let reserved = RESERVED + sessions * PER_SESSION + http;
    // With a very low limit, connections get a quarter and the database makes do with less.
    limit.saturating_sub(reserved).max(limit / 4).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_database() {
        assert_eq!(left_for_connections(1_024, 13, 100), 1_024 - 32 - 26 - 100);
        assert_eq!(left_for_connections(100, 13, 0), 42);
        assert_eq!(left_for_connections(40, 13, 9), 10);
        assert_eq!(left_for_connections(0, 13, 0), 1);
        assert_eq!(left_for_connections(usize::MAX, 13, 0), usize::MAX - 58);
    }
}
