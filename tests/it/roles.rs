//! Roles with minimal privileges, and the advice when a privilege is missing.

use std::{sync::Arc, time::Duration};

use tokio_postgres::error::SqlState;
use trunkline::{
    proto::{self, Retention, seek_request::Target},
    storage::{Error, Limits, Storage},
};

use crate::support::{Document, PRODUCER, TestBroker, TestDatabase, Trunkline, connect, until};

const LIMITS: Limits = Limits { writers: 1, queries: 2 };

/// The URL of a database for another role.
pub fn url_as(database: &TestDatabase, role: &str) -> String {
    database.url.replacen(&format!("//{}@", database.user), &format!("//{role}@"), 1)
}

/// Creates a role with a unique name, as roles belong to the whole server.
pub async fn role(database: &TestDatabase, name: &str) -> String {
    let role = format!("{name}_{}", database.name);
    database.sql().await.batch_execute(&format!("create role {role} login")).await.unwrap();
    role
}

/// The SQL blocks of docs/roles.md, with unique role names.
fn documented(database: &TestDatabase) -> Vec<String> {
    let own = |block: String| {
        ["owner", "broker", "reader", "granted_reader"].iter().fold(block, |block, name| {
            block.replace(&format!("trunkline_{name}"), &format!("{name}_{}", database.name))
        })
    };
    Document::read("docs/roles.md").blocks_in("sql").into_iter().map(own).collect()
}

/// A database with the roles of the documentation.
pub struct Documented {
    pub database: Arc<TestDatabase>,
    broker: String,
    pub reader: String,
    /// Sees what is granted.
    pub granted_reader: String,
    /// The statement that finds the roles that see less after an upgrade.
    pub after_upgrade: String,
}

pub async fn with_documented_roles() -> Documented {
    let database = Arc::new(TestDatabase::create_empty().await);
    let [roles, for_broker, for_reader, for_granted, after_upgrade] =
        documented(&database).try_into().unwrap();
    database.sql().await.batch_execute(&roles).await.unwrap();
    let owner = url_as(&database, &format!("owner_{}", database.name));
    Storage::open(&owner, None, LIMITS).await.unwrap().close();
    let as_owner = connect(&owner).await;
    for grants in [for_broker, for_reader, for_granted] {
        as_owner.batch_execute(&grants).await.unwrap();
    }
    let own = |name| format!("{name}_{}", database.name);
    let (broker, reader, granted_reader) = (own("broker"), own("reader"), own("granted_reader"));
    Documented { database, broker, reader, granted_reader, after_upgrade }
}

