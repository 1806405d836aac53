//! Opens every session with the database: nothing else connects.
//!
//! The servers that a URL names are tried in order, each with a head start for all that belongs to
//! connecting: the TCP connection, the request for a session, the authentication, and the question
//! whether the server takes writes. When that has passed, the next one is tried beside it, and the
//! first to give a session wins. So a server that accepts connections and then says nothing, as a
//! frozen primary does, keeps nobody from the next one, and a slow server still has its time.

use std::{
    future::poll_fn,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::Instant;
use tokio_postgres::{
    Client, Config, Connection, NoTls, SimpleQueryMessage, Socket,
    config::{Host, LoadBalanceHosts, TargetSessionAttrs},
    tls::NoTlsStream,
};

use crate::storage::{
    connector::refusal::{self, Reason, Refusal},
    connector::url,
    error::Error,
    session,
};

/// How long connecting may take in all. Less than [`crate::storage::SESSION_TIMEOUT`], within which a new
/// session must also be set up, so that the error says which server did not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a name may take to be looked up.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// The least head start, however many servers there are: bounds how many are tried at once.
const SHORTEST_HEAD_START: Duration = Duration::from_millis(100);

/// How long a server that did not answer is tried after the others.
const SILENCE: Duration = Duration::from_secs(30);

/// A connection that somebody has to drive.
pub(crate) type Driver = Connection<Socket, NoTlsStream>;

/// Opens sessions with the primary among the servers of a URL; cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector {
    config: Config,
    /// Servers that did not answer, and when.
    silent: Arc<Mutex<Vec<(Server, Instant)>>>,
}

/// Where a server listens.
#[derive(Clone, PartialEq)]
enum Server {
    Tcp { host: Option<String>, address: IpAddr, port: u16 },
    Unix { folder: PathBuf, port: u16 },
}

