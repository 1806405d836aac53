//! What roles without rights on the tables may do with the functions.

use std::sync::Arc;

use tokio_postgres::{Client, error::SqlState};

use crate::{
    roles::{role, url_as},
    sql_publish::{refused, stored},
    support::{PRODUCER, TestBroker, TestDatabase, connect, until},
};

/// A broker with the topic `orders`, and a role that may execute all functions that are meant for
/// applications, but has no grants yet.
struct Site {
    database: Arc<TestDatabase>,
    broker: TestBroker,
    owner: Client,
    role: String,
    sql: Client,
}

/// The functions that the roles for applications get.
const PUBLIC: [&str; 13] = [
    "publish",
    "publish_many",
    "publish_at_commit",
    "publish_later",
    "publish_later_many",
    "create_topic",
    "register_producer",
    "register_consumer",
    "receive",
    "commit_position",
    "seek",
    "topic_info",
    "consumer_info",
];

async fn site() -> Site {
    let database = Arc::new(TestDatabase::create().await);
    let broker = TestBroker::start_on(database.clone()).await;
    broker.topic("orders").await;
    broker.topic("secrets").await;
    let owner = database.sql().await;
    let role = role(&database, "app").await;
    allow(&owner, &role).await;
    let sql = connect(&url_as(&database, &role)).await;
    Site { database, broker, owner, role, sql }
}

async fn allow(owner: &Client, role: &str) {
    let functions = "select p.oid::regprocedure::text from pg_proc p
        where pronamespace = 'trunkline'::regnamespace and proname = any ($1)";
    let names: Vec<&str> = PUBLIC.to_vec();
    for row in owner.query(functions, &[&names]).await.unwrap() {
        let grant = format!("grant execute on function {} to {role}", row.get::<_, &str>(0));
        owner.batch_execute(&grant).await.unwrap();
    }
    owner.batch_execute(&format!("grant usage on schema trunkline to {role}")).await.unwrap();
}

impl Site {
    async fn grant(&self, principal: &str, operation: &str, topics: &str) {
        let grant =
            "insert into trunkline.access_grant (principal, operation, topics) values ($1, $2, $3)";
        self.owner
            .execute(grant, &[&format!("sql:{principal}"), &operation, &topics])
            .await
            .unwrap();
    }

    async fn withdraw(&self) {
        self.owner.batch_execute("delete from trunkline.access_grant").await.unwrap();
    }
}

fn reason(refusal: (String, String)) -> String {
    refusal.1
}

#[tokio::test]
async fn a_role_publishes_where_grants_let_it_and_sees_nothing_else() {
    let site = site().await;
    for way in ["publish", "publish_at_commit", "publish_later"] {
        let publish = |topic: &str| format!("select trunkline.{way}('{topic}', '{way}')");
        assert_eq!(reason(refused(&site.sql, &publish("orders")).await), "TOPIC_NOT_FOUND");
        site.grant(&site.role, "read", "orders").await;
        assert_eq!(reason(refused(&site.sql, &publish("orders")).await), "NOT_GRANTED");
        site.grant(&site.role, "publish", "ord*").await;
        site.sql.batch_execute(&publish("orders")).await.unwrap();
        // What is hidden looks like what does not exist.
        for topic in ["secrets", "missing"] {
            let error = site.sql.batch_execute(&publish(topic)).await.unwrap_err();
            let message = error.as_db_error().unwrap().message().to_owned();
            assert_eq!(message, format!("topic {topic} does not exist"));
        }
        site.withdraw().await;
        assert_eq!(reason(refused(&site.sql, &publish("orders")).await), "TOPIC_NOT_FOUND");
    }
    until("all are in the log", async || stored(&site.owner, "orders").await.len() == 3).await;
    let by = "select distinct producer_id, owner from trunkline.message join trunkline.producer_topic using (producer_id)";
    let rows = site.owner.query(by, &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<_, String>(0), format!("sql.{}", site.role));
    assert_eq!(rows[0].get::<_, String>(1), format!("sql:{}", site.role));
}

