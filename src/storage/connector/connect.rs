//! Connects to the primary among the servers of a URL.
//!
//! The servers are tried in order, each with a head start that covers everything connecting
//! involves: the TCP connection, the request for a session, the authentication, and the question
//! whether the server accepts writes. When the head start is over, the next server is tried
//! concurrently, and the first session wins. So a server that accepts connections and then says
//! nothing, as a frozen primary does, blocks no other, and a slow server still gets its time.

use std::{sync::Arc, time::Duration};

use futures::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_postgres::{Client, Config, SimpleQueryMessage, config::TargetSessionAttrs};

use crate::storage::{
    connector::{
        address::{Address, find_addresses},
        drive::{Driver, drive_while},
        refusal::{self, Reason, Refusal},
        tls::{MakeTls, TlsFiles, TlsOptions, explain},
        url::{self, DatabaseUrl},
    },
    error::{Error, describe},
};

/// How long connecting may take in all. Less than [`crate::storage::timeout::SESSION_TIMEOUT`],
/// within which a new session must also be set up, so that the error says which server did not
/// answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// The shortest head start, however many servers there are: bounds how many are tried at once.
const SHORTEST_HEAD_START: Duration = Duration::from_millis(100);

/// How long a server that did not answer is tried after the others.
const SILENCE: Duration = Duration::from_secs(30);

/// Opens sessions with the primary among the servers of a URL; cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector {
    config: Config,
    tls: TlsFiles,
    /// Servers that did not answer within their head start, and when that was.
    silent: Arc<Mutex<Vec<(Address, Instant)>>>,
}

