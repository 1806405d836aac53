//! Runs statements on sessions, by their text.
//!
//! A direct session is set up once, and keeps its prepared statements. A pooled session may be
//! another one in each transaction and keeps nothing: every transaction begins with the settings
//! that it relies on, and statements are sent unprepared, with the types of their parameters.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::TryStreamExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio_postgres::{Row, RowStream};

use crate::{
    metrics::DatabaseMetrics,
    storage::{
        error::{Error, describe},
        session::{opener::Object, parameter::Parameter},
    },
};

/// A caller that gives a statement up after this long gives up its session too: the session may
/// hang, and its next user would wait behind that statement. Before that, the answer is likely to
/// come in a moment, and a new connection would cost more.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a session reaches the server.
#[derive(Clone)]
pub(crate) enum SessionKind {
    /// Leads straight to the server, and stays the same one.
    Direct,
    /// Lent by a pooler, one transaction at a time.
    Pooled {
        /// The statement that sets a transaction up, sent along with each begin.
        settings: Arc<str>,
    },
}

/// A session, for as long as it is needed. It goes back to its pool when it is dropped, unless it
/// was given up.
pub(crate) struct Session {
    /// None only while it is dropped.
    object: Option<Object>,
    kind: SessionKind,
    /// A statement without an answer for so long is given up, and the session with it.
    answer_within: Duration,
    /// How long each statement waits for a lock; `None` is the pool's own limit.
    lock_wait: Option<Duration>,
    /// The session must not be used again: it is lost, the answer to a statement is no longer
    /// waited for, or the server has not confirmed the end of a transaction. A rollback can fail as
    /// well as a commit, when an operator cancels it, and the session's next user would be in that
    /// transaction.
    given_up: AtomicBool,
    metrics: Arc<DatabaseMetrics>,
    /// Lets another owner have a session. Dropped after the object, which is then back in its pool.
    _permit: Option<OwnedSemaphorePermit>,
}

/// A statement whose caller waits for the answer.
struct UnderWay<'a> {
    session: &'a Session,
    since: Instant,
    answered: bool,
}

/// Statements that are stored together or not at all.
pub(crate) struct Transaction<'a> {
    object: &'a Object,
    kind: &'a SessionKind,
    answer_within: Duration,
    metrics: &'a DatabaseMetrics,
}

/// What a statement returned.
pub(crate) struct Answer {
    rows: Vec<Row>,
    /// How many rows it changed, or returned.
    count: u64,
}

/// Runs statements: a session, or a transaction in one.
pub(crate) trait Statements {
    /// Runs a statement.
    async fn run(&self, text: &str, parameters: &[&dyn Parameter]) -> Result<Answer, Error>;

    /// Runs a statement and returns its rows.
    async fn query(&self, text: &str, parameters: &[&dyn Parameter]) -> Result<Vec<Row>, Error> {
        Ok(self.run(text, parameters).await?.rows)
    }

    /// Runs a statement and returns how many rows it changed.
    async fn execute(&self, text: &str, parameters: &[&dyn Parameter]) -> Result<u64, Error> {
        Ok(self.run(text, parameters).await?.count)
    }

    /// Runs a statement that returns one row or none.
    async fn query_opt(
        &self,
        text: &str,
        parameters: &[&dyn Parameter],
    ) -> Result<Option<Row>, Error> {
        Ok(self.query(text, parameters).await?.pop())
    }

    /// Runs a statement that returns one row.
    async fn query_one(&self, text: &str, parameters: &[&dyn Parameter]) -> Result<Row, Error> {
        let row = self.query_opt(text, parameters).await?;
        row.ok_or_else(|| Error::unexpected("a row is missing"))
    }
}

impl Session {
    pub(crate) fn new(
        object: Object,
        kind: SessionKind,
        answer_within: Duration,
        metrics: Arc<DatabaseMetrics>,
    ) -> Self {
        let given_up = AtomicBool::new(false);
        let object = Some(object);
        Self { object, kind, answer_within, lock_wait: None, given_up, metrics, _permit: None }
    }

