//! The account that the server runs as, since PostgreSQL refuses to run as root.

use std::{
    fs::{self, Metadata},
    os::unix::fs::{MetadataExt as _, chown},
    path::Path,
};

use nix::unistd::{Gid, Uid, User, geteuid};
use tokio::process::Command;

use super::error::Error;

/// An account that services without one of their own run as.
const SHARED: &str = "nobody";

/// The server's account: this process's own, unless that is root.
#[derive(Clone, Debug)]
pub struct Account {
    /// The account to switch to; `None` for this process's own.
    other: Option<Other>,
}

#[derive(Clone, Debug)]
struct Other {
    name: String,
    uid: Uid,
    gid: Gid,
}

impl Account {
    /// The account for a data folder: its owner unless that is root, otherwise `postgres`. Never
    /// `nobody`, which other programs run as too.
    pub fn for_server(data_dir: &Path) -> Result<Self, Error> {
        if !geteuid().is_root() {
            return Ok(Self { other: None });
        }
        let owner = fs::metadata(data_dir).ok().map(|metadata| Uid::from_raw(metadata.uid()));
        let owner = owner
            .filter(|owner| !owner.is_root())
            .and_then(|owner| User::from_uid(owner).ok().flatten());
        let data_dir = || data_dir.to_owned();
        if owner.as_ref().is_some_and(|owner| owner.name == SHARED) {
            return Err(Error::SharedAccount { data_dir: data_dir() });
        }
        let user = owner
            .or_else(|| User::from_name("postgres").ok().flatten())
            .ok_or_else(|| Error::NoAccount { data_dir: data_dir() })?;
        Ok(Self { other: Some(Other { name: user.name, uid: user.uid, gid: user.gid }) })
    }

    /// Makes the server's account the owner of a file or folder.
    pub fn give(&self, path: &Path) -> Result<(), Error> {
        let Some(other) = &self.other else { return Ok(()) };
        chown(path, Some(other.uid.as_raw()), Some(other.gid.as_raw()))
            .map_err(Error::file("change the owner of", path))
    }

    /// Whether the server's account owns a file or folder.
    pub(super) fn owns(&self, metadata: &Metadata) -> bool {
        let uid = self.other.as_ref().map_or_else(geteuid, |other| other.uid);
        metadata.uid() == uid.as_raw()
    }

    /// Checks that the server may enter every folder of a path.
    pub(super) fn check_reach(&self, path: &Path) -> Result<(), Error> {
        let Some(other) = &self.other else { return Ok(()) };
        for folder in path.ancestors() {
            let metadata =
                fs::metadata(folder).map_err(Error::file("read the permissions of", folder))?;
            if !other.may_enter(&metadata) {
                return Err(Error::Unreachable {
                    path: path.to_owned(),
                    user: other.name.clone(),
                    blocked: folder.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// A command that runs as the server's account.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(other) = &self.other {
            command.uid(other.uid.as_raw()).gid(other.gid.as_raw());
        }
        command
    }
}

impl Other {
    fn may_enter(&self, metadata: &Metadata) -> bool {
        let mode = metadata.mode();
        if metadata.uid() == self.uid.as_raw() {
            return mode & 0o100 != 0;
        }
        // Only the main group counts: a command started as another user has no other groups.
        if metadata.gid() == self.gid.as_raw() {
            return mode & 0o010 != 0;
        }
        mode & 0o001 != 0
    }
}
