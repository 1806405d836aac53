//! The schema: created once, documented in the database, and refused if it is not known.

use std::sync::Arc;

use refinery::Target;
use trunkline::storage::{Error, Limits, Storage};

use crate::support::{TestBroker, TestDatabase};

const LIMITS: Limits = Limits { writers: 1, queries: 1 };

#[tokio::test]
async fn brokers_that_start_at_the_same_time_create_the_schema_once() {
    let database = TestDatabase::create_empty().await;
    let open = || Storage::open(&database.url, None, LIMITS);
    let (a, b, c) = tokio::join!(open(), open(), open());
    for storage in [a, b, c] {
        storage.unwrap().read_ends(&[]).await.unwrap();
    }
    let applied = "select count(*), max(version)::bigint from trunkline.schema_history";
    let applied = database.sql().await.query_one(applied, &[]).await.unwrap();
    assert_eq!(applied.get::<_, i64>(0), applied.get::<_, i64>(1), "each version is applied once");
}

mod migrations {
    refinery::embed_migrations!("migrations");
}

/// A database with tokens and owners, of a broker before quotas, goes on.
#[tokio::test]
async fn a_database_of_an_earlier_broker_is_migrated() {
    let database = TestDatabase::create_empty().await;
    let mut sql = database.sql().await;
    sql.batch_execute("create schema trunkline").await.unwrap();
    let mut earlier = migrations::migrations::runner().set_target(Target::Version(6));
    earlier.set_migration_table_name("trunkline.schema_history");
    earlier.run_async(&mut sql).await.unwrap();
    sql.batch_execute(
        "insert into trunkline.topic (name) values ('orders');
         insert into trunkline.producer_topic (topic_id, producer_id, owner)
         select id, 'web', 'shop' from trunkline.topic",
    )
    .await
    .unwrap();
    let storage = Storage::open(&database.url, None, LIMITS).await.unwrap();
    let before = storage.find_access_version().await.unwrap();
    sql.batch_execute("update trunkline.producer_topic set owner = 'till'").await.unwrap();
    let after = storage.find_access_version().await.unwrap();
    assert_eq!(after.all, before.all + 1);
    assert_eq!(after.owners.began, after.all);
    assert!(after.owners.changed_at > before.owners.changed_at);
}

/// Functions are not frozen like migrations.
#[tokio::test]
async fn functions_are_installed_again_unless_they_are_newer() {
    let database = TestDatabase::create().await;
    let sql = database.sql().await;
    let answer = async || {
        let called = sql.query_one("select trunkline.is_unlimited()", &[]).await.unwrap();
        called.get::<_, bool>(0)
    };
    let change = async |record: &str| {
        let replace = "create or replace function trunkline.is_unlimited() returns boolean
            language sql stable as 'select false'; grant execute on function
            trunkline.is_unlimited to public; update trunkline.installed_functions set";
        sql.batch_execute(&format!("{replace} {record}")).await.unwrap();
        assert!(!answer().await);
        Storage::open(&database.url, None, LIMITS).await.unwrap().close();
    };
    change("checksum = 'another'").await;
    assert!(answer().await, "another state of the same version is replaced");
    let granted = "select has_function_privilege('public', 'trunkline.is_unlimited()', 'execute')";
    assert!(!sql.query_one(granted, &[]).await.unwrap().get::<_, bool>(0));
    change("version = 0").await;
    assert!(answer().await, "an older version is replaced");
    change("version = 1000").await;
    assert!(!answer().await, "a newer version is left alone");

    // A role that may not replace them is told who may.
    sql.batch_execute("update trunkline.installed_functions set version = 0").await.unwrap();
    let role = format!("app_{}", database.name);
    sql.batch_execute(&format!(
        "create role {role} login; grant usage on schema trunkline to {role};
         grant all on all tables in schema trunkline to {role};
         grant execute on all functions in schema trunkline to {role}"
    ))
    .await
    .unwrap();
    let url = database.url.replacen(&format!("//{}@", database.user), &format!("//{role}@"), 1);
    let Err(error) = Storage::open(&url, None, LIMITS).await else { panic!("a refusal expected") };
    assert!(matches!(error, Error::OtherFunctions { .. }), "{error}");
    assert!(error.to_string().contains("run `trunkline migrate` of this version as"), "{error}");
}

#[tokio::test]
async fn a_schema_of_a_newer_broker_is_refused() {
    let database = Arc::new(TestDatabase::create().await);
    let sql = database.sql().await;
    let known: i32 = sql
        .query_one("select max(version)::integer from trunkline.schema_history", &[])
        .await
        .unwrap()
        .get(0);
    sql.batch_execute(
        "insert into trunkline.schema_history select 999, name, applied_on, checksum
         from trunkline.schema_history limit 1",
    )
    .await
    .unwrap();
    let Err(error) = Storage::open(&database.url, None, LIMITS).await else {
        panic!("a refusal expected")
    };
    assert!(matches!(error, Error::NewerSchema { found: 999, known: k } if k == known), "{error}");
    assert!(!error.is_transient());
    assert!(error.to_string().contains("run a newer broker"), "{error}");
}

#[tokio::test]
async fn every_table_and_column_has_a_comment() {
    let database = TestDatabase::create().await;
    let without_comment = database
        .sql()
        .await
        .query(
            "select c.relname || coalesce('.' || a.attname, '')
             from pg_class c
             left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
             where c.relnamespace = 'trunkline'::regnamespace and c.relkind in ('r', 'v')
               and c.relname <> 'schema_history'
               and (obj_description(c.oid, 'pg_class') is null
                    or col_description(c.oid, a.attnum) is null)",
            &[],
        )
        .await
        .unwrap();
    let without_comment: Vec<&str> = without_comment.iter().map(|row| row.get(0)).collect();
    assert!(without_comment.is_empty(), "{without_comment:?}");
}

#[tokio::test]
async fn a_malformed_url_is_refused_without_showing_its_password() {
    let Err(error) = Storage::open("postgresql://u:s3cret@h:port/d", None, LIMITS).await else {
        panic!("a refusal expected")
    };
    assert!(matches!(error, Error::Url(_)), "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[tokio::test]
async fn every_session_has_an_application_name() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a"]).await;
    let mut stream = broker.consume("orders", "billing").await;
    stream.next_messages().await;
    let names = broker
        .sql()
        .await
        .query(
            "select distinct application_name from pg_stat_activity
             where datname = current_database() and backend_type = 'client backend'
                and pid <> pg_backend_pid() order by 1",
            &[],
        )
        .await
        .unwrap();
    let names: Vec<&str> = names.iter().map(|row| row.get(0)).collect();
    let expected = [
        "trunkline lease",
        "trunkline listen",
        "trunkline position",
        "trunkline query",
        "trunkline writer",
    ];
    assert_eq!(names, expected);
}
