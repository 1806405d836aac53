//! Reads `postmaster.pid`, which describes a server that may be running.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};

/// The name of the socket in its folder, which contains the port.
pub(super) const SOCKET_FILE: &str = ".s.PGSQL.5432";

/// A running server, as its `postmaster.pid` describes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Postmaster {
    /// The folder of its socket; empty as long as the file does not name it.
    pub socket_dir: PathBuf,
    pub state: State,
}

/// What the server is doing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    Starting,
    Stopping,
}

impl Postmaster {
    /// The server that runs on a cluster, if any.
    pub(super) fn running(pgdata: &Path) -> Option<Self> {
        let (process, postmaster) =
            parse(&fs::read_to_string(pgdata.join("postmaster.pid")).ok()?)?;
        // A file left behind by a crash names a process that is gone, or is now another program's.
        // The server's working directory is its data folder.
        let alive = match kill(process, None) {
            Ok(()) | Err(Errno::EPERM) => true,
            Err(_) => false,
        };
        (alive && works_in(process, pgdata)).then_some(postmaster)
    }

    /// Whether a process listens on the server's socket.
    pub(super) fn accepts_connections(&self) -> bool {
        UnixStream::connect(self.socket_dir.join(SOCKET_FILE)).is_ok()
    }
}

/// Whether a process's working directory is the cluster's folder. A process whose working directory
/// cannot be read counts as the server, because a new server would refuse to start beside it. That
/// includes a server that has ended and whose parent has not yet collected it.
fn works_in(process: Pid, pgdata: &Path) -> bool {
    match fs::read_link(format!("/proc/{process}/cwd")) {
        Ok(dir) => dir == pgdata,
        Err(_) => true,
    }
}

/// Parses the lines: process id, data folder, start time, port, socket folder, address, shared memory,
/// state.
fn parse(text: &str) -> Option<(Pid, Postmaster)> {
    let mut lines = text.lines();
    let process = Pid::from_raw(lines.next()?.trim().parse().ok()?);
    let socket_dir = PathBuf::from(lines.nth(3).unwrap_or_default().trim());
    let state = match lines.nth(2).map(str::trim) {
        Some("ready") => State::Ready,
        Some("stopping") => State::Stopping,
        _ => State::Starting,
    };
    Some((process, Postmaster { socket_dir, state }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_file_is_read_whole_and_while_it_is_being_written() {
        let whole =
            "4711\n/data/postgres\n1764000000\n5432\n/data/run\n\n  5432001    196608\nready   \n";
        let (process, postmaster) = parse(whole).unwrap();
        assert_eq!(process.as_raw(), 4711);
        assert_eq!(postmaster.socket_dir, Path::new("/data/run"));
        assert_eq!(postmaster.state, State::Ready);
        assert_eq!(parse(&whole.replace("ready", "stopping")).unwrap().1.state, State::Stopping);
        assert_eq!(parse("4711\n/data/postgres\n").unwrap().1.state, State::Starting);
        assert_eq!(parse(""), None);
    }
}
