//! PgBouncer in front of a test's database.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::{
    TestDatabase,
    pgbouncer::{self, PgBouncer},
    until,
};

/// A running pooler; killed when dropped.
pub struct Pooler {
    _running: PgBouncer,
    folder: TempDir,
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
        let folder = pgbouncer::folder(&fs::metadata(&database.socket_dir).unwrap());
        let server = format!("host={} user={}", database.socket_dir.display(), database.user);
        let settings = format!(
            "listen_addr =\n\
             unix_socket_dir = {socket_dir}\n\
             pool_mode = {mode}\n\
             default_pool_size = {sessions}\n\
             server_round_robin = {round_robin}\n",
            socket_dir = folder.path().display(),
            round_robin = u8::from(round_robin),
        );
        let running = PgBouncer::start(folder.path(), &server, &settings);
        let pooler = Self { _running: running, folder };
        until("the pooler listens", async || pooler.socket().exists()).await;
        pooler
    }

    /// The URL of a database through the pooler.
    pub fn url(&self, database: &TestDatabase) -> String {
        let (dir, user) = (self.folder.path().display(), &database.user);
        format!("host={dir} port=6432 user={user} dbname={}", database.name)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.6432")
    }
}
