//! Brings the schema up to date, once, however many brokers start at the same time.

use std::time::Duration;

use refinery::Target;
use tokio_postgres::{Client, Config, NoTls};
use tracing::{info, warn};

use super::{Error, connect::prepare_session};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The advisory lock under which one broker at a time migrates; any constant that nobody else
/// uses. Leases use the space of two numbers, which is apart from this one.
const MIGRATION_LOCK: i64 = 0x7472_756e_6b6c_696e;

/// How long to wait for another broker that migrates.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn run(config: &Config) -> Result<(), Error> {
    let mut config = config.clone();
    let (mut client, connection) =
        config.application_name("trunkline migrate").connect(NoTls).await.map_err(unreachable)?;
    let driver = tokio::spawn(connection);
    let outcome = migrate(&mut client).await;
    // The session's end frees the lock.
    drop(client);
    if let Ok(Err(error)) = driver.await {
        warn!(%error, "close the migrating connection");
    }
    outcome
}

async fn migrate(client: &mut Client) -> Result<(), Error> {
    prepare_session(client, LOCK_TIMEOUT).await?;
    client
        .batch_execute(&format!(
            "-- lock_migrations
            select pg_advisory_lock({MIGRATION_LOCK})"
        ))
        .await?;
    client.batch_execute("-- create_schema\ncreate schema if not exists trunkline").await?;

    let mut runner = embedded::migrations::runner();
    runner.set_migration_table_name("trunkline.schema_history");
    let known =
        runner.get_migrations().iter().map(|migration| migration.version()).max().unwrap_or(0);
    if let Some(found) = schema_version(client).await?
        && found > known
    {
        return Err(Error::NewerSchema { found, known });
    }
    let report = runner
        .set_target(Target::Latest)
        .run_async(client)
        .await
        .map_err(|error| Error::Migration(describe(&error)))?;
    for migration in report.applied_migrations() {
        info!(version = migration.version(), name = migration.name(), "migrated the schema");
    }
    if !compresses_with_lz4(client).await? {
        warn!("store payloads with the server's default compression: it was built without lz4");
    }
    Ok(())
}

async fn schema_version(client: &Client) -> Result<Option<i32>, Error> {
    let exists = client
        .query_one(
            "-- find_schema_history\nselect to_regclass('trunkline.schema_history') is not null",
            &[],
        )
        .await?;
    if !exists.get::<_, bool>(0) {
        return Ok(None);
    }
    let version = client
        .query_one(
            "-- find_schema_version\nselect max(version)::integer from trunkline.schema_history",
            &[],
        )
        .await?;
    Ok(version.get(0))
}

async fn compresses_with_lz4(client: &Client) -> Result<bool, Error> {
    let row = client
        .query_one(
            "-- find_compression
            select attcompression = 'l' from pg_attribute
            where attrelid = 'trunkline.batch'::regclass and attname = 'payloads'",
            &[],
        )
        .await?;
    Ok(row.get(0))
}

pub(super) fn unreachable(error: tokio_postgres::Error) -> Error {
    match Error::from(error) {
        // Nothing was sent yet but the request to connect.
        Error::ConnectionLost(problem) => Error::Unavailable(problem),
        other => other,
    }
}

/// The whole chain of causes: the outermost one alone only says that a migration failed.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
