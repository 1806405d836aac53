//! A private PostgreSQL for a broker that was given no database.
//!
//! Everything is in one folder: `postgres/` is the cluster, `run/` holds the Unix socket (there is no
//! TCP), and `postgres.log` is the server's log. The server is a separate daemon: if its broker is
//! killed it goes on running, and the next broker takes it over.

mod account;
mod binaries;
mod cluster;
mod error;
mod postmaster;

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use account::Account;
pub use binaries::Binaries;
use cluster::Cluster;
pub use cluster::{DATABASE, USER};
pub use error::Error;

/// Names a folder of PostgreSQL's binaries to use instead of all others.
const BINARIES_VARIABLE: &str = "TRUNKLINE_POSTGRES_BIN";

/// What must be encoded in a URL's query: everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The folder of binaries that the variable names, if it is set. A blank value is an error.
pub fn chosen_binaries() -> Result<Option<PathBuf>, Error> {
    match std::env::var_os(BINARIES_VARIABLE) {
        Some(dir) if dir.to_string_lossy().trim().is_empty() => Err(Error::EmptyBinariesVariable),
        dir => Ok(dir.map(PathBuf::from)),
    }
}

/// A running private PostgreSQL. If this is dropped without [`Self::stop`], the server goes on
/// running, as it does when its broker is killed.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    data_dir: PathBuf,
    cluster: Cluster,
    /// Keeps other brokers out of the folder; the kernel releases it when the broker dies.
    _lock: Flock<File>,
}

impl EmbeddedPostgres {
    /// Starts the PostgreSQL in a folder: creates it if there is none, and takes it over if it is
    /// running.
    pub async fn start(data_dir: &Path) -> Result<Self, Error> {
        let chosen = chosen_binaries()?;
        Self::start_with(data_dir, chosen.as_deref()).await
    }

    /// As [`Self::start`], with the binaries in the given folder.
    pub async fn start_with(data_dir: &Path, binaries: Option<&Path>) -> Result<Self, Error> {
        create_private_dir(data_dir)?;
        let data_dir = data_dir.canonicalize().map_err(Error::file("resolve", data_dir))?;
        check_path(&data_dir)?;
        let lock = lock(&data_dir)?;
        let account = Account::for_server(&data_dir)?;
        account.give(&data_dir)?;
        account.check_reach(&data_dir)?;
        let binaries = Binaries::find(binaries, &cluster::pgdata(&data_dir))?;
        let cluster = Cluster::start(&data_dir, binaries, account).await?;
        Ok(Self { data_dir, cluster, _lock: lock })
    }

    /// The URL of one of the server's databases.
    pub fn url(&self, database: &str) -> String {
        socket_url(self.socket_dir(), database)
    }

    /// The folder of the Unix socket.
    pub fn socket_dir(&self) -> &Path {
        self.cluster.socket_dir()
    }

    /// The folder that holds everything.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Stops the server, and waits until it has stopped.
    pub async fn stop(self) -> Result<(), Error> {
        self.cluster.stop().await
    }
}

/// The folder used when none is given: `trunkline-data` in the current folder. If the broker runs as
/// root, and the account that PostgreSQL must run as cannot enter the current folder, it is
/// `/var/lib/trunkline`.
pub fn default_data_dir() -> PathBuf {
    let here = PathBuf::from("trunkline-data");
    let reachable = std::env::current_dir()
        .map_err(Error::file("resolve", &here))
        .and_then(|current| Account::for_server(&here)?.check_reach(&current));
    match reachable {
        Err(error @ Error::Unreachable { .. }) => {
            let elsewhere = PathBuf::from("/var/lib/trunkline");
            tracing::info!(data_dir = %elsewhere.display(), %error, "using another data folder");
            elsewhere
        }
        _ => here,
    }
}

/// Creates the folder, or accepts one that is empty or a broker's. Any other folder is refused: its
/// name may be a mistake, and its owner and permissions would change.
fn create_private_dir(path: &Path) -> Result<(), Error> {
    let mut entries = fs::read_dir(path).into_iter().flatten();
    let ours = ["broker.lock", "postgres", "postgres.new"];
    if entries.next().is_some() && !ours.iter().any(|name| path.join(name).exists()) {
        return Err(Error::OtherUse { path: path.to_owned() });
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o700)))
        .map_err(Error::file("create", path))
}

/// Refuses characters that PostgreSQL's tools cannot take in a path: pg_ctl passes the path of the log
/// to a shell in double quotes, and a list of paths ends at a NUL or at the end of a line.
fn check_path(path: &Path) -> Result<(), Error> {
    let text = path.to_string_lossy();
    match text
        .chars()
        .find(|&c| matches!(c, '"' | '$' | '`' | '\\' | '\n' | char::REPLACEMENT_CHARACTER))
    {
        Some(bad) => Err(Error::OddPath { path: path.to_owned(), bad }),
        None => Ok(()),
    }
}

fn lock(data_dir: &Path) -> Result<Flock<File>, Error> {
    let path = data_dir.join("broker.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::file("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| Error::InUse { data_dir: data_dir.to_owned() })
}

fn socket_url(socket_dir: &Path, database: &str) -> String {
    let socket_dir = socket_dir.to_string_lossy();
    let host = utf8_percent_encode(&socket_dir, RESERVED);
    format!("postgresql://{USER}@/{database}?host={host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_socket_is_encoded_in_the_url() {
        let url = socket_url(Path::new("/a b/ü-._~"), "orders");
        assert_eq!(url, "postgresql://trunkline@/orders?host=%2Fa%20b%2F%C3%BC-._~");
    }
}