/// The statements that a refusal says would grant the missing privileges.
fn missing(outcome: Result<Storage, Error>) -> Vec<String> {
    let Err(error) = outcome else { panic!("a refusal expected") };
    assert!(!error.is_transient());
    match error {
        Error::MissingPrivileges { statements, .. } => statements,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_documented_broker_role_can_do_everything_a_broker_does() {
    let Documented { database, broker: role, .. } = with_documented_roles().await;
    let url = url_as(&database, &role);
    let broker = TestBroker::start_with(database, &url, None, Duration::from_secs(5)).await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    broker.publish("orders", ["d"]).await;
    assert_eq!(broker.consume("orders", "billing").await.payloads(4).await, ["a", "b", "c", "d"]);
    assert_eq!(broker.seek("orders", "billing", Target::Offset(1)).await.unwrap(), 1);
    let mut held = broker.consume_manually("orders", "billing").await;
    held.attaches().await;
    let mut taken = broker.take_over("orders", "billing", "ann").await;
    taken.attaches().await;
    taken.payloads(3).await;
    assert_eq!(taken.commit(2).await.unwrap(), 2);
    drop((held, taken));
    until("the lease is free", async || broker.pull("orders", "billing", 1).await.is_ok()).await;

    // Trimming and retention delete rows.
    assert_eq!(broker.trim("orders", 3).await, 3);
    let request = proto::UpdateTopicRequest {
        topic: "orders".to_owned(),
        retention: Some(Retention { max_messages: 1, ..Default::default() }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["retention.max_messages".to_owned()],
        }),
        ..Default::default()
    };
    broker.topics().update_topic(request).await.unwrap();
    broker.publish("orders", ["e", "f"]).await;
    until("the oldest batches are deleted", async || broker.batches().await == 1).await;

    let fence = proto::RegisterProducerRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        fence: true,
        ..Default::default()
    };
    broker.producers().register_producer(fence).await.unwrap();
    let (topic, producer_id) = ("orders".to_owned(), PRODUCER.to_owned());
    let request = proto::UnregisterProducerRequest { topic, producer_id };
    broker.producers().unregister_producer(request).await.unwrap();
    let (topic, consumer_id) = ("orders".to_owned(), "billing".to_owned());
    let request = proto::UnregisterConsumerRequest { topic, consumer_id };
    broker.consumers().unregister_consumer(request).await.unwrap();
    broker.consumer("orders", "billing").await;
    broker.delete_topic("orders").await;
    let sql = broker.sql().await;
    until("the remains of the topic are deleted", async || {
        let left = "select (select count(*) from trunkline.batch)
                        + (select count(*) from trunkline.deleted_topic)";
        sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    broker.stop().await;
}

#[tokio::test]
async fn the_documented_reader_role_can_use_views_and_functions_and_nothing_else() {
    let Documented { database, reader: role, .. } = with_documented_roles().await;
    let broker = TestBroker::start_on(database.clone()).await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a", "b"]).await;
    let reader = connect(&url_as(&database, &role)).await;
    for (from, rows) in [
        ("message", 2),
        ("topics", 1),
        ("consumers", 1),
        ("producers", 1),
        ("newest('orders')", 2),
        ("read('orders')", 2),
        ("read_since('orders', now() - interval '1 hour')", 2),
        ("message_at('orders', 1)", 1),
        ("offset_at('orders', now())", 1),
    ] {
        let found = reader.query(&format!("select * from trunkline.{from}"), &[]).await;
        assert_eq!(found.unwrap().len(), rows, "{from}");
    }
    for statement in [
        "delete from trunkline.batch",
        "update trunkline.topic_head set next_offset = 0",
        "select * from trunkline.consumer_topic",
    ] {
        let error = reader.batch_execute(statement).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}");
    }
}

#[tokio::test]
async fn a_role_that_owns_the_schema_needs_no_right_to_create_schemas() {
    let database = TestDatabase::create_empty().await;
    let owner = role(&database, "owner").await;
    let schema = format!("create schema trunkline authorization {owner}");
    database.sql().await.batch_execute(&schema).await.unwrap();
    for _ in 0..2 {
        let storage = Storage::open(&url_as(&database, &owner), None, LIMITS).await.unwrap();
        assert!(storage.may_vacuum("batch").await.unwrap());
        storage.close();
    }
}

/// Functions run with their owner's rights, which must not be those of a superuser.
#[tokio::test]
async fn what_a_superuser_adds_to_the_schema_belongs_to_its_owner() {
    let database = TestDatabase::create_empty().await;
    let owner = role(&database, "owner").await;
    let sql = database.sql().await;
    let schema = format!("create schema trunkline authorization {owner}");
    sql.batch_execute(&schema).await.unwrap();
    let owners = "select array_agg(distinct owner::regrole::text) from (
            select relowner from pg_class where relnamespace = 'trunkline'::regnamespace
            union all
            select proowner from pg_proc where pronamespace = 'trunkline'::regnamespace
        ) one (owner)";
    let again = "delete from trunkline.installed_functions; drop function trunkline.topic_info";
    for prepare in ["", again] {
        sql.batch_execute(prepare).await.unwrap();
        Storage::open(&database.url, None, LIMITS).await.unwrap().close();
        let found: Vec<String> = sql.query_one(owners, &[]).await.unwrap().get(0);
        assert_eq!(found, [owner.as_str()], "{prepare}");
    }
}

#[tokio::test]
async fn a_role_without_privileges_on_the_schema_is_told_every_grant_it_needs() {
    let database = TestDatabase::create().await;
    let app = role(&database, "app").await;
    let sql = database.sql().await;
    let revoke = "revoke execute on function trunkline.changed_meanwhile from public";
    sql.batch_execute(revoke).await.unwrap();
    let statements = missing(Storage::open(&url_as(&database, &app), None, LIMITS).await);
    let batch = format!("grant select, insert, delete on trunkline.batch to {app}");
    assert!(statements.contains(&batch), "{statements:?}");
    // If one privilege is missing, only that one is listed.
    for statement in &statements {
        let (what, whose) = statement.rsplit_once(" to ").unwrap();
        let revoke = format!("{} from {whose}", what.replacen("grant", "revoke", 1));
        sql.batch_execute(&format!("{}; {revoke}", statements.join(";"))).await.unwrap();
        let outcome = Storage::open(&url_as(&database, &app), None, LIMITS).await;
        assert_eq!(missing(outcome).as_slice(), std::slice::from_ref(statement));
    }
    sql.batch_execute(&statements.join(";")).await.unwrap();
    let storage = Storage::open(&url_as(&database, &app), None, LIMITS).await.unwrap();
    // Vacuuming is skipped without an error and without warnings of the server.
    assert!(!storage.may_vacuum("batch").await.unwrap());
    storage.vacuum_batches().await.unwrap();
    storage.close();
    let url = url_as(&database, &app);
    let arguments = ["--database-url", &url, "--listen", "127.0.0.1:0"];
    let (mut broker, _) = Trunkline::serve(&arguments).await;
    broker.log_line("may not vacuum trunkline.batch").await;
}

