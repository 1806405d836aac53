//! Settings of a database or a role that must not affect a broker.

use std::{sync::Arc, time::Duration};

use trunkline::storage::{self, Storage};

use crate::support::{LIMITS, PRODUCER, Pooler, TestBroker, TestDatabase, until};

/// Gives every setting that sessions rely on the worst possible value. The limit of a transaction is
/// given apart, as pooled sessions can only lift it within the transaction.
async fn set_for_the_database(database: &TestDatabase, transaction_timeout: &str) {
    let sql = database.sql().await;
    for setting in [
        "idle_session_timeout = '200ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "default_transaction_read_only = on",
        "default_transaction_isolation = serializable",
        "default_transaction_deferrable = on",
        "search_path = nowhere",
        "synchronous_commit = off",
        "exit_on_error = on",
        "enable_indexscan = off",
        "enable_bitmapscan = off",
        "enable_nestloop = off",
        "plan_cache_mode = force_custom_plan",
        "row_security = off",
        "check_function_bodies = off",
        "bytea_output = escape",
        "extra_float_digits = -15",
        "array_nulls = off",
        "transform_null_equals = on",
        "standard_conforming_strings = off",
        "client_encoding = LATIN1",
    ] {
        sql.batch_execute(&format!("alter database {} set {setting}", database.name))
            .await
            .unwrap();
    }
    let version = "select current_setting('server_version_num')::integer >= 170000";
    if sql.query_one(version, &[]).await.unwrap().get(0) {
        let limit = format!(
            "alter database {} set transaction_timeout = '{transaction_timeout}'",
            database.name
        );
        sql.batch_execute(&limit).await.unwrap();
    }
}

/// A new role that may only create a schema, and a URL with it.
struct Role {
    name: String,
    url: String,
}

async fn role(database: &TestDatabase, attributes: &str) -> Role {
    let (name, role) = (&database.name, format!("role_{}", database.name));
    let sql = database.sql().await;
    sql.batch_execute(&format!(
        "create role {role} login {attributes}; grant create on database {name} to {role}"
    ))
    .await
    .unwrap();
    let url = format!("host={} user={role} dbname={name}", database.socket_dir.display());
    Role { name: role, url }
}

/// The broker's permanent sessions, each with its process id.
const PERMANENT_SESSIONS: &str =
    "select array_agg(application_name || ' ' || pid order by application_name)
    from pg_stat_activity
    where datname = $1 and application_name in (
        'trunkline writer', 'trunkline lease', 'trunkline listen', 'trunkline position')";

#[tokio::test]
async fn no_setting_of_the_database_or_the_role_affects_a_broker() {
    let (database, elsewhere) = (TestDatabase::create_empty().await, TestDatabase::create().await);
    let Role { name: role, url } = role(&database, "superuser").await;
    set_for_the_database(&database, "1ms").await;
    let sql = elsewhere.sql().await;
    for setting in [
        "statement_timeout = '1ms'",
        "session_replication_role = replica",
        "timezone = 'Asia/Kolkata'",
        "datestyle = 'German'",
        "intervalstyle = 'iso_8601'",
    ] {
        sql.batch_execute(&format!("alter role {role} set {setting}")).await.unwrap();
    }
    let name = database.name.clone();
    let drain = Duration::from_secs(5);
    let broker = TestBroker::start_with(Arc::new(database), &url, None, drain).await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    assert_eq!(broker.publish("orders", ["first"]).await, 0);
    let mut stream = broker.consume("orders", "billing").await;
    assert_eq!(stream.payloads(1).await, ["first"]);
    until("the position is stored", async || broker.position("orders", "billing").await == 1).await;

    let sessions =
        sql.query_one(PERMANENT_SESSIONS, &[&name]).await.unwrap().get::<_, Vec<String>>(0);
    // One writer session has published, and has been idle since then.
    until("a session was idle for five times the limit", async || {
        let idle = "select exists (
            select from pg_stat_activity
            where datname = $1 and application_name = 'trunkline writer'
              and state = 'idle' and state_change < clock_timestamp() - interval '1 second')";
        sql.query_one(idle, &[&name]).await.unwrap().get(0)
    })
    .await;
    assert_eq!(broker.publish("orders", ["second"]).await, 1);
    assert_eq!(stream.payloads(1).await, ["second"]);
    let now = sql.query_one(PERMANENT_SESSIONS, &[&name]).await.unwrap().get::<_, Vec<String>>(0);
    assert!(sessions.iter().all(|session| now.contains(session)), "{sessions:?}, then {now:?}");

    broker.stop().await;
    sql.batch_execute(&format!("drop database {name} with (force)")).await.unwrap();
    sql.batch_execute(&format!("drop role {role}")).await.unwrap();
}

