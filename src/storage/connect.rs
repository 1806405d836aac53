//! Connections: what each is called, and what its session is set to.

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::{
    Client, Config, NoTls,
    config::{Host, TargetSessionAttrs},
};

use super::{
    CONNECT_TIMEOUT, Error, Storage,
    server::Servers,
    session::{Manner, Sessions},
};

/// How many connections a broker may open, besides one for leases and one for listening.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections that publish.
    pub writers: usize,
    /// Connections for everything else.
    pub queries: usize,
}

/// What sessions that publish have besides: they make the plan once, and they keep their memory.
///
/// A batch's values take some megabytes. glibc gives free memory back to the system beyond twice
/// the largest block that it ever took from there, so that these megabytes may be given back, and
/// faulted in again page by page, with each statement: measured, a third of the throughput. A
/// large block taken once moves that bound out of the way; elsewhere it does no harm.
const PUBLISHING: &str = "set plan_cache_mode = force_generic_plan;
    /* keep_memory */ select octet_length(repeat('x', 16 * 1024 * 1024))";

/// A publish that waits longer than this for its topic's row is refused, so that a session that
/// sits on the row does not hold up other topics.
pub(super) const WRITER_LOCK_TIMEOUT: Duration = Duration::from_millis(500);
const QUERY_LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a statement may take besides its wait for a lock. A connection that leads nowhere
/// would otherwise hang whoever uses it, and the streams that wait for them, until the kernel
/// notices; behind a proxy or a pooler it never does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl Storage {
    /// `direct` goes straight to the server; so do the pools, unless a pooler `lends` its sessions.
    pub(super) fn with_pools(
        direct: Config,
        lends: Option<Config>,
        limits: Limits,
    ) -> Result<Self, Error> {
        let lent = lends.is_some();
        let config = lends.unwrap_or_else(|| direct.clone());
        let opened = Arc::<AtomicU64>::default();
        let servers = Arc::new(Servers::new(direct.clone()));
        let pool = |name, size, lock_timeout, more| {
            let kind = Kind { name, size, lock_timeout, more };
            pool(&config, kind, lent, (opened.clone(), servers.clone()))
        };
        Ok(Self {
            query: pool("trunkline query", limits.queries, QUERY_LOCK_TIMEOUT, "")?,
            writer: pool("trunkline writer", limits.writers, WRITER_LOCK_TIMEOUT, PUBLISHING)?,
            position: pool("trunkline position", 1, QUERY_LOCK_TIMEOUT, "")?,
            direct,
            opened: opened.clone(),
            servers: servers.clone(),
            notifies: false,
            encoding: String::new(),
        })
    }
}

/// How long one of several hosts may take to accept a connection: the next one is tried while
/// whoever asked still waits.
const HOST_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn config(url: &str) -> Result<Config, Error> {
    let mut config =
        Config::from_str(url).map_err(|error| Error::Url(super::error::describe(&error)))?;
    let has_several_hosts = config.get_hosts().len() > 1;
    config
        .connect_timeout(if has_several_hosts { HOST_TIMEOUT } else { CONNECT_TIMEOUT })
        // A standby tells what was, and takes nothing: of several hosts the primary is the one.
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .keepalives_idle(Duration::from_secs(5))
        .keepalives_interval(Duration::from_secs(3))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(14));
    Ok(config)
}

/// What lets the server notice a broker that vanished, and with it free the broker's locks, within
/// a quarter of a minute, whether it had something to tell the broker or not.
const KEEPALIVES: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "3"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "14s"),
];

