//! Runs Debian's PgBouncer.

use std::{
    fs::{self, Metadata},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// A running PgBouncer; killed when dropped.
pub struct PgBouncer(Child);

/// A folder for it and for the owner of a file of the server. It runs as that owner: when the tests run
/// as root, only that user may open the server's socket.
pub fn folder(owner: &Metadata) -> TempDir {
    let folder = tempfile::Builder::new().prefix("trunkline-pooler-").tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

impl PgBouncer {
    /// Starts it in its folder, for all databases of a server, with further settings.
    pub fn start(folder: &Path, server: &str, settings: &str) -> Self {
        let program = find_program().expect("PgBouncer was installed when the tests were built");
        let config = folder.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n\
             * = {server}\n\
             [pgbouncer]\n\
             auth_type = any\n\
             max_client_conn = 200\n\
             server_login_retry = 1\n\
             {settings}"
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.arg("-q").arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        if nix::unistd::geteuid().is_root() {
            let owner = fs::metadata(folder).unwrap();
            command.uid(owner.uid()).gid(owner.gid());
        }
        Self(command.spawn().unwrap())
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn find_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    let program = |folder: &Path| Some(folder.join("pgbouncer")).filter(|path| path.exists());
    folders.iter().find_map(|folder| program(folder))
}
