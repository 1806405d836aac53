//! Terminating, cancelling and killing the brokers' sessions, as an operator can.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::Run;
use crate::support::until;

/// The kinds of a broker's connections to PostgreSQL, by application name.
pub const KINDS: [&str; 5] = [
    "trunkline writer",
    "trunkline lease",
    "trunkline listen",
    "trunkline query",
    "trunkline position",
];

impl Run {
    /// Terminates the brokers' sessions with an application name.
    pub async fn end_sessions(&self, application: &str) {
        let end =
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1";
        let sql = self.sql().await;
        until("there is a session to terminate", async || {
            !sql.query(end, &[&application]).await.unwrap().is_empty()
        })
        .await;
    }

    /// Waits until a broker has a lease session.
    pub async fn has_sessions(&self, broker: usize) {
        let count = "select count(*) from pg_stat_activity
            where client_addr = $1::text::inet and application_name = 'trunkline lease'";
        let address = self.address_of(broker).to_string();
        let sql = self.sql().await;
        until("the broker has a lease session", async || {
            sql.query_one(count, &[&address]).await.unwrap().get::<_, i64>(0) > 0
        })
        .await;
    }

    /// Terminates all sessions of one broker.
    pub async fn end_sessions_of(&self, broker: usize) {
        let end = "select pg_terminate_backend(pid) from pg_stat_activity
            where client_addr = $1::text::inet and application_name like 'trunkline%'";
        let address = self.address_of(broker).to_string();
        let ended = self.sql().await.query(end, &[&address]).await.unwrap();
        assert!(!ended.is_empty(), "broker {broker} has no session");
    }

    /// Cancels the brokers' running statements.
    pub async fn cancel_statements(&self, sql: &tokio_postgres::Client) {
        let cancel = "select pg_cancel_backend(pid) from pg_stat_activity
            where application_name like 'trunkline%' and state = 'active'";
        sql.query(cancel, &[]).await.unwrap();
    }

    /// Kills the server process of a session with an application name; false if there is none.
    pub async fn kill_backend(&self, application: &str) -> bool {
        let find = "select pid from pg_stat_activity where application_name = $1 limit 1";
        let found = self.sql().await.query_opt(find, &[&application]).await.unwrap();
        // The process may have ended by itself since then.
        found.is_some_and(|row| kill(Pid::from_raw(row.get(0)), Signal::SIGKILL).is_ok())
    }
}
