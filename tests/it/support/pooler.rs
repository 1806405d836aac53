//! Debian's PgBouncer in front of a test's database.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{TestDatabase, until};

/// A running pooler; killed when dropped.
pub struct Pooler {
    child: Child,
    dir: TempDir,
}

impl Pooler {
    /// Starts a pooler in transaction mode with a number of sessions for each database.
    pub async fn start(database: &TestDatabase, sessions: u32, round_robin: bool) -> Self {
        Self::start_in_mode("transaction", database, sessions, round_robin).await
    }

    /// Starts a pooler in a mode. In session mode a client keeps its session until it disconnects.
    pub async fn start_in_mode(
        mode: &str,
        database: &TestDatabase,
        sessions: u32,
        round_robin: bool,
    ) -> Self {
        let program = find_program().expect("PgBouncer was installed when the tests were built");
        // When the tests run as root, the server runs as another user, and only that user may open
        // its socket.
        let owner = fs::metadata(&database.socket_dir).unwrap();
        let dir = tempfile::Builder::new().prefix("trunkline-pooler-").tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let config = dir.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n\
             * = host={server} user={user}\n\
             [pgbouncer]\n\
             listen_addr =\n\
             unix_socket_dir = {socket_dir}\n\
             auth_type = any\n\
             pool_mode = {mode}\n\
             max_client_conn = 200\n\
             default_pool_size = {sessions}\n\
             server_login_retry = 1\n\
             server_round_robin = {round_robin}\n",
            server = database.socket_dir.display(),
            user = database.user,
            socket_dir = dir.path().display(),
            round_robin = u8::from(round_robin),
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.arg("-q").arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        if nix::unistd::geteuid().is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        let child = command.spawn().unwrap();
        let pooler = Self { child, dir };
        until("the pooler listens", async || pooler.socket().exists()).await;
        pooler
    }

    /// The URL of a database through the pooler.
    pub fn url(&self, database: &TestDatabase) -> String {
        let (dir, user) = (self.dir.path().display(), &database.user);
        format!("host={dir} port=6432 user={user} dbname={}", database.name)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join(".s.PGSQL.6432")
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    let program = |folder: &Path| Some(folder.join("pgbouncer")).filter(|path| path.exists());
    folders.iter().find_map(|folder| program(folder))
}