#[tokio::test]
async fn a_privilege_that_is_revoked_while_the_broker_runs_is_reported() {
    let Documented { database, broker: role, .. } = with_documented_roles().await;
    let storage = Storage::open(&url_as(&database, &role), None, LIMITS).await.unwrap();
    let revoke = format!("revoke select on trunkline.topic_head from {role}");
    database.sql().await.batch_execute(&revoke).await.unwrap();
    let error = storage.read_ends(&[]).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden(_)), "{error}");
    assert!(error.to_string().contains("permission denied for table topic_head"), "{error}");
    assert!(!error.is_transient());
    storage.close();
}

#[tokio::test]
async fn a_role_that_may_not_create_the_schema_is_told_the_grant_it_needs() {
    let database = TestDatabase::create_empty().await;
    let app = role(&database, "app").await;
    let url = url_as(&database, &app);
    let ended = Trunkline::run(&["serve", "--database-url", &url, "--listen", "127.0.0.1:0"]).await;
    assert_eq!(ended.code(), 1, "{ended:?}");
    let grant = format!("grant create on database {} to {app};", database.name);
    assert!(ended.stderr.contains(&grant), "{ended:?}");
    let statements = missing(Storage::open(&url, None, LIMITS).await);
    database.sql().await.batch_execute(&statements[0]).await.unwrap();
    Storage::open(&url, None, LIMITS).await.unwrap().close();
}

#[tokio::test]
async fn a_role_that_may_not_migrate_is_told_which_role_may() {
    let database = TestDatabase::create_empty().await;
    let (owner, app) = (role(&database, "owner").await, role(&database, "app").await);
    let sql = database.sql().await;
    let schema = format!("create schema trunkline authorization {owner}");
    sql.batch_execute(&schema).await.unwrap();
    Storage::open(&url_as(&database, &owner), None, LIMITS).await.unwrap().close();
    let behind = "grant usage on schema trunkline to public;
        grant select on trunkline.schema_history to public;
        delete from trunkline.schema_history
        where version = (select max(version) from trunkline.schema_history)";
    sql.batch_execute(behind).await.unwrap();
    let older = async |database: &TestDatabase, role: &str, expected: &str| {
        let Err(error) = Storage::open(&url_as(database, role), None, LIMITS).await else {
            panic!("a refusal expected")
        };
        let Error::OlderSchema { found, known, role: named, owner } = &error else {
            panic!("{error}")
        };
        assert_eq!((known - found, named.as_str(), owner.as_str()), (1, role, expected));
        assert!(!error.is_transient() && error.to_string().contains("run `trunkline migrate`"));
    };
    older(&database, &app, &owner).await;

    // Nor does it offer the rights of a superuser.
    let database = TestDatabase::create().await;
    database.sql().await.batch_execute(behind).await.unwrap();
    older(&database, &app, "trunkline").await;
}

/// The set-up of docs/roles.md: each role does its own part by the command, and nothing else.
#[tokio::test]
async fn the_owner_migrates_the_broker_serves_and_the_reader_reads() {
    let database = TestDatabase::create_empty().await;
    let [roles, for_broker, for_reader, _, _] = documented(&database).try_into().unwrap();
    database.sql().await.batch_execute(&roles).await.unwrap();
    let url = |role: &str| url_as(&database, &format!("{role}_{}", database.name));
    let (owner, broker, reader) = (url("owner"), url("broker"), url("reader"));
    let serve = ["serve", "--listen", "127.0.0.1:0", "--database-url", &broker];
    let migrate = async |url: &str| Trunkline::run(&["migrate", "--database-url", url]).await;

    // Before the owner has migrated, nobody else can.
    let refused = Trunkline::run(&serve).await;
    assert_eq!(refused.code(), 1, "{refused:?}");
    let advice = format!("run `trunkline migrate` of this version as owner_{}", database.name);
    for refused in [refused, migrate(&broker).await] {
        assert_eq!(refused.code(), 1, "{refused:?}");
        assert!(refused.stderr.contains(&advice), "{refused:?}");
    }
    let mut versions = Vec::new();
    for _ in 0..2 {
        let migrated = migrate(&owner).await;
        assert_eq!(migrated.code(), 0, "{migrated:?}");
        versions.push(migrated.stdout);
    }
    assert!(versions[0].starts_with("the schema is at version "), "{versions:?}");
    assert_eq!(versions[0], versions[1]);
    let as_owner = connect(&owner).await;
    as_owner.batch_execute(&for_broker).await.unwrap();
    as_owner.batch_execute(&for_reader).await.unwrap();

    let (mut running, endpoint) = Trunkline::serve(&serve[1..]).await;
    let call = async |arguments: &[&str]| {
        let finished = Trunkline::run(&[&["--endpoint", &endpoint], arguments].concat()).await;
        assert_eq!(finished.code(), 0, "{arguments:?}: {finished:?}");
    };
    call(&["topic", "create", "orders"]).await;
    call(&["producer", "register", "--topic", "orders", "shop"]).await;
    let produce = ["--endpoint", &endpoint, "produce", "orders", "--producer", "shop"];
    assert_eq!(Trunkline::run_with_input(&produce, b"a\nb\n").await.code(), 0);
    let sql = connect(&reader).await;
    let count = sql.query_one("select count(*) from trunkline.message", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 2);
    for url in [&broker, &reader] {
        for statement in [
            "create table trunkline.mine ()",
            "alter table trunkline.topic add column mine text",
            "drop table trunkline.batch",
            "truncate trunkline.batch",
        ] {
            let error = connect(url).await.batch_execute(statement).await.unwrap_err();
            assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}");
        }
    }
    running.kill().await;
}

