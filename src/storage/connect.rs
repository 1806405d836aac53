//! Connections: what each is called, and what its session is set to.

use std::{str::FromStr, time::Duration};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::{Client, Config, NoTls, config::Host};

use super::{CONNECT_TIMEOUT, Error, Storage};

/// How many connections a broker may open, besides one for leases and one for listening.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections that publish.
    pub writers: usize,
    /// Connections for everything else.
    pub queries: usize,
}

/// A publish that waits longer than this for its topic's row is refused, so that a session that
/// sits on the row does not hold up other topics.
const WRITER_LOCK_TIMEOUT: Duration = Duration::from_millis(500);
const QUERY_LOCK_TIMEOUT: Duration = Duration::from_secs(5);

impl Storage {
    pub(super) fn with_pools(url: &str, limits: Limits) -> Result<Self, Error> {
        let mut config =
            Config::from_str(url).map_err(|error| Error::Url(super::error::describe(&error)))?;
        config
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(20));
        Ok(Self {
            query: pool(&config, "trunkline query", limits.queries, QUERY_LOCK_TIMEOUT)?,
            writer: pool(&config, "trunkline writer", limits.writers, WRITER_LOCK_TIMEOUT)?,
            position: pool(&config, "trunkline position", 1, QUERY_LOCK_TIMEOUT)?,
            config,
        })
    }
}

/// Which database a URL names, without its secrets: for logs.
pub fn redacted(url: &str) -> String {
    let Ok(config) = Config::from_str(url) else { return "an unreadable URL".to_owned() };
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let ports: Vec<String> = config.get_ports().iter().map(u16::to_string).collect();
    format!(
        "{} on {} port {} as {}",
        config.get_dbname().unwrap_or("(default)"),
        hosts.join(","),
        if ports.is_empty() { "5432".to_owned() } else { ports.join(",") },
        config.get_user().unwrap_or("(default)")
    )
}

fn pool(config: &Config, name: &str, size: usize, lock_timeout: Duration) -> Result<Pool, Error> {
    let mut config = config.clone();
    config.application_name(name);
    let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    Pool::builder(Manager::from_config(config, NoTls, manager_config))
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(CONNECT_TIMEOUT))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .recycle_timeout(Some(CONNECT_TIMEOUT))
        .post_create(Hook::async_fn(move |client, _| {
            Box::pin(async move {
                prepare_session(client, lock_timeout).await.map_err(HookError::Backend)
            })
        }))
        .build()
        .map_err(Error::unexpected)
}

/// Sets what every session of ours must have, whatever the server's or the role's defaults are.
///
/// An acknowledgement promises that the data is on disk: `synchronous_commit` is raised to `on`,
/// and left alone where it is stricter. The keepalives let the server notice a broker that
/// vanished, and with it free the broker's locks, within half a minute.
pub(super) async fn prepare_session(
    client: &Client,
    lock_timeout: Duration,
) -> Result<(), tokio_postgres::Error> {
    client
        .batch_execute(&format!(
            "-- prepare_session
            select set_config('synchronous_commit', case
                       when current_setting('synchronous_commit') in ('off', 'local', 'remote_write')
                       then 'on' else current_setting('synchronous_commit') end, false),
                   set_config('default_transaction_isolation', 'read committed', false),
                   set_config('lock_timeout', '{}', false),
                   set_config('idle_in_transaction_session_timeout', '30s', false),
                   set_config('tcp_keepalives_idle', '10', false),
                   set_config('tcp_keepalives_interval', '5', false),
                   set_config('tcp_keepalives_count', '3', false)",
            lock_timeout.as_millis()
        ))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redacted_url_tells_the_database_and_no_secret() {
        let told = redacted("postgresql://ann:s3cret@db.example:5433/log");
        assert_eq!(told, "log on db.example port 5433 as ann");
        assert_eq!(redacted("nonsense"), "an unreadable URL");
    }
}
