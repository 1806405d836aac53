//! The broker's database: the one that the options name, or a private one.

use std::{
    env::{self, VarError},
    path::Path,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{error::Error, options::DatabaseOptions};
use crate::{
    embedded::{self, EmbeddedPostgres},
    storage::{self, Limits, SchemaVersion, Storage, redacted},
};

/// How long a starting broker waits for a database that is down.
const START_TIMEOUT: Duration = Duration::from_secs(30);

const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Where the broker keeps everything.
pub(super) struct Database {
    url: String,
    direct_url: Option<String>,
    embedded: Option<EmbeddedPostgres>,
}

impl Database {
    /// The database that the options name; if they name none, starts a private one.
    pub(super) async fn provide(options: &DatabaseOptions) -> Result<Self, Error> {
        // An empty variable is a mistake even if it is not needed.
        embedded::chosen_binaries()?;
        let direct_url = read_url(
            "--direct-database-url",
            options.direct_database_url_file.as_deref(),
            &options.direct_database_url,
        )?;
        if let Some(url) = &direct_url {
            let file = options.direct_database_url_file.as_deref();
            check(url, file, "--direct-database-url", "TRUNKLINE_DIRECT_DATABASE_URL")?;
        }
        if let Some(url) = given_url(options)? {
            let (flag, variable) = match options.database_url {
                Some(_) => ("--database-url", "TRUNKLINE_DATABASE_URL"),
                None => ("DATABASE_URL", "DATABASE_URL"),
            };
            check(&url, options.database_url_file.as_deref(), flag, variable)?;
            return Ok(Self { url, direct_url, embedded: None });
        }
        if direct_url.is_some() {
            return Err(Error::DirectUrlAlone);
        }
        let data_dir = options.data_dir.clone().unwrap_or_else(embedded::default_data_dir);
        let postgres = EmbeddedPostgres::start(&data_dir).await?;
        info!(
            data_dir = %postgres.data_dir().display(),
            socket_dir = %postgres.socket_dir().display(),
            "the private PostgreSQL is ready"
        );
        let url = postgres.url(embedded::DATABASE);
        Ok(Self { url, direct_url: None, embedded: Some(postgres) })
    }

    /// Opens the database, and waits for it if it is down.
    pub(super) async fn open(&self, limits: Limits) -> Result<Storage, Error> {
        let open = || Storage::open(&self.url, self.direct_url.as_deref(), limits);
        wait_for(open).await
    }

    /// Brings the schema up to date, and waits for the database if it is down.
    pub(super) async fn migrate(&self) -> Result<SchemaVersion, Error> {
        let url = self.direct_url.as_ref().unwrap_or(&self.url);
        wait_for(|| storage::migrate(url)).await
    }

    /// Stops the database if it is private.
    pub(super) async fn release(self) -> Result<(), Error> {
        if let Some(postgres) = self.embedded {
            postgres.stop().await?;
            info!("stopped the private PostgreSQL");
        }
        Ok(())
    }

    /// The database's URL without secrets.
    pub(super) fn redacted(&self) -> String {
        redacted(&self.url)
    }
}

/// Does something with the database, and tries again for a while if the database is down.
async fn wait_for<T>(act: impl AsyncFn() -> Result<T, storage::Error>) -> Result<T, Error> {
    let give_up_at = Instant::now() + START_TIMEOUT;
    loop {
        match act().await {
            Err(error) if error.is_transient() && Instant::now() < give_up_at => {
                warn!(%error, "wait for the database");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            outcome => return Ok(outcome?),
        }
    }
}

/// The URL that was given, if any. An empty one is an error, because a private PostgreSQL in its place
/// would take messages that belong elsewhere.
fn given_url(options: &DatabaseOptions) -> Result<Option<String>, Error> {
    match read_url("--database-url", options.database_url_file.as_deref(), &options.database_url)? {
        Some(url) => Ok(Some(url)),
        None => match env::var("DATABASE_URL") {
            Ok(url) => not_blank("DATABASE_URL", url).map(Some),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => {
                Err(Error::UrlNotUnicode { given: "DATABASE_URL".to_owned() })
            }
        },
    }
}

fn read_url(
    flag: &str,
    file: Option<&Path>,
    given: &Option<String>,
) -> Result<Option<String>, Error> {
    let Some(path) = file else {
        return given.clone().map(|url| not_blank(flag, url)).transpose();
    };
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(url) => not_blank(&name, url.trim().to_owned()).map(Some),
        Err(source) => Err(Error::UrlFile { path: name, source }),
    }
}

fn not_blank(given: &str, url: String) -> Result<String, Error> {
    match url.trim() {
        "" => Err(Error::EmptyUrl { given: given.to_owned() }),
        _ => Ok(url),
    }
}

/// Refuses a URL that cannot be used, with the flag, variable or file that it comes from.
fn check(url: &str, file: Option<&Path>, flag: &str, variable: &str) -> Result<(), Error> {
    storage::check_url(url).map_err(|error| {
        let given = match file {
            Some(path) => path.display().to_string(),
            None if std::env::var(variable).is_ok_and(|value| value == url) => variable.to_owned(),
            None => flag.to_owned(),
        };
        let problem = match error {
            storage::Error::Url(problem) => problem,
            other => other.to_string(),
        };
        Error::DatabaseUrl { given, problem }
    })
}
