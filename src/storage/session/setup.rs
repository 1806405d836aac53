//! What sessions are set to, whatever the server's, the database's or the role's defaults are: one
//! list for sessions of every kind.
//!
//! Does not set what cannot change a result (`work_mem`, cost parameters, tablespaces, the formats
//! of values, which travel in binary form), nor what only an operator can judge: `role`,
//! `row_security`, and what the server logs.

use std::time::Duration;

use tokio_postgres::{Client, Row, types::Type};

use crate::storage::{Error, Storage, error::describe, session::Statements as _};

/// What every transaction relies on.
const SETTINGS: [(&str, &str); 18] = [
    // The broker gives statements up by itself, within limits that belong to what they do. A
    // statement that the server ends too would fail for no reason that the broker knows.
    ("statement_timeout", "0"),
    ("transaction_timeout", "0"),
    // A broker that is stopped in the middle of a transaction must not keep others from a row for
    // long: it is never idle there for more than a round trip.
    ("idle_in_transaction_session_timeout", "5s"),
    // Names of ours are qualified; functions and operators must be PostgreSQL's own.
    ("search_path", "pg_catalog, \"$user\", public"),
    // An error must not end the session.
    ("exit_on_error", "off"),
    // Every statement finds its rows by a key: a plan that was made while a table was small must
    // not read all of it when it has grown.
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

/// What sessions rely on that are ours for as long as we like. Transactions of sessions that a
/// pooler lends say how they begin, and whoever owns a session decides when it ends.
const OF_SESSIONS: [(&str, &str); 5] = [
    ("idle_session_timeout", "0"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // Migrations create tables; an access method of another kind may not know row locks.
    ("default_table_access_method", "heap"),
];

/// Foreign keys are not looked after in a session of a replica.
const REPLICATION_ROLE: (&str, &str) = ("session_replication_role", "origin");

/// What lets the server notice a broker that vanished, and with it free the broker's locks, within
/// a quarter of a minute, whether it had something to tell the broker or not.
const KEEPALIVES: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "3"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "14s"),
];

/// An acknowledgement promises that the data is on disk: raised to `on`, and left alone where it
/// is stricter.
const SYNCHRONOUS_COMMIT: &str = "case
    when current_setting('synchronous_commit') in ('off', 'local', 'remote_write')
    then 'on' else current_setting('synchronous_commit') end";

/// Options of a request for a session, the fullest first. Not every server knows every setting.
pub(crate) fn options_of_the_start(given: Option<&str>) -> [String; 2] {
    let mut options = given.unwrap_or_default().to_owned();
    let early = [
        ("statement_timeout", "0"),
        ("idle_session_timeout", "0"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("exit_on_error", "off"),
        ("default_transaction_read_only", "off"),
    ];
    for (name, value) in KEEPALIVES.into_iter().chain(early) {
        options.push_str(&format!(" -c {name}={value}"));
    }
    let options = options.trim_start().to_owned();
    // It came with PostgreSQL 17.
    [format!("{options} -c transaction_timeout=0"), options]
}

/// Sets what every session of ours must have.
pub(crate) async fn prepare_session(
    client: &Client,
    lock_timeout: Duration,
) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(&statement(lock_timeout, false)).await
}

/// A statement that makes the settings of one transaction, in a session that a pooler lends.
pub(crate) fn of_transaction(lock_timeout: Duration) -> String {
    statement(lock_timeout, true)
}

fn statement(lock_timeout: Duration, of_transaction: bool) -> String {
    // A session sets all, so that a reload of the server's configuration changes nothing in it. A
    // transaction of a pooler's session pays for each setting each time, so it sets only what
    // differs, and what publishes rely on most.
    let always = !of_transaction;
    let mut rows = vec![
        format!("('synchronous_commit', {SYNCHRONOUS_COMMIT}, true)"),
        format!("('lock_timeout', '{}', true)", lock_timeout.as_millis()),
    ];
    let row = |(name, value), always| format!("('{name}', '{value}', {always})");
    rows.extend(wanted(of_transaction).map(|setting| row(setting, always)));
    if !of_transaction {
        // Also for sessions of poolers, which were not requested with them.
        rows.extend(KEEPALIVES.map(|setting| row(setting, always)));
    }
    // It takes a privilege, and so is set only where it differs.
    rows.push(row(REPLICATION_ROLE, false));
    // Not every server knows every setting: `current_setting` is null there.
    format!(
        "/* settings */
        select pg_catalog.set_config(name, value, {of_transaction})
        from (values {}) as settings (name, value, always)
        where case when always then pg_catalog.current_setting(name, true) is not null
              else pg_catalog.current_setting(name, true) operator(pg_catalog.<>) value end",
        rows.join(", ")
    )
}

