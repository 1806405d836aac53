//! PgBouncer in front of a run's server, for SQL clients. It can be killed and started again.

use std::fs;

use tempfile::TempDir;

use crate::{
    pgbouncer::{self, PgBouncer},
    postgres::{Postgres, USER, connect, url_at},
    support::{free_port, until},
};

/// Sessions that all SQL clients share: fewer than there are clients.
const SESSIONS: u32 = 4;

/// A pooler in transaction mode.
pub struct Pooler {
    running: Option<PgBouncer>,
    folder: TempDir,
    port: u16,
    server: String,
}

impl Pooler {
    /// Starts one for a server.
    pub async fn start(postgres: &Postgres) -> Self {
        // Belongs to the server's user, as its log may not.
        let data = postgres.log().with_file_name("data");
        let folder = pgbouncer::folder(&fs::metadata(data).unwrap());
        let server = format!("host=127.0.0.1 port={} user={USER}", postgres.port());
        let mut pooler = Self { running: None, folder, port: free_port(), server };
        pooler.start_again().await;
        pooler
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Starts it at the same port, and waits until it listens.
    pub async fn start_again(&mut self) {
        let settings = format!(
            "listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             pool_mode = transaction\n\
             default_pool_size = {SESSIONS}\n",
            port = self.port,
        );
        self.running = Some(PgBouncer::start(self.folder.path(), &self.server, &settings));
        until("the pooler answers", async || connect(&self.url()).await.is_ok()).await;
    }

    /// The URL of the database through the pooler.
    pub fn url(&self) -> String {
        url_at(self.port)
    }
}
