//! Probes a database before it is trusted: whether sessions last, advisory locks exclude each
//! other, and notifications arrive.
//!
//! A pooler that lends sessions by the transaction, or a server that only speaks PostgreSQL's
//! protocol, may accept the statements and do nothing: every broker would then hold every lease.

use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::{
    Error, ListenSession, Received,
    connector::Connector,
    session::{self, SessionPool, SessionSource, Statements as _},
    timeout::ANSWER_TIMEOUT,
};

/// A notification that takes longer is useless: polling is as fast.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(1);

/// Proves that a session stays the same one from transaction to transaction, and that an advisory
/// lock excludes other sessions.
pub(super) async fn prove_that_sessions_last(direct: &Connector) -> Result<(), Error> {
    let (first, second) = (connect(direct).await?, connect(direct).await?);
    if !sessions_last(&first, &second).await? {
        return Err(Error::Pooled);
    }
    let key = random_key();
    let try_lock = format!("/* prove_locks */ select pg_catalog.pg_try_advisory_lock({key})");
    if ask(&first, &try_lock).await? == "t" && ask(&second, &try_lock).await? == "f" {
        return Ok(());
    }
    Err(Error::LocksDoNotExclude)
}

/// Proves that sessions can be given the settings that statements rely on.
pub(super) async fn prove_that_sessions_are_set_up(
    direct: &Connector,
    sessions: &SessionPool,
) -> Result<(), Error> {
    session::check_direct(&connect(direct).await?, ANSWER_TIMEOUT).await?;
    match sessions.is_pooled() {
        true => session::check_pooled(sessions).await,
        false => Ok(()),
    }
}

/// Asks in an order in which any pooler must lend one session to both clients, or two sessions to
/// one client, whether it prefers the most recently used session or the least recently used one.
async fn sessions_last(first: &Client, second: &Client) -> Result<bool, Error> {
    const SESSION: &str = "/* find_session */ select pg_catalog.pg_backend_pid()";
    let own = ask(first, SESSION).await?;
    if ask(first, SESSION).await? != own || ask(second, SESSION).await? == own {
        return Ok(false);
    }
    // A pooler cannot lend the second client's session while that is in a transaction.
    ask(second, "begin; set local idle_in_transaction_session_timeout = '5s'").await?;
    let others = ask(second, SESSION).await?;
    let still_own = ask(first, SESSION).await? == own;
    ask(second, "rollback").await?;
    Ok(still_own && others != own)
}

/// Proves that the pooler leads to the database that the direct URL names: a lock that is taken in
/// a direct session can be seen in a pooled one.
pub(super) async fn prove_that_databases_are_one(
    direct: &Connector,
    sessions: &SessionPool,
) -> Result<(), Error> {
    let direct = connect(direct).await?;
    let key = random_key();
    ask(&direct, &format!("/* mark_database */ select pg_catalog.pg_advisory_lock({key})")).await?;
    let seen = sessions
        .get()
        .await?
        .query_one(
            "-- find_mark
            select exists (
                select from pg_locks
                where locktype = 'advisory' and granted and objsubid = 1
                  and database = (select oid from pg_database where datname = current_database())
                  and (classid::bigint << 32 | objid::bigint) = $1)",
            &[&key],
        )
        .await?;
    if seen.get(0) { Ok(()) } else { Err(Error::DifferentDatabases) }
}

/// Whether one session receives what another one notifies.
pub(super) async fn find_whether_notifications_arrive(
    direct: &SessionSource,
) -> Result<bool, Error> {
    let mut listening = match ListenSession::open(direct).await {
        Ok(listening) => listening,
        Err(Error::Failed(problem) | Error::Fault(problem) | Error::Unexpected(problem)) => {
            tracing::debug!(error = problem, "try to listen for notifications");
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let notifying = connect(&direct.connector).await?;
    let text = format!("probe-{}", random_key());
    let notify =
        format!("/* prove_notifications */ select pg_catalog.pg_notify('trunkline', '{text}')");
    let arrived = async {
        loop {
            match listening.receive().await {
                Received::Notification(received) if received == text => return true,
                Received::Notification(_) => {}
                Received::Closed(_) => return false,
            }
        }
    };
    // The limit counts from when the notification was sent, however long sending takes.
    let timed_out = async {
        let sent = ask(&notifying, &notify).await;
        if sent.is_ok() {
            tokio::time::sleep(NOTIFICATION_TIMEOUT).await;
        }
        sent
    };
    tokio::select! {
        arrived = arrived => Ok(arrived),
        sent = timed_out => match sent {
            Ok(_) => Ok(false),
            Err(Error::Failed(problem) | Error::Fault(problem) | Error::Unexpected(problem)) => {
                tracing::debug!(error = problem, "try to send a notification");
                Ok(false)
            }
            Err(error) => Err(error),
        },
    }
}

/// Gives a probe up that takes too long: the server counts as down.
pub(super) async fn in_time<T>(probe: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(ANSWER_TIMEOUT, probe)
        .await
        .unwrap_or_else(|_| Err(Error::Unavailable(format!("no answer in {ANSWER_TIMEOUT:?}"))))
}

async fn connect(connector: &Connector) -> Result<Client, Error> {
    connector.connect_client("trunkline probe").await
}

/// Asks for one value by the simple query protocol, which old poolers support too.
async fn ask(client: &Client, question: &str) -> Result<String, Error> {
    let answers = client.simple_query(question).await?;
    let value = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(value.unwrap_or_default().to_owned())
}

/// A key for a lock that nothing else uses at the same time: a positive number.
fn random_key() -> i64 {
    (uuid::Uuid::new_v4().as_u64_pair().0 >> 1) as i64
}
