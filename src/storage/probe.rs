//! What a database is asked before it is trusted: that sessions last, that their advisory locks
//! exclude each other, and that they receive each other's notifications.
//!
//! Poolers that lend sessions by the transaction, and servers that only speak like PostgreSQL,
//! take the statements and do nothing: leases would then be had by everybody at once.

use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::{
    Error, Received, Storage,
    connector::Connector,
    session::{self, Manner, Statements as _},
};

/// A server that takes longer to answer counts as down.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A notification that takes longer is worth nothing: polls come as often.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(1);

/// Proves that a session stays the same one from transaction to transaction, and that an advisory
/// lock keeps another session out.
pub(super) async fn prove_that_sessions_last(direct: &Connector) -> Result<(), Error> {
    let (first, second) = (connect(direct).await?, connect(direct).await?);
    if !sessions_last(&first, &second).await? {
        return Err(Error::Pooled);
    }
    let key = random_key();
    let try_lock = format!("/* prove_locks */ select pg_try_advisory_lock({key})");
    if ask(&first, &try_lock).await? == "t" && ask(&second, &try_lock).await? == "f" {
        return Ok(());
    }
    Err(Error::LocksDoNotExclude)
}

/// Proves that sessions can be set to what statements rely on.
pub(super) async fn prove_that_sessions_are_set_up(storage: &Storage) -> Result<(), Error> {
    let client = connect(&storage.direct).await?;
    session::check(&client, ANSWER_TIMEOUT).await?;
    match storage.query.manner {
        Manner::Own => Ok(()),
        Manner::Lent { .. } => session::check_lent(storage).await,
    }
}

/// Asks in an order in which a pooler cannot but lend one session to both, or two to one: whether
/// it lends the session last used, or the one used the longest ago.
async fn sessions_last(first: &Client, second: &Client) -> Result<bool, Error> {
    const SESSION: &str = "/* find_session */ select pg_backend_pid()";
    let own = ask(first, SESSION).await?;
    if ask(first, SESSION).await? != own || ask(second, SESSION).await? == own {
        return Ok(false);
    }
    // While the other one is in a transaction, its session is not to be lent.
    ask(second, "begin; set local idle_in_transaction_session_timeout = '5s'").await?;
    let others = ask(second, SESSION).await?;
    let still_own = ask(first, SESSION).await? == own;
    ask(second, "rollback").await?;
    Ok(still_own && others != own)
}

/// Proves that what goes through the pooler comes to the database that the direct URL names: a
/// lock taken here is seen there.
pub(super) async fn prove_that_databases_are_one(storage: &Storage) -> Result<(), Error> {
    let direct = connect(&storage.direct).await?;
    let key = random_key();
    ask(&direct, &format!("/* mark_database */ select pg_advisory_lock({key})")).await?;
    let seen = storage
        .query()
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

/// Whether a session hears what another one notifies.
pub(super) async fn find_whether_notifications_arrive(storage: &Storage) -> Result<bool, Error> {
    let mut listening = match storage.open_listen_session().await {
        Ok(listening) => listening,
        Err(Error::Failed(problem) | Error::Fault(problem) | Error::Unexpected(problem)) => {
            tracing::debug!(problem, "listen");
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let speaking = connect(&storage.direct).await?;
    let text = format!("probe-{}", random_key());
    let notify = format!("/* prove_notifications */ select pg_notify('trunkline', '{text}')");
    let heard = async {
        loop {
            match listening.receive().await {
                Received::Notification(heard) if heard == text => return true,
                Received::Notification(_) => {}
                Received::Closed(_) => return false,
            }
        }
    };
    // Counted from when it was sent: that may take as long as it likes.
    let sent = async {
        let asked = ask(&speaking, &notify).await;
        if asked.is_ok() {
            tokio::time::sleep(NOTIFICATION_TIMEOUT).await;
        }
        asked
    };
    tokio::select! {
        heard = heard => Ok(heard),
        asked = sent => match asked {
            Ok(_) => Ok(false),
            Err(Error::Failed(problem) | Error::Fault(problem) | Error::Unexpected(problem)) => {
                tracing::debug!(problem, "notify");
                Ok(false)
            }
            Err(error) => Err(error),
        },
    }
}

/// Gives a question up that is not answered.
pub(super) async fn in_time<T>(
    question: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(ANSWER_TIMEOUT, question)
        .await
        .unwrap_or_else(|_| Err(Error::Unavailable("no answer in time".to_owned())))
}

/// A session that ends when it is dropped.
pub(super) async fn connect(connector: &Connector) -> Result<Client, Error> {
    let (client, connection) = connector.connect("trunkline probe").await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = super::error::describe(&error), "lose a probing connection");
        }
    });
    Ok(client)
}

/// Asks a question of one value, unprepared: what is asked may be an old pooler.
async fn ask(client: &Client, question: &str) -> Result<String, Error> {
    let answers = client.simple_query(question).await?;
    let value = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(value.unwrap_or_default().to_owned())
}

/// A lock's key that nobody else uses at the same time: a positive number.
fn random_key() -> i64 {
    (uuid::Uuid::new_v4().as_u64_pair().0 >> 1) as i64
}