    /// Keeps a permit for as long as the session is in use.
    pub(crate) fn under(mut self, permit: OwnedSemaphorePermit) -> Self {
        self._permit = Some(permit);
        self
    }

    /// Limits how long each statement waits for a lock, until the session goes back to its pool.
    pub(crate) fn limit_lock_wait(&mut self, wait: Duration) {
        self.lock_wait = Some(wait);
    }

    /// Runs the statements of `work` in one transaction, which is committed if `work` succeeds. The
    /// server answers the commit of an aborted transaction with a rollback, which the driver takes
    /// for success, so the success of the commit alone would prove nothing.
    ///
    /// Gives the session up if it is dropped half-way, or if an answer does not come.
    pub(crate) async fn transact<T>(
        &mut self,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let begin = self.begin();
        let Self { object, kind, given_up, answer_within, metrics, .. } = self;
        let object = object.as_ref().ok_or(Error::Closed)?;
        given_up.store(true, Ordering::Relaxed);
        let transaction = Transaction { object, kind, answer_within: *answer_within, metrics };
        transaction.execute_alone(&begin).await?;
        let done = work(&transaction).await;
        if let Err(Error::ConnectionLost(_)) = done {
            // There is no connection left to roll back on.
            return done;
        }
        let ended = match &done {
            Ok(_) => transaction.execute_alone("commit").await,
            Err(_) => transaction.execute_alone("rollback").await,
        };
        if ended.is_ok() {
            given_up.store(false, Ordering::Relaxed);
        }
        // The work's own error says more than that of the rollback.
        let done = done?;
        ended?;
        Ok(done)
    }

    /// Runs a statement that must not be in a transaction, within a limit of its own; gives the
    /// session up if it takes longer.
    pub(crate) async fn run_alone(&self, text: &str, limit: Duration) -> Result<(), Error> {
        let ran = within(limit, async { Ok(self.object()?.batch_execute(text).await?) }).await;
        self.give_up_if_lost(&ran);
        ran
    }

    /// Waits for the answer to a statement; gives the session up if it does not come.
    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut under_way = UnderWay { session: self, since: Instant::now(), answered: false };
        let answer = within(self.answer_within, answer).await;
        under_way.answered = true;
        self.give_up_if_lost(&answer);
        answer
    }

    /// The driver may not have noticed yet that the connection is lost.
    fn give_up_if_lost<T>(&self, outcome: &Result<T, Error>) {
        if let Err(Error::ConnectionLost(_)) = outcome {
            self.given_up.store(true, Ordering::Relaxed);
        }
    }

    fn object(&self) -> Result<&Object, Error> {
        self.object.as_ref().ok_or(Error::Closed)
    }

    /// The statement that begins a transaction. The settings are sent along with it: in between, a
    /// pooled session's own limit for sessions that are idle in a transaction would apply.
    fn begin(&self) -> String {
        let mut begin = match &self.kind {
            SessionKind::Direct => "begin".to_owned(),
            SessionKind::Pooled { settings } => {
                format!("begin isolation level read committed, read write; {settings}")
            }
        };
        if let Some(wait) = self.lock_wait {
            begin.push_str(&format!("; set local lock_timeout = {}", lock_timeout(wait)));
        }
        begin
    }

    /// Runs a statement in a transaction of its own. All of it is sent without waiting for answers:
    /// it takes one round trip, and a caller that goes away leaves nothing half done.
    async fn in_transaction<T>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        let begin = self.begin();
        let object = self.object()?;
        self.given_up.store(true, Ordering::Relaxed);
        let (begun, done, ended) = futures::join!(
            object.batch_execute(&begin),
            statement,
            object.batch_execute("commit"),
        );
        if ended.is_ok() {
            self.given_up.store(false, Ordering::Relaxed);
        }
        if let Err(error) = begun {
            // A statement that succeeded outside the transaction may be committed, but without the
            // settings that it relies on.
            return Err(match done {
                Ok(_) => Error::ConnectionLost(describe(&error)),
                Err(_) => error.into(),
            });
        }
        // As in `transact`: the commit's success proves something only after the statement's.
        let done = done?;
        ended?;
        Ok(done)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.given_up.load(Ordering::Relaxed)
            && let Some(object) = self.object.take()
        {
            // Ends the connection, and what is under way on it.
            drop(Object::take(object));
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.answered && self.since.elapsed() > PATIENCE {
            self.session.given_up.store(true, Ordering::Relaxed);
        }
    }
}

