//! `trunkline migrate`, from its options to its exit code.
//!
//! It lets the role that owns the schema change it, so that the role of brokers need not be able to.

use std::{io::Write as _, process::ExitCode};

use super::{database::Database, error::Error, logs, options::MigrateOptions, signals};
use crate::storage::SchemaVersion;

/// Brings the schema of a database up to date.
pub async fn migrate(options: MigrateOptions) -> ExitCode {
    let format = options.logging.log_format;
    match try_migrate(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(format),
    }
}

async fn try_migrate(options: MigrateOptions) -> Result<(), Error> {
    logs::start(&options.logging)?;
    let shutdown = signals::shutdown()?;
    let database = Database::provide(&options.database).await?;
    let outcome = shutdown.run_until_cancelled(database.migrate()).await;
    database.release().await?;
    if let Some(migrated) = outcome {
        let SchemaVersion(version) = migrated?;
        // Nobody may be reading it.
        let _ = writeln!(std::io::stdout(), "the schema is at version {version}");
    }
    Ok(())
}