#[tokio::test]
async fn a_producer_belongs_to_the_role_that_registered_it() {
    let site = site().await;
    site.grant(&site.role, "publish", "*").await;
    let other = role(&site.database, "other").await;
    allow(&site.owner, &other).await;
    site.grant(&other, "publish", "*").await;
    let other_sql = connect(&url_as(&site.database, &other)).await;
    site.sql.batch_execute("select trunkline.register_producer('orders', 'till')").await.unwrap();
    let publish = |producer: &str| {
        format!("select trunkline.publish('orders', 'x', producer => '{producer}')")
    };
    site.sql.batch_execute(&publish("till")).await.unwrap();
    assert_eq!(reason(refused(&other_sql, &publish("till")).await), "NOT_OWNER");
    let register = "select trunkline.register_producer('orders', 'till', if_missing => true)";
    assert_eq!(reason(refused(&other_sql, register).await), "NOT_OWNER");
    // The producer of another role, registered or not.
    for name in [site.role.as_str(), "somebody"] {
        let steal = format!("select trunkline.register_producer('orders', 'sql.{name}')");
        assert_eq!(reason(refused(&other_sql, &steal).await), "NOT_OWNER");
    }
    let own = format!("select trunkline.register_producer('orders', 'sql.{}')", site.role);
    site.sql.batch_execute(&own).await.unwrap();
    // What was registered without authentication is nobody's.
    assert_eq!(reason(refused(&site.sql, &publish(PRODUCER)).await), "NO_OWNER");
    // A member of a role uses what belongs to the role, and has its grants.
    site.owner.batch_execute(&format!("grant {} to {other}", site.role)).await.unwrap();
    other_sql.batch_execute(&publish("till")).await.unwrap();
    // The role that has logged in counts, whatever role it has taken on since.
    let publish = format!("set role {}; select trunkline.publish('orders', 'x')", site.role);
    other_sql.batch_execute(&publish).await.unwrap();
    let by = "select producer_id from trunkline.newest('orders', 1)";
    assert_eq!(
        site.owner.query_one(by, &[]).await.unwrap().get::<_, String>(0),
        format!("sql.{other}")
    );
}

#[tokio::test]
async fn consumers_are_the_roles_own_and_topics_are_made_by_administrators() {
    let site = site().await;
    site.broker.publish("orders", ["a", "b"]).await;
    site.broker.consumer("orders", "billing").await;
    site.grant(&site.role, "publish", "orders").await;
    for call in [
        "register_consumer('orders', 'mine')",
        "receive('orders', 'billing')",
        "commit_position('orders', 'billing', 1, 1)",
        "seek('orders', 'billing')",
        "consumer_info('orders', 'billing')",
    ] {
        let call = format!("select trunkline.{call}");
        assert_eq!(reason(refused(&site.sql, &call).await), "NOT_GRANTED", "{call}");
    }
    site.sql.batch_execute("select trunkline.topic_info('orders')").await.unwrap();
    site.grant(&site.role, "consume", "orders").await;
    for call in [
        "receive('orders', 'billing')",
        "commit_position('orders', 'billing', 1, 1)",
        "seek('orders', 'billing')",
    ] {
        let call = format!("select trunkline.{call}");
        assert_eq!(reason(refused(&site.sql, &call).await), "NO_OWNER", "{call}");
    }
    site.sql
        .batch_execute(
            "select trunkline.register_consumer('orders', 'mine'); select trunkline.receive('orders', 'mine', 1);
             select trunkline.seek('orders', 'mine', 1); select trunkline.consumer_info('orders', 'billing')",
        )
        .await
        .unwrap();
    assert_eq!(
        site.broker.get_consumer("orders", "mine").await.owner,
        format!("sql:{}", site.role)
    );
    let create = "select trunkline.create_topic('orders.eu')";
    assert_eq!(reason(refused(&site.sql, create).await), "NOT_GRANTED");
    // Whoever may use a topic gets it, but learns of no other.
    let get = |topic: &str| format!("select trunkline.create_topic('{topic}', if_missing => true)");
    let created: bool = site.sql.query_one(&get("orders"), &[]).await.unwrap().get(0);
    assert!(!created);
    for topic in ["secrets", "missing"] {
        assert_eq!(reason(refused(&site.sql, &get(topic)).await), "NOT_GRANTED", "{topic}");
    }
    site.grant(&site.role, "admin", "orders*").await;
    site.sql.batch_execute(create).await.unwrap();
    // An administrator of the topic seeks everyone's, and consumes as none of them.
    site.sql.batch_execute("select trunkline.seek('orders', 'billing', 1)").await.unwrap();
    assert_eq!(
        reason(refused(&site.sql, "select trunkline.receive('orders', 'billing')").await),
        "NO_OWNER"
    );

    let audit = "select act, topic, subject, principal from trunkline.audit where method like 'sql/%' order by id";
    let rows = site.owner.query(audit, &[]).await.unwrap();
    let acts: Vec<String> = rows
        .iter()
        .map(|row| {
            format!(
                "{} {} {}",
                row.get::<_, &str>(0),
                row.get::<_, &str>(1),
                row.get::<_, Option<&str>>(2).unwrap_or("-")
            )
        })
        .collect();
    assert_eq!(
        acts,
        [
            "register_consumer orders consumer mine",
            "seek orders consumer mine",
            "create_topic orders.eu -",
            "seek orders consumer billing"
        ]
    );
    assert!(rows.iter().all(|row| row.get::<_, String>(3) == format!("sql:{}", site.role)));
}

