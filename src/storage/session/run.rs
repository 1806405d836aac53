//! Sessions with the database: how statements are run on them, by their text.
//!
//! A session of our own is set up once, and keeps its prepared statements. One that a pooler lends
//! us is another one in each transaction: it keeps nothing, so every transaction begins with our
//! settings, and statements are sent unprepared, with the types of their parameters.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use crate::storage::{
    Error,
    session::pool::{Object, Pool},
};

/// A statement that was waited for longer than this, and then not any more, leaves a session that
/// may hang: whoever used it next would wait behind that statement. Before that it is answered in a
/// moment, and a new connection would cost more.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sessions of one kind.
pub(crate) struct Sessions {
    pub pool: Pool,
    pub manner: Manner,
    /// A statement without an answer for so long is given up, and its connection with it.
    pub answer_within: Duration,
}

/// LeaseScope the sessions are.
#[derive(Clone)]
pub(crate) enum Manner {
    /// Ours for as long as we like.
    Own,
    /// A pooler's, which lends them by the transaction; each begins with these settings.
    Lent {
        /// A statement that makes the settings until the transaction's end.
        settings: Arc<str>,
    },
}

/// A session, for as long as it is needed.
pub(crate) struct Session {
    /// None once it is given up.
    object: Option<Object>,
    manner: Manner,
    answer_within: Duration,
    /// It is not to be used again. A transaction was begun whose end the server has not confirmed:
    /// a rollback can fail as well as a commit, when an operator cancels it, and whoever used the
    /// session next would be in that transaction. Or an answer is no longer waited for.
    unsettled: AtomicBool,
}

/// A statement whose answer somebody waits for.
struct UnderWay<'a> {
    session: &'a Session,
    since: Instant,
    answered: bool,
}

/// Statements that are stored together or not at all.
pub(crate) struct Transaction<'a> {
    object: &'a Object,
    prepares: bool,
    answer_within: Duration,
}

/// What runs statements.
pub(crate) trait Statements {
    /// Runs a statement and returns its rows.
    async fn query(&self, text: &str, parameters: &[&dyn Parameter]) -> Result<Vec<Row>, Error>;

    /// Runs a statement and returns how many rows it changed.
    async fn execute(&self, text: &str, parameters: &[&dyn Parameter]) -> Result<u64, Error>;

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

/// A value that a statement is given.
pub(crate) trait Parameter: Sync {
    fn value(&self) -> &(dyn ToSql + Sync);
    fn sql_type(&self) -> Type;
}

impl Sessions {
    /// A session, as soon as one is free.
    pub(crate) async fn get(&self) -> Result<Session, Error> {
        let object = Some(self.pool.get().await?);
        let (manner, answer_within) = (self.manner.clone(), self.answer_within);
        Ok(Session { object, manner, answer_within, unsettled: AtomicBool::new(false) })
    }
}

impl Session {
    /// Runs statements that are stored together or not at all: stored if `work` ends without an
    /// error. Only then does success of the commit mean that, as an aborted transaction answers it
    /// with a rollback, which the driver takes for success.
    ///
    /// Dropped half-way, or without an answer, it gives the session up.
    pub(crate) async fn transact<T>(
        &mut self,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Self { object, manner, unsettled, answer_within } = self;
        let object = object.as_ref().ok_or(Error::Closed)?;
        unsettled.store(true, Ordering::Relaxed);
        let transaction =
            answer(*answer_within, Transaction::begin(object, manner, *answer_within)).await?;
        let done = work(&transaction).await;
        if let Err(Error::ConnectionLost(_)) = done {
            // There is nobody who could be told to roll back.
            return done;
        }
        let ended = match &done {
            Ok(_) => answer(*answer_within, transaction.commit()).await,
            Err(_) => answer(*answer_within, transaction.rollback()).await,
        };
        if ended.is_ok() {
            unsettled.store(false, Ordering::Relaxed);
        }
        // An error of the work's own says more than that of the rollback.
        let done = done?;
        ended?;
        Ok(done)
    }

    /// Runs a statement that must not be in a transaction; gives the session up if it takes longer
    /// than a limit of its own.
    pub(crate) async fn run_alone(&self, text: &str, limit: Duration) -> Result<(), Error> {
        let ran = answer(limit, async { Ok(self.object()?.batch_execute(text).await?) }).await;
        if let Err(Error::ConnectionLost(_)) = ran {
            self.unsettled.store(true, Ordering::Relaxed);
        }
        ran
    }

    /// Gives the session up: it is lost, though the driver may not have noticed yet, or its answer
    /// is no longer waited for.
    pub(crate) fn abandon(self) {
        self.unsettled.store(true, Ordering::Relaxed);
    }

    /// Waits for the answer to a statement; gives the session up if none comes.
    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut under_way = UnderWay { session: self, since: Instant::now(), answered: false };
        let answer = tokio::time::timeout(self.answer_within, answer).await;
        under_way.answered = answer.is_ok();
        answer.unwrap_or_else(|_| Err(no_answer(self.answer_within)))
    }

    fn object(&self) -> Result<&Object, Error> {
        self.object.as_ref().ok_or(Error::Closed)
    }

