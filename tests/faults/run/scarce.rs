//! Limited resources of a server, exhausted by others.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::Run;
use crate::support::until;

/// How many connections may stay with the brokers and the run, as repeated attempts to connect
/// succeed now and then.
const LEFT: usize = 6;

impl Run {
    /// Takes all locks, and terminates the lease sessions, so that the brokers need locks for new
    /// ones. Dropping the result frees the locks.
    pub async fn fill_the_lock_table(&self) -> tokio_postgres::Client {
        let sql = self.sql().await;
        let find = "select pid from pg_stat_activity where application_name = 'trunkline lease'";
        let mut leases = Vec::new();
        until("there is a lease session", async || {
            leases = sql.query(find, &[]).await.unwrap();
            !leases.is_empty()
        })
        .await;
        // In decreasing numbers, as a statement that runs out of locks fails as a whole.
        for piece in [1_000, 100, 10, 1] {
            let lock = format!(
                "select count(pg_advisory_lock(7777, (random() * 1e9)::int)) from generate_series(1, {piece})"
            );
            while sql.simple_query(&lock).await.is_ok() {}
        }
        // By signal, as the server has no locks left for `pg_terminate_backend`.
        for lease in leases {
            let _ = kill(Pid::from_raw(lease.get(0)), Signal::SIGTERM);
        }
        sql
    }

    /// Terminates the brokers' sessions, and takes their connections before the brokers can reopen
    /// them. Dropping the result frees the connections.
    pub async fn take_all_connections(&self) -> Vec<tokio_postgres::Client> {
        let sql = self.sql().await;
        let most: String = sql.query_one("show max_connections", &[]).await.unwrap().get(0);
        let enough = most.parse::<usize>().unwrap() - LEFT;
        let mut hogs = Vec::new();
        let end = "select pg_terminate_backend(pid) from pg_stat_activity
            where application_name like 'trunkline%'";
        until("the brokers have no connection", async || {
            sql.query(end, &[]).await.unwrap();
            while let Ok(hog) = self.postgres.try_connect().await {
                hogs.push(hog);
            }
            hogs.len() >= enough
        })
        .await;
        hogs
    }
}