impl Statements for Session {
    async fn run(&self, text: &str, parameters: &[&dyn Parameter]) -> Result<Answer, Error> {
        let object = self.object()?;
        let timer = self.metrics.begin(text);
        let statement = run(object, &self.kind, text, parameters);
        let answer = async {
            match &self.kind {
                SessionKind::Direct if self.lock_wait.is_none() => Ok(statement.await?),
                SessionKind::Direct => {
                    // Prepared first: otherwise the commit would be sent before the statement.
                    object.prepare_cached(text).await?;
                    self.in_transaction(statement).await
                }
                SessionKind::Pooled { .. } => self.in_transaction(statement).await,
            }
        };
        // Boxed, as the futures around it would each hold it twice.
        timer.end(self.in_time(Box::pin(answer)).await)
    }
}

impl Transaction<'_> {
    /// Runs the statement that begins or ends the transaction.
    async fn execute_alone(&self, text: &str) -> Result<(), Error> {
        within(self.answer_within, async { Ok(self.object.batch_execute(text).await?) }).await
    }

    /// Limits how long each of its statements waits for a lock.
    pub(crate) async fn limit_lock_wait(&self, wait: Duration) -> Result<(), Error> {
        let limit = "-- limit_lock_wait\nselect set_config('lock_timeout', $1, true)";
        self.query_one(limit, &[&lock_timeout(wait).to_string()]).await?;
        Ok(())
    }
}

impl Statements for Transaction<'_> {
    async fn run(&self, text: &str, parameters: &[&dyn Parameter]) -> Result<Answer, Error> {
        let timer = self.metrics.begin(text);
        let statement = run(self.object, self.kind, text, parameters);
        // Boxed, as the futures around it would each hold it twice.
        let answer = async { Ok(statement.await?) };
        timer.end(within(self.answer_within, Box::pin(answer)).await)
    }
}

/// Runs a statement: prepared in a direct session, unprepared in a pooled one.
async fn run(
    object: &Object,
    kind: &SessionKind,
    text: &str,
    parameters: &[&dyn Parameter],
) -> Result<Answer, tokio_postgres::Error> {
    let rows: RowStream = match kind {
        SessionKind::Direct => {
            let statement = object.prepare_cached(text).await?;
            object
                .query_raw(&statement, parameters.iter().map(|parameter| parameter.value()))
                .await?
        }
        SessionKind::Pooled { .. } => {
            let parameters =
                parameters.iter().map(|&parameter| (parameter.value(), parameter.sql_type()));
            object.query_typed_raw(text, parameters).await?
        }
    };
    let mut stream = pin!(rows);
    let mut rows = Vec::new();
    while let Some(row) = stream.try_next().await? {
        rows.push(row);
    }
    Ok(Answer { rows, count: stream.rows_affected().unwrap_or(0) })
}

/// Waits for an answer; after the limit the connection counts as lost.
pub(crate) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let answer = tokio::time::timeout(limit, answer).await;
    answer.unwrap_or_else(|_| Err(Error::ConnectionLost(format!("no answer in {limit:?}"))))
}

/// A time as `lock_timeout` takes it, in milliseconds. 0 would mean no limit.
fn lock_timeout(wait: Duration) -> i64 {
    i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).max(1)
}
