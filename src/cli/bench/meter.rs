//! What a run takes: of the database, if its URL is known, and of processes on this machine.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use nix::unistd::{SysconfVar, sysconf};

use super::super::failure::Failure;
use crate::storage::{Counters, Meter};

/// Where to look.
pub(super) struct Meters {
    database: Option<Meter>,
    broker: Option<i32>,
    /// What the names of the run's topics begin with.
    topics: String,
}

/// What has been taken so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) at: Instant,
    pub(super) database: Option<Counters>,
    pub(super) broker_cpu: Option<Duration>,
    pub(super) broker_memory: Option<u64>,
    pub(super) postgres_cpu: Option<Duration>,
}

impl Meters {
    pub(super) async fn open(
        endpoint: &str,
        database_url: Option<&str>,
        topics: &str,
    ) -> Result<Self, Failure> {
        let failed = |error| Failure::refused(format!("measure the database: {error}"));
        let database = match database_url {
            Some(url) => Some(Meter::connect(url).await.map_err(failed)?),
            None => None,
        };
        let port = endpoint.rsplit(':').next().and_then(|port| port.parse().ok());
        Ok(Self { database, broker: port.and_then(listener), topics: topics.to_owned() })
    }

    pub(super) async fn read(&self) -> Result<Taken, Failure> {
        let failed = |error| Failure::refused(format!("measure the database: {error}"));
        let database = match &self.database {
            Some(meter) => Some(meter.read(&self.topics).await.map_err(failed)?),
            None => None,
        };
        let postmaster = database.and_then(|counters| stat(counters.backend)?.parent());
        Ok(Taken {
            at: Instant::now(),
            database,
            broker_cpu: self.broker.and_then(|pid| Some(stat(pid)?.cpu())),
            broker_memory: self.broker.and_then(memory),
            postgres_cpu: postmaster.and_then(cpu_of_all),
        })
    }
}

/// The fields of `/proc/PID/stat` behind the name, which may hold anything.
struct Stat(Vec<String>);

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned);
    Some(Stat(fields.collect()))
}

impl Stat {
    /// Counted as in proc(5), where the state is field 3.
    fn field(&self, number: usize) -> Option<u64> {
        self.0.get(number - 3)?.parse().ok()
    }

    fn parent(&self) -> Option<i32> {
        self.field(4)?.try_into().ok()
    }

    fn cpu(&self) -> Duration {
        self.ticks(&[14, 15])
    }

    /// With what children took that have ended.
    fn cpu_with_children(&self) -> Duration {
        self.ticks(&[14, 15, 16, 17])
    }

    fn ticks(&self, fields: &[usize]) -> Duration {
        let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        let ticks: u64 = fields.iter().filter_map(|&number| self.field(number)).sum();
        Duration::from_secs_f64(ticks as f64 / per_second as f64)
    }
}

/// What a process and its children have taken; `None` if it is not to be seen from here.
fn cpu_of_all(parent: i32) -> Option<Duration> {
    let mut all = stat(parent)?.cpu_with_children();
    for pid in processes() {
        all += stat(pid)
            .filter(|stat| stat.parent() == Some(parent))
            .map_or(Duration::ZERO, |s| s.cpu());
    }
    Some(all)
}

/// Bytes that a process has in memory.
fn memory(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The process that listens on a TCP port of this machine.
fn listener(port: u16) -> Option<i32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let inode = tables.iter().flatten().flat_map(|table| table.lines()).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(3) == Some(&"0A");
        let local = fields.get(1)?.rsplit(':').next()?;
        let here = u16::from_str_radix(local, 16) == Ok(port);
        (listens && here).then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
    })?;
    let has = |pid: &i32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.flat_map(|file| fs::read_link(file.path())).any(|link| link == Path::new(&inode))
    };
    processes().into_iter().find(has)
}

fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
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
        let parent = stat(me).unwrap().parent().unwrap();
        assert!(cpu_of_all(parent).unwrap() >= stat(me).unwrap().cpu());
    }
}
