//! A private PostgreSQL for a broker that was given no database.
//!
//! Everything lies under one folder: `postgres/` is the cluster, `run/` the Unix socket (there is
//! no TCP), `postgres.log` the server's log. The server is a daemon of its own: it outlives a
//! broker that is killed, and the next one takes it over.

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

pub use account::Account;
pub use binaries::Binaries;
use cluster::Cluster;
pub use error::Error;

/// The database that is made for the broker.
pub const DATABASE: &str = "trunkline";

/// The superuser of the private server.
pub const USER: &str = "trunkline";

/// A folder of PostgreSQL's binaries that goes before all others.
const BINARIES_VARIABLE: &str = "TRUNKLINE_POSTGRES_BIN";

/// The folder of binaries that the variable names, if it is set; blank is not the same as not set.
pub fn chosen_binaries() -> Result<Option<PathBuf>, Error> {
    match std::env::var_os(BINARIES_VARIABLE) {
        Some(dir) if dir.to_string_lossy().trim().is_empty() => Err(Error::EmptyBinariesVariable),
        dir => Ok(dir.map(PathBuf::from)),
    }
}

/// A running private PostgreSQL. Dropped without [`Self::stop`], it goes on running, as it does
/// when its broker is killed.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    data_dir: PathBuf,
    cluster: Cluster,
    /// Held for as long as this broker uses the folder; the kernel frees it when the broker dies.
    _lock: Flock<File>,
}

impl EmbeddedPostgres {
    /// Starts the PostgreSQL under a folder, creates it at the first start, and takes it over if
    /// it runs already.
    pub async fn start(data_dir: &Path) -> Result<Self, Error> {
        let chosen = chosen_binaries()?;
        Self::start_with(data_dir, chosen.as_deref()).await
    }

    /// As [`Self::start`], with the binaries of a given folder.
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
        let host = percent_encode(&self.socket_dir().to_string_lossy());
        format!("postgresql://{USER}@/{database}?host={host}")
    }

    /// The folder of the Unix socket.
    pub fn socket_dir(&self) -> &Path {
        self.cluster.socket_dir()
    }

    /// The folder of everything.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Stops the server, and waits until it has.
    pub async fn stop(self) -> Result<(), Error> {
        self.cluster.stop().await
    }
}

/// The folder used when none is given: `trunkline-data` here. For root it is
/// `/var/lib/trunkline` where the account that PostgreSQL must run as cannot come here.
pub fn default_data_dir() -> PathBuf {
    let here = PathBuf::from("trunkline-data");
    let reachable = std::env::current_dir()
        .map_err(Error::file("resolve", &here))
        .and_then(|current| Account::for_server(&here)?.check_reach(&current));
    match reachable {
        Err(error @ Error::Unreachable { .. }) => {
            let elsewhere = PathBuf::from("/var/lib/trunkline");
            tracing::info!(data_dir = %elsewhere.display(), reason = %error, "keep the data elsewhere");
            elsewhere
        }
        _ => here,
    }
}

/// Makes the folder, or takes one that is empty or a broker's: nobody else's folder is closed and
/// given to the server's account because its name was mistaken for a broker's.
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

/// pg_ctl hands the path of the log to a shell, in double quotes, and lists of paths end at a
/// NUL or a line's end.
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

/// Encodes what may not stand in a URL's query.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_encoded_for_a_url() {
        assert_eq!(percent_encode("/a b/ü"), "%2Fa%20b%2F%C3%BC");
    }
}