#[tokio::test]
#[cfg_attr(not(has_pgbouncer), ignore = "PgBouncer is not on this machine")]
async fn behind_a_pooler_no_setting_of_the_database_affects_a_broker() {
    let database = Arc::new(TestDatabase::create().await);
    let pooler = Pooler::start(&database, 3, true).await;
    // These have none of the settings, as their sessions begin before.
    let (mut blocker, observer) = (database.sql().await, database.sql().await);
    set_for_the_database(&database, "200ms").await;
    let (url, direct_url) = (pooler.url(&database), database.url.clone());
    let drain = Duration::from_secs(5);
    let broker = TestBroker::start_with(database, &url, Some(&direct_url), drain).await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    until("a publish succeeds", async || {
        broker.try_publish("orders", PRODUCER, ["x"]).await.is_ok()
    })
    .await;
    let mut stream = broker.consume("orders", "billing").await;
    assert_eq!(stream.payloads(1).await, ["x"]);

    // A transaction that waits for a row outlives the database's limit.
    let transaction = blocker.transaction().await.unwrap();
    transaction.execute("select from trunkline.topic_head for update", &[]).await.unwrap();
    let release = async {
        until("a publish has waited for twice the limit", async || {
            let waits = "select exists (
                select from pg_stat_activity
                where datname = current_database() and wait_event_type = 'Lock'
                  and xact_start < clock_timestamp() - interval '400 ms')";
            observer.query_one(waits, &[]).await.unwrap().get(0)
        })
        .await;
        transaction.rollback().await.unwrap();
    };
    let (published, ()) = tokio::join!(broker.try_publish("orders", PRODUCER, ["y"]), release);
    published.unwrap();
    assert_eq!(stream.payloads(1).await, ["y"]);
}

/// The broker's role lacks the privilege to reset it, so the error names where it was set.
#[tokio::test]
async fn a_setting_that_cannot_be_reset_is_named_with_its_source() {
    let database = TestDatabase::create_empty().await;
    let Role { name: role, url } = role(&database, "").await;
    let sql = database.sql().await;
    for (whose, source) in [
        (format!("role {role}"), format!("alter role {role} set")),
        (format!("database {}", database.name), format!("alter database {} set", database.name)),
    ] {
        let set = format!("alter {whose} set session_replication_role = replica");
        sql.batch_execute(&set).await.unwrap();
        let refused = match Storage::open(&url, None, LIMITS).await {
            Err(storage::Error::Setting(refused)) => refused,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("a refusal expected"),
        };
        let named = format!("session_replication_role ({source} session_replication_role=replica)");
        assert!(refused.contains(&named), "{refused}");
        assert!(refused.contains("42501"), "{refused}");
        sql.batch_execute(&format!("alter {whose} reset session_replication_role")).await.unwrap();
    }
    Storage::open(&url, None, LIMITS).await.unwrap().close();
}

/// A database that records the `search_path` of each session that creates a topic, stores a batch or
/// moves a position.
async fn database_that_records_paths() -> Arc<TestDatabase> {
    let database = Arc::new(TestDatabase::create().await);
    let record = "create table public.paths (path text);
        create function public.record_path() returns trigger language plpgsql as $$
        begin
            insert into public.paths values (pg_catalog.current_setting('search_path'));
            return new;
        end $$;
        create trigger record_path before insert on trunkline.topic
            for each row execute function public.record_path();
        create trigger record_path before insert on trunkline.batch
            for each row execute function public.record_path();
        create trigger record_path before update of position on trunkline.consumer_topic
            for each row execute function public.record_path();";
    database.sql().await.batch_execute(record).await.unwrap();
    database
}

/// What other users create must not stand in for what the broker's statements name.
async fn assert_only_own_names_are_found(broker: &TestBroker) {
    broker.topic("orders").await;
    broker.consumer("orders", "audit").await;
    broker.publish("orders", ["a"]).await;
    assert_eq!(broker.pull("orders", "audit", 1).await.unwrap().messages.len(), 1);
    let paths = "select path, count(*) from public.paths group by path";
    let rows = broker.sql().await.query(paths, &[]).await.unwrap();
    let found: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(found, [("pg_catalog, pg_temp".to_owned(), 3)]);
}

#[tokio::test]
async fn no_session_finds_names_in_schemas_that_others_may_change() {
    let broker = TestBroker::start_on(database_that_records_paths().await).await;
    assert_only_own_names_are_found(&broker).await;
}

#[tokio::test]
#[cfg_attr(not(has_pgbouncer), ignore = "PgBouncer is not on this machine")]
async fn no_pooled_session_finds_names_in_schemas_that_others_may_change() {
    let database = database_that_records_paths().await;
    let pooler = Pooler::start(&database, 4, false).await;
    let (url, direct_url) = (pooler.url(&database), database.url.clone());
    let drain = Duration::from_secs(5);
    let broker = TestBroker::start_with(database, &url, Some(&direct_url), drain).await;
    assert_only_own_names_are_found(&broker).await;
}
