//! What sessions are set to, whatever the defaults of the server, the database or the role are: one
//! list for sessions of every kind.
//!
//! Does not set what cannot change a result (`work_mem`, cost parameters, tablespaces, the formats
//! of values, which are sent in binary form), nor what only an operator can judge: `role`,
//! `row_security`, and what the server logs.

use std::time::Duration;

use tokio_postgres::Client;

/// What every transaction relies on.
const SETTINGS: [(&str, &str); 18] = [
    // The broker gives statements up itself, each kind within its own limit. If the server ended
    // them too, they would fail for a reason that the broker does not know.
    ("statement_timeout", "0"),
    ("transaction_timeout", "0"),
    // A broker that freezes in the middle of a transaction must not block a row for long. A running
    // one is never idle there for more than a round trip.
    ("idle_in_transaction_session_timeout", "5s"),
    // Our own names are qualified; all others must be PostgreSQL's, whatever other users create.
    ("search_path", "pg_catalog, pg_temp"),
    // An error must not end the session.
    ("exit_on_error", "off"),
    // Every statement finds its rows by a key. A plan that was made while a table was small must
    // not scan the whole table once it has grown.
    ("enable_seqscan", "off"),
    ("enable_indexscan", "on"),
    ("enable_indexonlyscan", "on"),
    ("enable_bitmapscan", "on"),
    ("enable_nestloop", "on"),
    ("enable_material", "on"),
    ("enable_memoize", "on"),
    ("enable_sort", "on"),
    ("enable_hashagg", "on"),
    ("enable_hashjoin", "on"),
    ("enable_mergejoin", "on"),
    ("jit", "off"),
    ("plan_cache_mode", "auto"),
];

/// What direct sessions rely on besides. Transactions of pooled sessions state these properties
/// when they begin, and the pooler decides when its sessions end.
const DIRECT_SETTINGS: [(&str, &str); 5] = [
    ("idle_session_timeout", "0"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // Migrations create tables, and another access method may not support row locks.
    ("default_table_access_method", "heap"),
];

/// A session with the role `replica` does not enforce foreign keys.
const REPLICATION_ROLE: (&str, &str) = ("session_replication_role", "origin");

/// Lets the server notice within 15 s that a broker has vanished, and free the broker's locks,
/// whether or not it has anything to send to the broker.
const KEEPALIVES: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "3"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "14s"),
];

/// An acknowledgement promises that the data is on disk, so weaker values are raised to `on`, and
/// stricter ones are kept.
const SYNCHRONOUS_COMMIT: &str = "case
    when current_setting('synchronous_commit') in ('off', 'local', 'remote_write')
    then 'on' else current_setting('synchronous_commit') end";

/// Candidates for the startup options of a session, the most complete first, as not every server
/// knows every setting. They add to the options that the URL gives.
///
/// These settings matter before the first statement, which must already find PostgreSQL's functions. A broker that vanishes before it has set a
/// session up would otherwise leave it behind for the two hours that kernels wait, and a time limit
/// of the role's might end the very statement that lifts it. Poolers accept no such options.
pub(crate) fn startup_options(given: Option<&str>) -> [String; 2] {
    let mut options = given.unwrap_or_default().to_owned();
    let early = [
        ("statement_timeout", "0"),
        ("idle_session_timeout", "0"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("exit_on_error", "off"),
        ("default_transaction_read_only", "off"),
        ("search_path", "pg_catalog,pg_temp"),
    ];
    for (name, value) in KEEPALIVES.into_iter().chain(early) {
        options.push_str(&format!(" -c {name}={value}"));
    }
    let options = options.trim_start().to_owned();
    // `transaction_timeout` came with PostgreSQL 17.
    [format!("{options} -c transaction_timeout=0"), options]
}

/// Sets a direct session up.
pub(crate) async fn prepare_session(
    client: &Client,
    lock_timeout: Duration,
) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(&statement(lock_timeout, false)).await
}

/// The statement that sets up one transaction of a pooled session.
pub(crate) fn transaction_settings(lock_timeout: Duration) -> String {
    statement(lock_timeout, true)
}

fn statement(lock_timeout: Duration, of_transaction: bool) -> String {
    // A session sets everything, so that a reload of the server's configuration changes nothing in
    // it. A transaction of a pooled session pays for each setting each time, so it sets only what
    // differs, besides the durability and the lock timeout.
    let always = !of_transaction;
    let mut rows = vec![
        format!("('synchronous_commit', {SYNCHRONOUS_COMMIT}, true)"),
        format!("('lock_timeout', '{}', true)", lock_timeout.as_millis()),
    ];
    let row = |(name, value), always| format!("('{name}', '{value}', {always})");
    rows.extend(wanted(of_transaction).map(|setting| row(setting, always)));
    if !of_transaction {
        // Sessions of servers that reject startup options do not have them yet.
        rows.extend(KEEPALIVES.map(|setting| row(setting, always)));
    }
    // Setting it requires a privilege, so it is set only where it differs.
    rows.push(row(REPLICATION_ROLE, false));
    // `current_setting` is null for a setting that the server does not know.
    format!(
        "/* settings */
        select pg_catalog.set_config(name, value, {of_transaction})
        from (values {}) as settings (name, value, always)
        where case when always then pg_catalog.current_setting(name, true) is not null
              else pg_catalog.current_setting(name, true) operator(pg_catalog.<>) value end",
        rows.join(", ")
    )
}

/// The settings of a transaction or of a direct session, except those with rules of their own.
fn wanted(of_transaction: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    let direct = DIRECT_SETTINGS.into_iter().filter(move |_| !of_transaction);
    SETTINGS.into_iter().chain(direct)
}

/// The settings that can be checked: what they must be is always the same.
pub(crate) fn checked(of_transaction: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    wanted(of_transaction).chain([REPLICATION_ROLE])
}

/// All settings of a direct session that may be refused.
pub(crate) fn refusable() -> impl Iterator<Item = (&'static str, &'static str)> {
    checked(false).chain(KEEPALIVES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn startup_options_add_to_those_of_the_url() {
        let [fullest, other] = startup_options(Some("-c work_mem=5MB"));
        assert!(fullest.starts_with("-c work_mem=5MB -c tcp_keepalives_idle=5"), "{fullest}");
        assert!(fullest.ends_with(" -c transaction_timeout=0"), "{fullest}");
        assert_eq!(fullest.strip_suffix(" -c transaction_timeout=0"), Some(other.as_str()));
        assert!(startup_options(None)[1].starts_with("-c "));
    }
}