/// The privilege came with PostgreSQL 17.
#[tokio::test]
async fn a_broker_that_was_granted_maintain_vacuums_without_owning_anything() {
    let Documented { database, broker: role, .. } = with_documented_roles().await;
    let sql = database.sql().await;
    let version = "select current_setting('server_version_num')::integer";
    if sql.query_one(version, &[]).await.unwrap().get::<_, i32>(0) < 170_000 {
        return;
    }
    let grant = format!("grant maintain on trunkline.batch to {role}");
    sql.batch_execute(&grant).await.unwrap();
    let storage = Storage::open(&url_as(&database, &role), None, LIMITS).await.unwrap();
    assert!(storage.may_vacuum("batch").await.unwrap());
    storage.vacuum_batches().await.unwrap();
    storage.close();
}

#[tokio::test]
async fn a_role_that_may_not_connect_is_told_the_grant_it_needs() {
    let database = TestDatabase::create().await;
    let app = role(&database, "app").await;
    let revoke = format!("revoke connect on database {} from public", database.name);
    database.sql().await.batch_execute(&revoke).await.unwrap();
    let statements = missing(Storage::open(&url_as(&database, &app), None, LIMITS).await);
    let grant = format!("grant connect on database \"{}\" to \"{app}\"", database.name);
    assert_eq!(statements, [grant]);
}

/// The server uses the same code as for missing privileges.
#[tokio::test]
async fn a_role_that_may_not_set_an_option_of_its_url_is_told_in_the_servers_words() {
    let database = TestDatabase::create().await;
    let app = role(&database, "app").await;
    let url = url_as(&database, &app);
    let separator = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{separator}options=-c%20log_statement%3Dall");
    let Err(error) = Storage::open(&url, None, LIMITS).await else { panic!("a refusal expected") };
    assert!(!error.is_transient(), "{error}");
    let text = error.to_string();
    assert!(text.contains("permission denied to set parameter \"log_statement\""), "{text}");
    assert!(!text.contains("grant"), "{text}");
}

/// Pooled sessions may belong to another role, and the schema's history is read directly.
#[tokio::test]
async fn the_role_of_pooled_sessions_does_not_need_the_schema_history() {
    let Documented { database, broker: role, .. } = with_documented_roles().await;
    let revoke = format!("revoke select on trunkline.schema_history from {role}");
    database.sql().await.batch_execute(&revoke).await.unwrap();
    let url = url_as(&database, &role);
    Storage::open(&url, Some(&database.url), LIMITS).await.unwrap().close();
    // A broker that connects to the server directly does need it.
    Storage::open(&url, None, LIMITS).await.err().unwrap();
}

#[tokio::test]
async fn a_schema_with_another_migration_is_refused() {
    let database = TestDatabase::create().await;
    let change = "update trunkline.schema_history set checksum = '1' where version = 2";
    database.sql().await.batch_execute(change).await.unwrap();
    let Err(error) = Storage::open(&database.url, None, LIMITS).await else {
        panic!("a refusal expected")
    };
    assert!(matches!(error, Error::Migration(_)), "{error}");
    assert!(error.to_string().contains("version 2"), "{error}");
}

/// Tables that only functions with the owner's rights use.
const OF_FUNCTIONS: [&str; 3] = ["staged_message", "direct_publish", "outbox_watch"];

/// A table that a later version adds must be granted, too.
#[tokio::test]
async fn the_documented_grants_cover_every_table() {
    let database = TestDatabase::create().await;
    let documented = documented(&database).concat();
    let tables = "select relname::text from pg_class
        where relnamespace = 'trunkline'::regnamespace and relkind = 'r'";
    for row in database.sql().await.query(tables, &[]).await.unwrap() {
        let table: &str = row.get(0);
        if OF_FUNCTIONS.contains(&table) {
            continue;
        }
        assert!(documented.contains(&format!("trunkline.{table}")), "{table}");
    }
}
