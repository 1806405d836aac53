//! Brings the schema up to date. If several brokers start at the same time, one does it.

use std::time::Duration;

use refinery::{Migration, Target};
use tokio_postgres::{Client, Row};
use tracing::{info, warn};

use crate::storage::{
    connector::Connector,
    error::{Error, chain},
    schema::{
        functions,
        privileges::{self, MissingOwner},
    },
    session::prepare_session,
};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The table that records which migrations were applied.
const HISTORY: &str = "trunkline.schema_history";

/// The advisory lock under which one broker at a time migrates: any constant that nothing else
/// uses. Leases use keys of two numbers, which are a space of their own.
const MIGRATION_LOCK: i64 = 0x7472_756e_6b6c_696e;

/// How long to wait for another broker that is migrating.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// The number of the last migration that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaVersion(pub i32);

/// Applies the migrations that are missing, and checks that the role may use the result. A role that
/// may not change the schema can call this as long as none is missing.
pub(crate) async fn migrate(connector: &Connector) -> Result<SchemaVersion, Error> {
    let (mut client, connection) = connector.connect("trunkline migrate").await?;
    let driver = tokio::spawn(connection);
    let outcome = lock_and_migrate(&mut client).await;
    // Ending the session frees the lock.
    drop(client);
    if let Ok(Err(error)) = driver.await {
        warn!(error = chain(&error), "close the migrating connection");
    }
    outcome.map(|()| SchemaVersion(newest()))
}

async fn lock_and_migrate(client: &mut Client) -> Result<(), Error> {
    prepare_session(client, LOCK_TIMEOUT).await?;
    client
        .batch_execute(&format!(
            "-- lock_migrations
            select pg_advisory_lock({MIGRATION_LOCK})"
        ))
        .await?;
    let found = find_version(client).await?;
    if found < newest() {
        apply_migrations(client, found).await?;
    }
    privileges::require_use(client).await?;
    functions::install(client).await?;
    if !compresses_with_lz4(client).await? {
        let hint = "the server was built without lz4";
        warn!(hint, "store payloads with the server's default compression");
    }
    Ok(())
}

/// The version of this broker's schema.
fn newest() -> i32 {
    let runner = embedded::migrations::runner();
    runner.get_migrations().iter().map(Migration::version).max().unwrap_or(0)
}

/// The version of the database's schema, 0 without one. Refuses a schema of another origin. Needs no
/// privilege beyond those for using the schema.
async fn find_version(client: &Client) -> Result<i32, Error> {
    let schema = privileges::find_schema(client).await?;
    if !schema.has_history {
        return Ok(0);
    }
    if !schema.reads_history {
        privileges::require_use(client).await?;
    }
    let known = embedded::migrations::runner().get_migrations().clone();
    let applied = find_applied(client).await?;
    let found = applied.iter().map(|one| one.version).max().unwrap_or(0);
    if found > newest() {
        return Err(Error::NewerSchema { found, known: newest() });
    }
    for Applied { version, name, checksum } in &applied {
        let is_this = |migration: &&Migration| {
            migration.version() == *version
                && migration.name() == name
                && migration.checksum().to_string() == *checksum
        };
        if known.iter().find(is_this).is_none() {
            return Err(Error::Migration(format!(
                "version {version} ({name}) of the database differs from that of this broker"
            )));
        }
    }
    // A history with a gap is filled, or refused, by applying what is missing.
    Ok(if applied.len() == known.len() { found } else { found.min(newest() - 1) })
}

/// A migration that was applied to the database.
struct Applied {
    version: i32,
    name: String,
    checksum: String,
}

async fn find_applied(client: &Client) -> Result<Vec<Applied>, Error> {
    let statement = "-- find_applied_migrations
        select version::integer, name::text, checksum::text from trunkline.schema_history";
    let rows = client.query(statement, &[]).await?;
    let applied =
        |row: &Row| Applied { version: row.get(0), name: row.get(1), checksum: row.get(2) };
    Ok(rows.iter().map(applied).collect())
}

async fn apply_migrations(client: &mut Client, found: i32) -> Result<(), Error> {
    if !privileges::find_schema(client).await?.exists {
        privileges::require_schema_creation(client).await?;
        client.batch_execute("-- create_schema\ncreate schema trunkline").await?;
    }
    let owners = privileges::find_owners_without_rights(client).await?;
    if let Some(MissingOwner { role, owner }) = owners {
        return Err(Error::OlderSchema { found, known: newest(), role, owner });
    }
    privileges::act_as_owner(client).await?;
    privileges::require_creation_in_schema(client).await?;
    let mut runner = embedded::migrations::runner().set_target(Target::Latest);
    runner.set_migration_table_name(HISTORY);
    let report = runner.run_async(client).await.map_err(|error| Error::Migration(chain(&error)))?;
    for migration in report.applied_migrations() {
        info!(version = migration.version(), migration = migration.name(), "migrated the schema");
    }
    privileges::act_as_oneself(client).await
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
