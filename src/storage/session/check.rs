//! Checks at the start that sessions can be set up, and names the setting that is refused.

use std::time::Duration;

use tokio_postgres::{Client, Row, types::Type};

use crate::storage::{
    error::{Error, describe},
    session::{
        pool::SessionPool,
        run::Statements as _,
        setup::{checked, prepare_session, refusable},
    },
};

/// Finds the settings in one round trip, however far away the server is.
const CHECK: &str = "-- check_settings
    select name, current_setting(name, true) from unnest($1::text[]) as name";

/// Sets a direct session up, and checks the outcome.
pub(crate) async fn check_direct(client: &Client, lock_timeout: Duration) -> Result<(), Error> {
    if let Err(error) = prepare_session(client, lock_timeout).await {
        return Err(match error.as_db_error() {
            Some(_) => find_what_cannot_be_set(client, error).await,
            None => error.into(),
        });
    }
    let rows = client.query_typed(CHECK, &[(&names(false), Type::TEXT_ARRAY)]).await?;
    let Some((name, value, found)) = find_deviation(&rows, false) else { return Ok(()) };
    let source = source(client, name).await;
    Err(Error::Setting(format!("{name} stays {found} ({source}), not {value}")))
}

/// Checks what the transactions of a pooled session are set to.
pub(crate) async fn check_pooled(sessions: &SessionPool) -> Result<(), Error> {
    let rows = sessions.get().await?.query(CHECK, &[&names(true)]).await?;
    let Some((name, value, found)) = find_deviation(&rows, true) else { return Ok(()) };
    Err(Error::Setting(format!(
        "{name} stays {found} in the pooler's sessions, and is not set to {value}"
    )))
}

fn names(of_transaction: bool) -> Vec<&'static str> {
    checked(of_transaction).map(|(name, _)| name).collect()
}

/// The first setting that is not what it must be, with what it must be and what it is. A setting
/// that the server does not know has no value.
fn find_deviation(
    rows: &[Row],
    of_transaction: bool,
) -> Option<(&'static str, &'static str, &str)> {
    checked(of_transaction).find_map(|(name, value)| {
        let row = rows.iter().find(|row| row.get::<_, &str>(0) == name)?;
        let found = row.get::<_, Option<&str>>(1)?;
        (found != value).then_some((name, value, found))
    })
}

/// Finds the setting that the server refuses, by making each on its own.
async fn find_what_cannot_be_set(client: &Client, error: tokio_postgres::Error) -> Error {
    // The statements below name PostgreSQL's own functions. If this fails, the first of them may
    // fail as well, and is then reported.
    let own = "select pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false)";
    let _ = client.batch_execute(own).await;
    for (name, value) in refusable() {
        let alone = format!(
            "select pg_catalog.set_config('{name}', '{value}', false)
            where pg_catalog.current_setting('{name}', true)
                  operator(pg_catalog.<>) '{value}'"
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

/// Where a setting's value comes from, as far as the catalogues say.
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
    source.unwrap_or_else(|| "source unknown".to_owned())
}