impl Connector {
    pub(crate) fn new(url: &str) -> Result<Self, Error> {
        let mut config = url::parse(url)?;
        config
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(3))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(14))
            // Sessions are asked here whether they take writes.
            .target_session_attrs(TargetSessionAttrs::Any);
        Ok(Self { config, silent: Arc::default() })
    }

    /// What all sessions are requested with.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Requests sessions with the settings that they need from their first moment, as far as the
    /// server takes settings with the request. Connects to find that out.
    ///
    /// A broker that vanishes before it has prepared a session would otherwise leave it behind for
    /// the two hours that kernels wait, and a time limit of the role's might end the very
    /// statement that lifts it. Poolers take no settings.
    pub(crate) async fn with_settings_of_the_start(self) -> Result<Self, Error> {
        for options in session::options_of_the_start(self.config.get_options()) {
            let mut asking = self.clone();
            asking.config.options(options);
            match asking.try_connect("trunkline probe").await {
                Ok(_) => return Ok(asking),
                Err(refusals) if refusals.iter().any(Refusal::is_of_the_request) => {
                    let problem = refusal::tell(&refusals);
                    tracing::debug!(problem, "request a session with settings");
                }
                Err(refusals) => return Err(refusal::error(&refusals)),
            }
        }
        drop(self.connect("trunkline probe").await?);
        tracing::info!(
            "the server takes no settings with the request for a session, keepalives among them"
        );
        Ok(self)
    }

    /// Opens a session under a name, with a server that takes writes.
    pub(crate) async fn connect(&self, name: &str) -> Result<(Client, Driver), Error> {
        // Boxed, as the futures of all that open sessions hold it.
        let connecting = Box::pin(self.try_connect(name));
        connecting.await.map_err(|refusals| refusal::error(&refusals))
    }

    async fn try_connect(&self, name: &str) -> Result<(Client, Driver), Vec<Refusal>> {
        let (give_up_at, mut refusals) = (Instant::now() + CONNECT_TIMEOUT, Vec::new());
        let mut servers = self.find_servers(&mut refusals).await.into_iter();
        let head_start = head_start(give_up_at - Instant::now(), servers.len());
        let (mut attempts, mut unanswered) = (FuturesUnordered::new(), Vec::new());
        loop {
            if let Some(server) = servers.next() {
                let config = self.config_of(&server, name);
                unanswered.push((server.clone(), Instant::now()));
                attempts.push(async move { (server, open(&config).await) });
            } else if attempts.is_empty() {
                return Err(refusals);
            }
            // The last one has all the time that is left.
            let next_at = Instant::now() + head_start;
            let until = if servers.len() == 0 { give_up_at } else { next_at.min(give_up_at) };
            match tokio::time::timeout_at(until, attempts.next()).await {
                Ok(Some((server, answer))) => {
                    unanswered.retain(|(other, _)| *other != server);
                    match answer {
                        Ok(session) => {
                            self.note(Some(&server), &unanswered, head_start);
                            return Ok(session);
                        }
                        Err(reason) => {
                            refusals.push(Refusal { server: server.describe(), reason });
                        }
                    }
                }
                // The next one begins beside those that have not answered yet.
                Ok(None) => {}
                Err(_) if Instant::now() < give_up_at => {}
                Err(_) => break,
            }
        }
        self.note(None, &unanswered, head_start);
        let silent = |(server, since): (Server, Instant)| Refusal {
            server: server.describe(),
            reason: Reason::Silent(since.elapsed()),
        };
        refusals.extend(unanswered.into_iter().map(silent));
        let not_tried =
            |server: Server| Refusal { server: server.describe(), reason: Reason::NotTried };
        refusals.extend(servers.map(not_tried));
        Err(refusals)
    }

    /// All servers in the order in which to try them. A name may stand for several.
    async fn find_servers(&self, refusals: &mut Vec<Refusal>) -> Vec<Server> {
        let (hosts, addresses) = (self.config.get_hosts(), self.config.get_hostaddrs());
        let looked_up = (0..hosts.len().max(addresses.len())).map(async |index| {
            let ports = self.config.get_ports();
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match (hosts.get(index), addresses.get(index)) {
                (Some(Host::Unix(folder)), None) => {
                    Ok(vec![Server::Unix { folder: folder.clone(), port }])
                }
                (Some(Host::Tcp(name)), None) => look_up(name, port).await,
                (host, Some(&address)) => {
                    let host = match host {
                        Some(Host::Tcp(name)) => Some(name.clone()),
                        _ => None,
                    };
                    Ok(vec![Server::Tcp { host, address, port }])
                }
                (None, None) => Ok(Vec::new()),
            }
        });
        let mut found = futures::future::join_all(looked_up).await;
        if self.config.get_load_balance_hosts() == LoadBalanceHosts::Random {
            fastrand::shuffle(&mut found);
        }
        let mut servers: Vec<Server> = Vec::new();
        for found in found {
            match found {
                Ok(found) => {
                    for server in found {
                        // A server that is named twice is tried once.
                        if !servers.contains(&server) {
                            servers.push(server);
                        }
                    }
                }
                Err(refusal) => refusals.push(refusal),
            }
        }
        // A stable sort: those that answered last time keep their order.
        servers.sort_by_key(|server| self.is_silent(server));
        servers
    }

    fn config_of(&self, server: &Server, name: &str) -> Config {
        let all = &self.config;
        let mut one = Config::new();
        match server {
            Server::Tcp { host, address, port } => {
                if let Some(host) = host {
                    one.host(host);
                }
                one.hostaddr(*address).port(*port);
            }
            Server::Unix { folder, port } => {
                one.host_path(folder).port(*port);
            }
        }
        all.get_user().map(|user| one.user(user));
        all.get_password().map(|password| one.password(password));
        all.get_dbname().map(|database| one.dbname(database));
        all.get_options().map(|options| one.options(options));
        one.application_name(name)
            .ssl_mode(all.get_ssl_mode())
            .ssl_negotiation(all.get_ssl_negotiation())
            .channel_binding(all.get_channel_binding())
            .keepalives(all.get_keepalives())
            .keepalives_idle(all.get_keepalives_idle());
        all.get_keepalives_interval().map(|interval| one.keepalives_interval(interval));
        all.get_keepalives_retries().map(|retries| one.keepalives_retries(retries));
        all.get_tcp_user_timeout().map(|timeout| one.tcp_user_timeout(*timeout));
        one
    }

    fn is_silent(&self, server: &Server) -> bool {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.iter().any(|(silent, since)| silent == server && since.elapsed() < SILENCE)
    }

    /// Notes which server answered, and which did not within their head start.
    fn note(
        &self,
        answered: Option<&Server>,
        unanswered: &[(Server, Instant)],
        head_start: Duration,
    ) {
        let silent_now = || {
            let silent = unanswered.iter().filter(|(_, since)| since.elapsed() >= head_start);
            silent.map(|(server, _)| server)
        };
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|(server, since)| {
            let is_news = Some(server) == answered || silent_now().any(|other| other == server);
            !is_news && since.elapsed() < SILENCE
        });
        silent.extend(silent_now().map(|server| (server.clone(), Instant::now())));
    }
}