/// The name of its producer differs from its own, as not all characters may be in one.
#[tokio::test]
async fn a_role_whose_name_is_no_name_of_a_producer_publishes_too() {
    let site = site().await;
    let name = format!("app ü@{}", site.database.name);
    let quoted = format!("\"{name}\"");
    site.owner.batch_execute(&format!("create role {quoted} login")).await.unwrap();
    allow(&site.owner, &quoted).await;
    site.grant(&name, "publish", "orders").await;
    let url = site.database.url.replacen(
        &format!("//{}@", site.database.user),
        &format!("//app%20%C3%BC%40{}@", site.database.name),
        1,
    );
    let sql = connect(&url).await;
    for _ in 0..2 {
        for way in ["publish", "publish_at_commit", "publish_later"] {
            let publish = format!("select trunkline.{way}('orders', 'x')");
            sql.batch_execute(&publish).await.unwrap();
        }
    }
    until("all are stored", async || stored(&site.owner, "orders").await.len() == 6).await;
    let producers = "select distinct producer_id from trunkline.message where topic = 'orders'";
    let found: Vec<String> =
        site.owner.query(producers, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(found, [format!("sql.app___{}", site.database.name)]);
    let owner = "select owner from trunkline.producer_topic where producer_id like 'sql.app%'";
    let owners: String = site.owner.query_one(owner, &[]).await.unwrap().get(0);
    assert_eq!(owners, format!("sql:{name}"));
}

/// Nobody can use a table, a function for brokers, or names of its own in the place of PostgreSQL's.
#[tokio::test]
async fn functions_with_more_rights_than_their_callers_are_closed_and_qualified() {
    let site = site().await;
    let functions = "select p.proname::text, p.prosecdef,
               coalesce(array_to_string(p.proconfig, ','), ''),
               has_function_privilege('public', p.oid, 'execute'),
               has_function_privilege($1, p.oid, 'execute')
        from pg_proc p where pronamespace = 'trunkline'::regnamespace";
    let mut definers = 0;
    for row in site.owner.query(functions, &[&site.role]).await.unwrap() {
        let (name, definer, settings): (&str, bool, &str) = (row.get(0), row.get(1), row.get(2));
        let (everyone, app): (bool, bool) = (row.get(3), row.get(4));
        if definer {
            definers += 1;
            assert!(settings.contains("search_path=pg_catalog, pg_temp"), "{name}: {settings}");
            assert!(!everyone, "{name}");
        }
        if !everyone {
            assert_eq!(app, PUBLIC.contains(&name), "{name}");
        }
    }
    assert!(definers > 20, "{definers}");
    site.grant(&site.role, "admin", "*").await;
    site.grant(&site.role, "publish", "*").await;
    for table in [
        "outbox",
        "staged_message",
        "outbox_watch",
        "outbox_pass",
        "direct_publish",
        "installed_functions",
        "batch",
    ] {
        for statement in
            [format!("select from trunkline.{table}"), format!("delete from trunkline.{table}")]
        {
            let error = site.sql.batch_execute(&statement).await.unwrap_err();
            assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}");
        }
    }
    // Its own operators and functions are not used.
    site.owner
        .batch_execute(&format!(
            "grant temporary on database {} to {}",
            site.database.name, site.role
        ))
        .await
        .unwrap();
    site.sql
        .batch_execute(
            "create function pg_temp.cardinality(anyarray) returns integer language plpgsql as
                 $$ begin raise exception 'mine'; end $$;
             create function pg_temp.clock_timestamp() returns timestamptz language plpgsql as
                 $$ begin raise exception 'mine'; end $$;
             set search_path = pg_temp, pg_catalog;
             select trunkline.publish('orders', 'x'); select trunkline.publish_later('orders', 'x');
             select trunkline.publish_at_commit('orders', 'x')",
        )
        .await
        .unwrap();
}

