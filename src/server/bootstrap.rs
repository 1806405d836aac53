//! `trunkline token bootstrap`, from its options to its exit code: the first administrator of a
//! database.

use std::{io::Write as _, process::ExitCode};

use super::{database::Database, error::Error, logs, options::BootstrapOptions, signals};
use crate::{
    access::{self, FIRST_ADMINISTRATOR},
    storage::{Limits, Storage},
};

/// What creating one principal takes.
const LIMITS: Limits = Limits { writers: 1, queries: 1 };

/// Creates the principal `admin` in a database, with a grant of everything and a token, which it
/// returns. Brings the schema up to date if that is needed. Refuses if there is an administrator with
/// a valid token, or if `admin` is somebody else.
pub async fn bootstrap(database_url: &str) -> Result<String, Error> {
    create(Storage::open(database_url, None, LIMITS).await?, FIRST_ADMINISTRATOR).await
}

/// Creates the first administrator in the database that the options name, and prints its token.
pub async fn print_first_token(options: BootstrapOptions) -> ExitCode {
    let format = options.database.logging.log_format;
    match try_bootstrap(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(format),
    }
}

async fn try_bootstrap(options: BootstrapOptions) -> Result<(), Error> {
    let BootstrapOptions { principal, database: options } = options;
    logs::start(&options.logging)?;
    let shutdown = signals::shutdown()?;
    let database = Database::provide(&options.database).await?;
    let created = async { create(database.open(LIMITS).await?, &principal).await };
    let outcome = shutdown.run_until_cancelled(created).await;
    database.release().await?;
    if let Some(token) = outcome {
        // The token alone, so that it can be redirected into a file.
        let written = writeln!(std::io::stdout(), "{}", token?);
        written.map_err(Error::PrintToken)?;
        let _ = writeln!(
            std::io::stderr(),
            "trunkline: created the first administrator, {principal}; its token is not shown again"
        );
    }
    Ok(())
}

async fn create(storage: Storage, principal: &str) -> Result<String, Error> {
    let created = access::bootstrap(&storage, principal).await;
    storage.close();
    Ok(created?)
}
