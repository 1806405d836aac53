//! Processes of this machine, by `/proc`.

use std::time::Duration;

use procfs::{
    net::{self, TcpState},
    process::{self, FDTarget, Process, Stat},
};

/// The CPU time that a process has used.
pub(super) fn cpu(pid: i32) -> Option<Duration> {
    Some(own_cpu(&stat(pid)?))
}

/// The CPU time that a process and its children have used, including children that have ended.
pub(super) fn cpu_with_children(pid: i32) -> Option<Duration> {
    let parent = stat(pid)?;
    let ended = ticks(u64::try_from(parent.cutime + parent.cstime).unwrap_or(0));
    let all = process::all_processes().ok()?.flatten().filter_map(|process| process.stat().ok());
    let children: Duration = all.filter(|stat| stat.ppid == pid).map(|stat| own_cpu(&stat)).sum();
    Some(own_cpu(&parent) + ended + children)
}

/// The parent of a process.
pub(super) fn parent(pid: i32) -> Option<i32> {
    Some(stat(pid)?.ppid)
}

/// The bytes of memory that a process uses.
pub(super) fn memory(pid: i32) -> Option<u64> {
    Some(Process::new(pid).ok()?.status().ok()?.vmrss? * 1024)
}

/// The process that listens on a TCP port.
pub(super) fn listener(port: u16) -> Option<i32> {
    let mut sockets = [net::tcp(), net::tcp6()].into_iter().flatten().flatten();
    let listening = sockets
        .find(|socket| socket.state == TcpState::Listen && socket.local_address.port() == port)?;
    let has_socket = |process: &Process| {
        process.fd().is_ok_and(|mut files| {
            files
                .any(|file| file.is_ok_and(|file| file.target == FDTarget::Socket(listening.inode)))
        })
    };
    Some(process::all_processes().ok()?.flatten().find(has_socket)?.pid)
}

fn stat(pid: i32) -> Option<Stat> {
    Process::new(pid).ok()?.stat().ok()
}

fn own_cpu(stat: &Stat) -> Duration {
    ticks(stat.utime + stat.stime)
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_found_and_measured() {
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listening.local_addr().unwrap().port();
        let me = std::process::id() as i32;
        assert_eq!(listener(port), Some(me));
        drop(listening);
        assert_eq!(listener(port), None);
        assert!(memory(me).unwrap() > 1024 * 1024);
        let mine = cpu(me).unwrap();
        assert!(cpu_with_children(parent(me).unwrap()).unwrap() >= mine);
    }
}