fn wanted(of_transaction: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    let of_sessions = OF_SESSIONS.into_iter().filter(move |_| !of_transaction);
    SETTINGS.into_iter().chain(of_sessions)
}

/// Checks on a session that it can be set up, and is then set to what was asked for.
pub(crate) async fn check(client: &Client, lock_timeout: Duration) -> Result<(), Error> {
    if let Err(error) = prepare_session(client, lock_timeout).await {
        return Err(match error.as_db_error() {
            Some(_) => find_what_cannot_be_set(client, error).await,
            None => error.into(),
        });
    }
    let rows = client.query_typed(CHECK, &[(&names(false), Type::TEXT_ARRAY)]).await?;
    let Some((name, value, found)) = find_other(&rows, false) else { return Ok(()) };
    let source = source(client, name).await;
    Err(Error::Setting(format!("{name} stays {found} ({source}), not {value}")))
}

/// Checks on a session that a pooler lends what its transactions are set to.
pub(crate) async fn check_lent(storage: &Storage) -> Result<(), Error> {
    let rows = storage.query().await?.query(CHECK, &[&names(true)]).await?;
    let Some((name, value, found)) = find_other(&rows, true) else { return Ok(()) };
    Err(Error::Setting(format!(
        "{name} stays {found} in the pooler's sessions, and is not set to {value}"
    )))
}

/// What is checked, in one round trip, however far the server is.
const CHECK: &str = "-- check_settings
    select name, current_setting(name, true) from unnest($1::text[]) as name";

fn checked(of_transaction: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    wanted(of_transaction).chain([REPLICATION_ROLE])
}

fn names(of_transaction: bool) -> Vec<&'static str> {
    checked(of_transaction).map(|(name, _)| name).collect()
}

/// The first setting that is not what was asked for, with what was asked for and what it is. A
/// setting that the server does not know has no value.
fn find_other(rows: &[Row], of_transaction: bool) -> Option<(&'static str, &'static str, &str)> {
    checked(of_transaction).find_map(|(name, value)| {
        let row = rows.iter().find(|row| row.get::<_, &str>(0) == name)?;
        let found = row.get::<_, Option<&str>>(1)?;
        (found != value).then_some((name, value, found))
    })
}

/// The setting that is refused, found by setting each alone.
async fn find_what_cannot_be_set(client: &Client, error: tokio_postgres::Error) -> Error {
    for (name, value) in checked(false).chain(KEEPALIVES) {
        let alone = format!(
            "select pg_catalog.set_config('{name}', '{value}', false)
            where pg_catalog.current_setting('{name}', true) <> '{value}'"
        );
        if let Err(error) = client.batch_execute(&alone).await {
            let source = source(client, name).await;
            let problem = describe(&error);
            return Error::Setting(format!(
                "{name} ({source}) cannot be set to {value}: {problem}"
            ));
        }
    }
    error.into()
}

/// Who set what a setting is, if it can be told.
async fn source(client: &Client, name: &str) -> String {
    let question = format!(
        "-- find_source
        select coalesce(
            (select string_agg(concat_ws(' ',
                        case when setrole = 0 and setdatabase = 0 then 'alter role all'
                             when setrole = 0 then 'alter database ' || current_database()
                             when setdatabase = 0 then 'alter role ' || session_user
                             else 'alter role ' || session_user
                                  || ' in database ' || current_database() end,
                        'set', setting), ', ')
             from pg_db_role_setting, unnest(setconfig) as settings (setting)
             where setdatabase in (
                       0, (select oid from pg_database where datname = current_database()))
               and setrole in (0, (select oid from pg_roles where rolname = session_user))
               and split_part(setting, '=', 1) = '{name}'),
            (select concat_ws(' ', source, sourcefile, sourceline) from pg_settings
             where name = '{name}'))"
    );
    let rows = client.query_typed(&question, &[]).await.unwrap_or_default();
    let source = rows.first().and_then(|row| row.get::<_, Option<String>>(0));
    source.unwrap_or_else(|| "nobody knows who set it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_asks_for_goes_with_the_request() {
        let [fullest, other] = options_of_the_start(Some("-c work_mem=5MB"));
        assert!(fullest.starts_with("-c work_mem=5MB -c tcp_keepalives_idle=5"), "{fullest}");
        assert!(fullest.ends_with(" -c transaction_timeout=0"), "{fullest}");
        assert_eq!(fullest.strip_suffix(" -c transaction_timeout=0"), Some(other.as_str()));
        assert!(options_of_the_start(None)[1].starts_with("-c "));
    }
}