/// PostgreSQL runs functions of indexes with the rights of their table's owner when somebody else
/// analyses the table, and the session is a superuser's all the same.
#[tokio::test]
async fn a_maintained_table_of_a_role_gives_it_no_rights_of_others() {
    let site = site().await;
    site.broker.consumer("secrets", "audit").await;
    site.broker.publish("secrets", ["secret"]).await;
    let own = format!("own_{}", site.database.name);
    site.owner
        .batch_execute(&format!("create schema {own} authorization {}", site.role))
        .await
        .unwrap();
    for call in [
        "trunkline.receive('secrets', 'audit')",
        "trunkline.publish('secrets', 'forged')",
        "trunkline.publish_many('secrets', array['forged'])",
        "trunkline.publish_at_commit('secrets', 'forged')",
        "trunkline.publish_later('secrets', 'forged')",
        "trunkline.publish_later_many('secrets', array['forged'])",
        "trunkline.create_topic('forged')",
        "trunkline.register_producer('secrets', 'forged')",
        "trunkline.register_consumer('secrets', 'forged')",
        "trunkline.seek('secrets', 'audit', 0)",
        "trunkline.commit_position('secrets', 'audit', 0, 1)",
        "trunkline.topic_info('secrets')",
        "trunkline.consumer_info('secrets', 'audit')",
    ] {
        let attack = format!(
            "drop table if exists {own}.bait, {own}.loot;
             create table {own}.loot (t text);
             create or replace function {own}.inside() returns void language plpgsql as $$ begin
                 insert into {own}.loot select ({call})::text;
             end $$;
             create or replace function {own}.evil(n integer) returns integer
             language plpgsql immutable as $$ begin
                 if session_user <> '{role}' then perform {own}.inside(); end if; return n;
             end $$;
             create table {own}.bait (n integer);
             create index on {own}.bait ({own}.evil(n));
             insert into {own}.bait select generate_series(1, 10)",
            role = site.role
        );
        site.sql.batch_execute(&attack).await.unwrap();
        let analyse = format!("analyze {own}.bait");
        let error = site.owner.batch_execute(&analyse).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert!(error.message().contains("security-restricted operation"), "{call}: {error}");
        let loot = format!("select count(*) from {own}.loot");
        assert_eq!(site.owner.query_one(&loot, &[]).await.unwrap().get::<_, i64>(0), 0, "{call}");
    }
    assert_eq!(stored(&site.owner, "secrets").await, ["secret"]);
}