    /// Runs a statement in a transaction of its own. All is sent one behind the other without
    /// waiting: it takes one round trip, and a caller that goes away leaves nothing half done.
    async fn in_transaction<T>(
        &self,
        settings: &str,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        let begin = begin_with(settings);
        let object = self.object()?;
        self.unsettled.store(true, Ordering::Relaxed);
        let (begun, done, ended) = futures::join!(
            object.batch_execute(&begin),
            statement,
            object.batch_execute("commit"),
        );
        if ended.is_ok() {
            self.unsettled.store(false, Ordering::Relaxed);
        }
        begun?;
        // An aborted transaction answers a commit with a rollback, which the driver takes for
        // success: only after a statement without an error does success mean success.
        let done = done?;
        ended?;
        Ok(done)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.unsettled.load(Ordering::Relaxed)
            && let Some(object) = self.object.take()
        {
            // The connection ends, and what was under way on it with it.
            drop(Object::take(object));
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.answered && self.since.elapsed() > PATIENCE {
            self.session.unsettled.store(true, Ordering::Relaxed);
        }
    }
}

impl Statements for Session {
    async fn query(&self, text: &str, parameters: &[&dyn Parameter]) -> Result<Vec<Row>, Error> {
        let object = self.object()?;
        let answer = async {
            match &self.manner {
                Manner::Own => {
                    let statement = object.prepare_cached(text).await?;
                    Ok(object.query(&statement, &values(parameters)).await?)
                }
                Manner::Lent { settings } => {
                    let parameters = typed(parameters);
                    self.in_transaction(settings, object.query_typed(text, &parameters)).await
                }
            }
        };
        self.in_time(answer).await
    }

    async fn execute(&self, text: &str, parameters: &[&dyn Parameter]) -> Result<u64, Error> {
        let object = self.object()?;
        let answer = async {
            match &self.manner {
                Manner::Own => {
                    let statement = object.prepare_cached(text).await?;
                    Ok(object.execute(&statement, &values(parameters)).await?)
                }
                Manner::Lent { settings } => {
                    let parameters = typed(parameters);
                    self.in_transaction(settings, object.execute_typed(text, &parameters)).await
                }
            }
        };
        self.in_time(answer).await
    }
}

impl<'a> Transaction<'a> {
    /// The settings are sent with the begin: behind a pooler, the default limit for sessions that
    /// are idle in a transaction would hold between the two.
    async fn begin(
        object: &'a Object,
        manner: &Manner,
        answer_within: Duration,
    ) -> Result<Self, Error> {
        match manner {
            Manner::Own => object.batch_execute("begin").await?,
            Manner::Lent { settings } => object.batch_execute(&begin_with(settings)).await?,
        }
        Ok(Self { object, prepares: matches!(manner, Manner::Own), answer_within })
    }

    async fn commit(self) -> Result<(), Error> {
        Ok(self.object.batch_execute("commit").await?)
    }

    async fn rollback(self) -> Result<(), Error> {
        Ok(self.object.batch_execute("rollback").await?)
    }

    /// Limits how long each of its statements waits for a lock.
    pub(crate) async fn limit_lock_wait(&self, wait: Duration) -> Result<(), Error> {
        // 0 would be without a limit.
        let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).max(1);
        let limit = "-- limit_lock_wait\nselect set_config('lock_timeout', $1, true)";
        self.query_one(limit, &[&wait.to_string()]).await?;
        Ok(())
    }
}

impl Statements for Transaction<'_> {
    async fn query(&self, text: &str, parameters: &[&dyn Parameter]) -> Result<Vec<Row>, Error> {
        let rows = async {
            if self.prepares {
                let statement = self.object.prepare_cached(text).await?;
                Ok(self.object.query(&statement, &values(parameters)).await?)
            } else {
                Ok(self.object.query_typed(text, &typed(parameters)).await?)
            }
        };
        answer(self.answer_within, rows).await
    }

    async fn execute(&self, text: &str, parameters: &[&dyn Parameter]) -> Result<u64, Error> {
        let changed = async {
            if self.prepares {
                let statement = self.object.prepare_cached(text).await?;
                Ok(self.object.execute(&statement, &values(parameters)).await?)
            } else {
                Ok(self.object.execute_typed(text, &typed(parameters)).await?)
            }
        };
        answer(self.answer_within, changed).await
    }
}

/// An answer, or the word that the connection is lost.
async fn answer<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(no_answer(limit)))
}

fn begin_with(settings: &str) -> String {
    format!("begin isolation level read committed, read write; {settings}")
}

fn no_answer(limit: Duration) -> Error {
    Error::ConnectionLost(format!("no answer in {limit:?}"))
}

fn values<'a>(parameters: &[&'a dyn Parameter]) -> Vec<&'a (dyn ToSql + Sync)> {
    parameters.iter().map(|parameter| parameter.value()).collect()
}

fn typed<'a>(parameters: &[&'a dyn Parameter]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    parameters.iter().map(|parameter| (parameter.value(), parameter.sql_type())).collect()
}

macro_rules! parameter {
    ($rust:ty, $sql:ident) => {
        impl Parameter for $rust {
            fn value(&self) -> &(dyn ToSql + Sync) {
                self
            }

            fn sql_type(&self) -> Type {
                Type::$sql
            }
        }
    };
}

macro_rules! parameters {
    ($($rust:ty: $one:ident, $many:ident;)*) => {$(
        parameter!($rust, $one);
        parameter!(Option<$rust>, $one);
        parameter!(Vec<$rust>, $many);
        parameter!(Vec<Option<$rust>>, $many);
        parameter!(Option<Vec<Option<$rust>>>, $many);
    )*};
}

parameters! {
    bool: BOOL, BOOL_ARRAY;
    i32: INT4, INT4_ARRAY;
    i64: INT8, INT8_ARRAY;
    &str: TEXT, TEXT_ARRAY;
    String: TEXT, TEXT_ARRAY;
    &[u8]: BYTEA, BYTEA_ARRAY;
    SystemTime: TIMESTAMPTZ, TIMESTAMPTZ_ARRAY;
}
