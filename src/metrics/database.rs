//! Sessions of the database and the statements that run on them.

use std::{collections::HashMap, time::Instant};

use parking_lot::RwLock;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

use super::{
    buckets::seconds,
    text::{Instruments, Metrics},
};

/// What is measured of the database's sessions and statements.
pub struct DatabaseMetrics {
    waits: Family<PoolLabels, Histogram, fn() -> Histogram>,
    waiting: Family<PoolLabels, Gauge>,
    durations: Family<StatementLabels, Histogram, fn() -> Histogram>,
    errors: Family<StatementLabels, Counter>,
    /// The instruments of each statement, which finds them without a copy of its name.
    statements: RwLock<HashMap<String, StatementMetrics>>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolLabels {
    pool: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StatementLabels {
    statement: String,
}

#[derive(Clone)]
struct StatementMetrics {
    duration: Histogram,
    errors: Counter,
}

/// What is measured of the sessions of one pool.
#[derive(Clone)]
pub struct SessionMetrics {
    wait: Histogram,
    waiting: Gauge,
}

/// Somebody who waits for a session.
pub struct Waiting<'a> {
    metrics: &'a SessionMetrics,
    began: Instant,
}

/// Measures one statement. One that its caller gives up has no error.
pub struct StatementTimer {
    statement: StatementMetrics,
    began: Instant,
}

impl Default for DatabaseMetrics {
    fn default() -> Self {
        Self {
            waits: Family::new_with_constructor(seconds),
            waiting: Family::default(),
            durations: Family::new_with_constructor(seconds),
            errors: Family::default(),
            statements: RwLock::default(),
        }
    }
}

impl DatabaseMetrics {
    /// What is measured of the sessions of a pool.
    pub fn of_pool(&self, pool: &'static str) -> SessionMetrics {
        let labels = PoolLabels { pool };
        SessionMetrics {
            wait: self.waits.get_or_create_owned(&labels),
            waiting: self.waiting.get_or_create_owned(&labels),
        }
    }

    /// Begins to measure a statement, whose first line is its name: `-- append_batch`.
    pub fn begin(&self, statement: &str) -> StatementTimer {
        let name = name_of(statement);
        let found = self.statements.read().get(name).cloned();
        let statement = found.unwrap_or_else(|| self.add(name));
        StatementTimer { statement, began: Instant::now() }
    }

    fn add(&self, name: &str) -> StatementMetrics {
        let labels = StatementLabels { statement: name.to_owned() };
        let metrics = StatementMetrics {
            duration: self.durations.get_or_create_owned(&labels),
            errors: self.errors.get_or_create_owned(&labels),
        };
        self.statements.write().insert(name.to_owned(), metrics.clone());
        metrics
    }
}

/// The name of a statement. All statements of the broker have one; others would share the empty name.
fn name_of(statement: &str) -> &str {
    let comment = statement.trim_start().strip_prefix("--").unwrap_or_default();
    comment.lines().next().unwrap_or_default().trim()
}

impl SessionMetrics {
    /// Measures how long somebody waits for a session, until the result is dropped: whether there was
    /// one in the end or not.
    pub fn begin_waiting(&self) -> Waiting<'_> {
        self.waiting.inc();
        Waiting { metrics: self, began: Instant::now() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.metrics.waiting.dec();
        self.metrics.wait.observe(self.began.elapsed().as_secs_f64());
    }
}

impl StatementTimer {
    /// Ends the measurement of a statement with its outcome, which it returns.
    pub fn end<T, E>(self, outcome: Result<T, E>) -> Result<T, E> {
        if outcome.is_err() {
            self.statement.errors.inc();
        }
        outcome
    }
}

impl Drop for StatementTimer {
    fn drop(&mut self) {
        self.statement.duration.observe(self.began.elapsed().as_secs_f64());
    }
}

impl Instruments for DatabaseMetrics {
    fn register(&self, metrics: &mut Metrics) {
        metrics.add(
            "trunkline_postgres_session_wait_seconds",
            "How long work waited for a session of a pool",
            self.waits.clone(),
        );
        metrics.add(
            "trunkline_postgres_sessions_waiting",
            "How much work waits for a session of a pool",
            self.waiting.clone(),
        );
        metrics.add(
            "trunkline_postgres_statement_duration_seconds",
            "How long statements take, by the names that they have in PostgreSQL's logs too",
            self.durations.clone(),
        );
        metrics.add(
            "trunkline_postgres_statement_errors",
            "Statements that failed",
            self.errors.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_statement_is_called_by_its_first_line() {
        for (text, name) in [
            ("-- append_batch\nselect 1", "append_batch"),
            ("\n    -- find_topic  \n select 1", "find_topic"),
            ("-- alone", "alone"),
            ("select 1", ""),
            ("", ""),
        ] {
            assert_eq!(name_of(text), name);
        }
    }

    #[test]
    fn statements_and_waits_are_counted() {
        let database = Arc::new(DatabaseMetrics::default());
        drop(database.begin("-- read\nselect 1"));
        let failed: Result<(), ()> = Err(());
        assert_eq!(database.begin("-- read\nselect 2").end(failed), failed);
        let pool = database.of_pool("query");
        drop(pool.begin_waiting());
        let waiting = pool.begin_waiting();
        let mut metrics = Metrics::default();
        metrics.register(&*database);
        for expected in [
            "trunkline_postgres_statement_duration_seconds_count{statement=\"read\"} 2\n",
            "trunkline_postgres_statement_errors_total{statement=\"read\"} 1\n",
            "trunkline_postgres_session_wait_seconds_count{pool=\"query\"} 1\n",
            "trunkline_postgres_sessions_waiting{pool=\"query\"} 1\n",
        ] {
            let text = metrics.text().unwrap();
            assert!(text.contains(expected), "{text}");
        }
        drop(waiting);
        assert!(metrics.text().unwrap().contains("sessions_waiting{pool=\"query\"} 0\n"));
    }
}