/// How long a server may take before the next one is tried beside it: all are tried in half of the
/// time, and the last one has the other half to answer.
fn head_start(time: Duration, servers: usize) -> Duration {
    let gaps = servers.saturating_sub(1).max(1);
    (time / 2 / u32::try_from(gaps).unwrap_or(u32::MAX)).max(SHORTEST_HEAD_START)
}

impl Server {
    fn describe(&self) -> String {
        match self {
            Self::Tcp { host: Some(host), address, port } if *host != address.to_string() => {
                format!("{host}:{port} ({address})")
            }
            Self::Tcp { address: IpAddr::V6(address), port, .. } => format!("[{address}]:{port}"),
            Self::Tcp { address, port, .. } => format!("{address}:{port}"),
            Self::Unix { folder, port } => format!("{}/.s.PGSQL.{port}", folder.display()),
        }
    }
}

async fn look_up(name: &str, port: u16) -> Result<Vec<Server>, Refusal> {
    let refusal = |reason| Refusal { server: format!("{name}:{port}"), reason };
    match tokio::time::timeout(LOOK_UP_TIMEOUT, tokio::net::lookup_host((name, port))).await {
        Ok(Ok(found)) => Ok(found
            .map(|found| Server::Tcp { host: Some(name.to_owned()), address: found.ip(), port })
            .collect()),
        Ok(Err(error)) => Err(refusal(Reason::Unknown(error.to_string()))),
        Err(_) => Err(refusal(Reason::Silent(LOOK_UP_TIMEOUT))),
    }
}

async fn open(config: &Config) -> Result<(Client, Driver), Reason> {
    let (client, mut connection) = config.connect(NoTls).await?;
    // A standby tells what was, and takes nothing.
    let question =
        async { client.simple_query("select pg_is_in_recovery()").await.map_err(Reason::from) };
    let answers = drive_while(&mut connection, question).await?;
    let recovers = answers
        .iter()
        .any(|answer| matches!(answer, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")));
    if recovers { Err(Reason::Standby) } else { Ok((client, connection)) }
}

/// Runs a request to its end on a connection that nobody else drives.
pub(crate) async fn drive_while<T, E: From<tokio_postgres::Error>>(
    connection: &mut Driver,
    request: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::select! {
        answer = request => answer,
        error = async {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error,
                    // The request then fails by itself.
                    None => std::future::pending().await,
                }
            }
        } => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_server_has_half_of_the_time_and_few_are_tried_at_once() {
        let of = |servers| head_start(Duration::from_secs(4), servers);
        assert_eq!(of(2), Duration::from_secs(2));
        assert_eq!(of(5), Duration::from_millis(500));
        assert_eq!(of(1_000), SHORTEST_HEAD_START);
        assert_eq!(head_start(Duration::ZERO, 0), SHORTEST_HEAD_START);
    }
}
