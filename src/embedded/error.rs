//! Why a private PostgreSQL could not be started or stopped.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a private PostgreSQL could not be started or stopped, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts describe the variants.
pub enum Error {
    #[error(
        "find PostgreSQL's server binaries (initdb, pg_ctl, postgres; version 14 or later): install them (Debian and Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; Alpine: apk add postgresql; macOS: brew install postgresql@17), or name their folder in TRUNKLINE_POSTGRES_BIN"
    )]
    NoBinaries,
    #[error("read TRUNKLINE_POSTGRES_BIN: it is given but empty: give it a value, or leave it out")]
    EmptyBinariesVariable,
    #[error(
        "find initdb, pg_ctl and postgres of version 14 or later in {dir:?}, which TRUNKLINE_POSTGRES_BIN names"
    )]
    NotInChosenDir { dir: PathBuf },
    #[error(
        "open {data_dir}: it was created by PostgreSQL {found}, but the installed binaries are of {available}; install PostgreSQL {found} or choose another --data-dir"
    )]
    OtherMajor { data_dir: PathBuf, found: String, available: String },
    #[error("use {data_dir}: another broker uses it")]
    InUse { data_dir: PathBuf },
    #[error(
        "use {path}: PostgreSQL does not run as root, and the account {user}, which it runs as instead, may not enter {blocked}; choose another folder with --data-dir, /var/lib/trunkline for example"
    )]
    Unreachable { path: PathBuf, user: String, blocked: PathBuf },
    #[error(
        "find an account for PostgreSQL, which does not run as root: there is no account postgres; create it (useradd --system postgres), or make an account of its own the owner of {data_dir} (chown)"
    )]
    NoAccount { data_dir: PathBuf },
    #[error(
        "use {data_dir}: it belongs to nobody, an account that other programs share and that could read the data; make the account postgres its owner (chown -R postgres {data_dir})"
    )]
    SharedAccount { data_dir: PathBuf },
    #[error("use {path}: PostgreSQL's tools cannot handle a path that contains {bad:?}")]
    OddPath { path: PathBuf, bad: char },
    #[error(
        "use {path}: it holds something other than a broker's data; choose a new or an empty folder with --data-dir"
    )]
    OtherUse { path: PathBuf },
    #[error("use {path}: another account owns it, or it is not a folder")]
    ForeignDir { path: PathBuf },
    #[error("{verb} {path}: {source}")]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("run {command}: {problem}")]
    Command { command: String, problem: String },
    #[error(
        "wait for the PostgreSQL in {data_dir}: it is neither ready nor gone after {seconds} s"
    )]
    Stuck { data_dir: PathBuf, seconds: u64 },
}

impl Error {
    /// Makes an I/O error one of this file or folder, for `map_err`.
    pub(super) fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { verb, path, source }
    }
}