impl Connector {
    pub(crate) fn new(url: &str) -> Result<Self, Error> {
        let DatabaseUrl { mut config, tls } = url::parse(url)?;
        config
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(3))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(14))
            // `open` asks each session itself whether it accepts writes.
            .target_session_attrs(TargetSessionAttrs::Any);
        let tls = TlsFiles::read(Arc::new(tls)).map_err(Error::Url)?;
        Ok(Self { config, tls, silent: Arc::default() })
    }

    /// What all sessions are requested with.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Requests sessions with the first of the `candidates` for startup options that the server
    /// accepts, or without any. Connects to find out.
    pub(crate) async fn with_startup_options(
        self,
        candidates: impl IntoIterator<Item = String>,
    ) -> Result<Self, Error> {
        for options in candidates {
            let mut candidate = self.clone();
            candidate.config.options(options);
            match Box::pin(candidate.try_connect("trunkline probe")).await {
                Ok(_) => return Ok(candidate),
                Err(refusals) if refusals.iter().any(Refusal::concerns_startup_options) => {
                    let error = refusal::describe_all(&refusals);
                    tracing::debug!(error, "request a session with settings");
                }
                Err(refusals) => return Err(refusal::error(&refusals)),
            }
        }
        drop(self.connect("trunkline probe").await?);
        let hint = "sessions have no settings from their start, keepalives among them";
        tracing::info!(hint, "the server takes no startup options");
        Ok(self)
    }

    /// Opens a session under a name, with a server that accepts writes.
    pub(crate) async fn connect(&self, name: &str) -> Result<(Client, Driver), Error> {
        // Boxed, as it is part of every future that opens a session.
        let connecting = Box::pin(self.try_connect(name));
        connecting.await.map_err(|refusals| refusal::error(&refusals))
    }

    /// Opens a session that ends when its client is dropped.
    pub(crate) async fn connect_client(&self, name: &'static str) -> Result<Client, Error> {
        let (client, connection) = self.connect(name).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(
                    session = name,
                    error = describe(&error),
                    "lost a database session"
                );
            }
        });
        Ok(client)
    }

    async fn try_connect(&self, name: &str) -> Result<(Client, Driver), Vec<Refusal>> {
        let (give_up_at, mut refusals) = (Instant::now() + CONNECT_TIMEOUT, Vec::new());
        let mut servers = find_addresses(&self.config, &mut refusals).await;
        let make_tls = MakeTls(self.tls.config().await);
        let options = self.tls.options();
        // A stable sort: servers that answered last time keep their order.
        servers.sort_by_key(|server| self.is_silent(server));
        let mut servers = servers.into_iter();
        let head_start = head_start(give_up_at - Instant::now(), servers.len());
        let (mut attempts, mut unanswered) = (FuturesUnordered::new(), Vec::new());
        loop {
            if let Some(server) = servers.next() {
                let config = server.config(&self.config, options, name);
                unanswered.push((server.clone(), Instant::now()));
                let make_tls = make_tls.clone();
                attempts.push(async move { (server, open(&config, make_tls, options).await) });
            } else if attempts.is_empty() {
                return Err(refusals);
            }
            // The last server has all the time that is left.
            let next_at = Instant::now() + head_start;
            let until = if servers.len() == 0 { give_up_at } else { next_at.min(give_up_at) };
            match tokio::time::timeout_at(until, attempts.next()).await {
                Ok(Some((server, answer))) => {
                    unanswered.retain(|(other, _)| *other != server);
                    match answer {
                        Ok(session) => {
                            self.note_silence(Some(&server), &unanswered, head_start);
                            return Ok(session);
                        }
                        Err(reason) => {
                            refusals.push(Refusal { server: server.describe(), reason });
                        }
                    }
                }
                // The next server is tried concurrently with those that have not answered yet.
                Ok(None) => {}
                Err(_) if Instant::now() < give_up_at => {}
                Err(_) => break,
            }
        }
        self.note_silence(None, &unanswered, head_start);
        let silent = |(server, since): (Address, Instant)| Refusal {
            server: server.describe(),
            reason: Reason::Silent(since.elapsed()),
        };
        refusals.extend(unanswered.into_iter().map(silent));
        let not_tried =
            |server: Address| Refusal { server: server.describe(), reason: Reason::NotTried };
        refusals.extend(servers.map(not_tried));
        Err(refusals)
    }

    fn is_silent(&self, server: &Address) -> bool {
        let silent = self.silent.lock();
        silent.iter().any(|(silent, since)| silent == server && since.elapsed() < SILENCE)
    }

    /// Notes which server answered, and which did not within their head start.
    fn note_silence(
        &self,
        answered: Option<&Address>,
        unanswered: &[(Address, Instant)],
        head_start: Duration,
    ) {
        let silent_now = || {
            let silent = unanswered.iter().filter(|(_, since)| since.elapsed() >= head_start);
            silent.map(|(server, _)| server)
        };
        let mut silent = self.silent.lock();
        silent.retain(|(server, since)| {
            let is_news = Some(server) == answered || silent_now().any(|other| other == server);
            !is_news && since.elapsed() < SILENCE
        });
        silent.extend(silent_now().map(|server| (server.clone(), Instant::now())));
    }
}

/// How long a server may take before the next one is tried concurrently. All servers are started
/// within half of the time, so the last one has the other half to answer.
fn head_start(time: Duration, servers: usize) -> Duration {
    let gaps = servers.saturating_sub(1).max(1);
    (time / 2 / u32::try_from(gaps).unwrap_or(u32::MAX)).max(SHORTEST_HEAD_START)
}

async fn open(
    config: &Config,
    make_tls: MakeTls,
    options: &TlsOptions,
) -> Result<(Client, Driver), Reason> {
    let (client, mut connection) = config
        .connect(make_tls)
        .await
        .map_err(|error| explain(&error, options).map_or(Reason::Answer(error), Reason::Tls))?;
    // A standby's data is old, and it accepts no writes.
    let question = client.simple_query("select pg_catalog.pg_is_in_recovery()");
    let question = async { question.await.map_err(Reason::from) };
    let answers = drive_while(&mut connection, question).await?;
    let recovers = answers
        .iter()
        .any(|answer| matches!(answer, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")));
    if recovers { Err(Reason::Standby) } else { Ok((client, connection)) }
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