/// Has sessions have keepalives from their first moment: a broker that vanishes before it has
/// prepared a session would else leave it behind for the two hours that kernels wait. Poolers take
/// no settings with the request for a session.
pub(super) async fn with_keepalives(config: Config) -> Result<Config, Error> {
    let mut settings = config.get_options().unwrap_or_default().to_owned();
    for (name, value) in KEEPALIVES {
        settings.push_str(&format!(" -c {name}={value}"));
    }
    let mut asking = config.clone();
    asking.options(settings.trim_start());
    let mut problem = String::new();
    // Once more where the database can be had without: it may have been but starting up.
    for _ in 0..2 {
        match asking.application_name("trunkline probe").connect(NoTls).await {
            Ok(_) => return Ok(asking),
            // Whatever it says: of several hosts only the last one is heard.
            Err(error) => problem = super::error::describe(&error),
        }
        super::probe::connect(&config).await?;
    }
    tracing::info!(problem, "no keepalives are had with the request for a session");
    Ok(config)
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

/// What the sessions of a pool are like.
struct Kind {
    name: &'static str,
    size: usize,
    lock_timeout: Duration,
    /// Statements that set up sessions of our own besides what all have; may be none.
    more: &'static str,
}

fn pool(
    config: &Config,
    kind: Kind,
    lent: bool,
    (opened, servers): (Arc<AtomicU64>, Arc<Servers>),
) -> Result<Sessions, Error> {
    let Kind { name, size, lock_timeout, more } = kind;
    let mut config = config.clone();
    config.application_name(name);
    let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let mut builder = Pool::builder(Manager::from_config(config, NoTls, manager_config))
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(CONNECT_TIMEOUT))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .recycle_timeout(Some(CONNECT_TIMEOUT));
    builder = builder.post_create(Hook::sync_fn(move |_, _| {
        opened.fetch_add(1, Ordering::Release);
        Ok(())
    }));
    let serves = servers.clone();
    builder = builder.pre_recycle(Hook::sync_fn(move |_, metrics| {
        if serves.is_retired(metrics.created) {
            return Err(HookError::message("the session is retired"));
        }
        Ok(())
    }));
    if !lent {
        builder = builder.post_create(Hook::async_fn(move |client, _| {
            let servers = servers.clone();
            Box::pin(async move {
                let prepare = async {
                    prepare_session(client, lock_timeout).await?;
                    client.batch_execute(more).await?;
                    servers.are_one_with(client).await
                };
                match tokio::time::timeout(CONNECT_TIMEOUT, prepare).await {
                    Ok(Ok(true)) => Ok(()),
                    Ok(Ok(false)) => Err(HookError::message("it leads where no other does")),
                    Ok(Err(error)) => Err(HookError::Backend(error)),
                    Err(_) => Err(HookError::message("no answer in time")),
                }
            })
        }));
    }
    let manner = match lent {
        true => Manner::Lent { settings: settings(lock_timeout, true).into() },
        false => Manner::Own,
    };
    let pool = builder.build().map_err(Error::unexpected)?;
    Ok(Sessions { pool, manner, answer_within: ANSWER_TIMEOUT + lock_timeout })
}

/// Sets what every session of ours must have, whatever the server's or the role's defaults are.
///
/// Every statement of ours finds its rows by a key: a plan that was made while a table was small
/// must not read all of it when it has grown. The keepalives are for sessions of poolers, which were
/// not asked for with them.
pub(super) async fn prepare_session(
    client: &Client,
    lock_timeout: Duration,
) -> Result<(), tokio_postgres::Error> {
    let keepalives =
        KEEPALIVES.map(|(name, value)| format!(", set_config('{name}', '{value}', false)"));
    let keepalives = keepalives.concat();
    client
        .batch_execute(&format!(
            "{};
            select set_config('default_transaction_isolation', 'read committed', false),
                   set_config('enable_seqscan', 'off', false),
                   set_config('jit', 'off', false){keepalives}",
            settings(lock_timeout, false)
        ))
        .await
}

/// A statement that makes the settings of a session, or of one transaction.
///
/// An acknowledgement promises that the data is on disk: `synchronous_commit` is raised to `on`,
/// and left alone where it is stricter. A broker that is stopped in the middle of a transaction
/// must not keep others from a row for long: it is never idle there for more than a round trip.
fn settings(lock_timeout: Duration, of_transaction: bool) -> String {
    format!(
        "/* settings */
        select set_config('synchronous_commit', case
                   when current_setting('synchronous_commit') in ('off', 'local', 'remote_write')
                   then 'on' else current_setting('synchronous_commit') end, {of_transaction}),
               set_config('lock_timeout', '{}', {of_transaction}),
               set_config('idle_in_transaction_session_timeout', '5s', {of_transaction})",
        lock_timeout.as_millis()
    )
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
