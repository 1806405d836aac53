//! What a server has only so much of, all of it taken by others.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::Run;
use crate::support::until;

/// How many connections the brokers and the run may keep while all are taken: one that is tried
/// again and again gets through now and then.
const LEFT: usize = 6;

impl Run {
    /// Takes all locks that there are, and ends the sessions that hold leases: the brokers need
    /// some for new ones. They are free again when what is returned is dropped.
    pub async fn fill_the_lock_table(&self) -> tokio_postgres::Client {
        let sql = self.sql().await;
        let find = "select pid from pg_stat_activity where application_name = 'trunkline lease'";
        let mut leases = Vec::new();
        until("there is a lease session", async || {
            leases = sql.query(find, &[]).await.unwrap();
            !leases.is_empty()
        })
        .await;
        // Taken in pieces: the last piece of a size fails as a whole.
        for piece in [1_000, 100, 10, 1] {
            let lock = format!(
                "select count(pg_advisory_lock(7777, (random() * 1e9)::int)) from generate_series(1, {piece})"
            );
            while sql.simple_query(&lock).await.is_ok() {}
        }
        // There is no room any more to ask the server for that.
        for lease in leases {
            let _ = kill(Pid::from_raw(lease.get(0)), Signal::SIGTERM);
        }
        sql
    }

    /// Ends the brokers' sessions, and takes their connections before they do; these are free again
    /// when what is returned is dropped.
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
