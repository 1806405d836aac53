//! What SQL roles see: everything, or the topics of their grants.

use std::{collections::HashMap, sync::Arc};

use tokio_postgres::{Client, error::SqlState};

use crate::{
    roles::{Documented, role, url_as, with_documented_roles},
    support::{TestBroker, TestDatabase, connect},
};

/// The views that no reader may use.
const INTERNAL: [&str; 1] = ["granted_pattern"];

/// Functions that show nothing of the tables.
const PURE: [&str; 5] =
    ["to_text", "expand_runs", "changed_meanwhile", "raise_access_version", "keep_audit"];

/// How the functions are called that only the owner may use.
const OWNERS: [(&str, &str); 1] = [("prune_audit", "prune_audit('0')")];

/// How the functions that read are called for the topic `$`; a new one belongs here, or in [`PURE`].
const CALLS: [(&str, &str); 7] = [
    ("read", "read('$')"),
    ("newest", "newest('$')"),
    ("read_since", "read_since('$', now() - interval '1 hour')"),
    ("message_at", "message_at('$', 0)"),
    ("offset_at", "offset_at('$', now())"),
    ("offset_range", "offset_range('$', 0, null, 10, false)"),
    ("read_range", "read_range('$', 0, null, 10, false)"),
];

/// A broker with two topics of one message each, and a session of a reader of what is granted.
struct Site {
    _broker: TestBroker,
    documented: Documented,
    reader: Client,
}

async fn site() -> Site {
    let documented = with_documented_roles().await;
    let broker = TestBroker::start_on(documented.database.clone()).await;
    for topic in ["orders", "secrets"] {
        broker.topic(topic).await;
        broker.consumer(topic, &format!("of-{topic}")).await;
        broker.publish(topic, [&*format!("about {topic}")]).await;
    }
    let reader = connect(&url_as(&documented.database, &documented.granted_reader)).await;
    Site { _broker: broker, documented, reader }
}

impl Site {
    async fn grant(&self, principal: &str, operation: &str, topics: &str) {
        let grant = "insert into trunkline.access_grant (principal, operation, topics)
            values ($1, $2, $3)";
        let sql = self.documented.database.sql().await;
        sql.execute(grant, &[&principal, &operation, &topics]).await.unwrap();
    }

    async fn grant_reader(&self, operation: &str, topics: &str) {
        let principal = format!("sql:{}", self.documented.granted_reader);
        self.grant(&principal, operation, topics).await;
    }
}

/// The topics that a session sees.
async fn topics(sql: &Client) -> Vec<String> {
    let rows = sql.query("select topic from trunkline.topics order by 1", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// The rows of a query as text; bytes are shown as text, too.
async fn rows(sql: &Client, from: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let query = format!(
        "select replace(r::text, encode('about secrets', 'hex'), 'about secrets')
        from trunkline.{from} r"
    );
    Ok(sql.query(&query, &[]).await?.iter().map(|row| row.get(0)).collect())
}

async fn names(database: &TestDatabase, query: &str) -> Vec<String> {
    let rows = database.sql().await.query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn views(database: &TestDatabase) -> Vec<String> {
    let views = "select relname::text from pg_class
        where relnamespace = 'trunkline'::regnamespace and relkind in ('v', 'm')";
    names(database, views).await
}

/// Every view and function is found in the catalogue, so that a new one cannot be forgotten.
#[tokio::test]
async fn a_reader_sees_only_granted_topics_through_every_view_and_function() {
    let site = site().await;
    let (database, reader) = (&site.documented.database, &site.reader);
    site.grant_reader("read", "orders").await;
    let views = views(database).await;
    assert!(views.len() >= 7, "{views:?}");
    for view in views {
        let found = rows(reader, &view).await;
        if INTERNAL.contains(&view.as_str()) {
            assert_eq!(found.unwrap_err().code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
            continue;
        }
        let found = found.unwrap();
        assert_eq!(found.len(), 1, "{view}: {found:?}");
        assert!(!found[0].contains("secrets"), "{view}: {found:?}");
        // The reader of all topics sees both.
        let all = connect(&url_as(database, &site.documented.reader)).await;
        assert_eq!(rows(&all, &view).await.unwrap().len(), 2, "{view}");
    }
    // Those that it may call, and that are the owner's: the others are tested with their roles.
    let functions = "select distinct proname::text from pg_proc
        where pronamespace = 'trunkline'::regnamespace
          and (has_function_privilege('public', oid, 'execute') or proname = 'prune_audit')";
    let calls = HashMap::from(CALLS);
    for function in names(database, functions).await {
        if PURE.contains(&function.as_str()) {
            continue;
        }
        if let Some((_, call)) = OWNERS.iter().find(|(name, _)| *name == function) {
            let refused = rows(reader, call).await.unwrap_err();
            assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{function}");
            continue;
        }
        let call = calls.get(function.as_str());
        let call = call.unwrap_or_else(|| panic!("{function} is neither in CALLS nor in PURE"));
        let found = rows(reader, &call.replace('$', "orders")).await.unwrap();
        assert_eq!(found.len(), 1, "{function}: {found:?}");
        // The very same error as for a topic that does not exist.
        for topic in ["secrets", "missing"] {
            let error = rows(reader, &call.replace('$', topic)).await.unwrap_err();
            let error = error.as_db_error().unwrap();
            assert_eq!(error.code(), &SqlState::NO_DATA_FOUND, "{function}");
            assert_eq!(error.message(), format!("topic \"{topic}\" does not exist"));
        }
    }
}

#[tokio::test]
async fn a_reader_of_what_is_granted_cannot_use_any_table() {
    let site = site().await;
    site.grant_reader("admin", "*").await;
    let tables = "select relname::text from pg_class
        where relnamespace = 'trunkline'::regnamespace and relkind in ('r', 'p')";
    let tables = names(&site.documented.database, tables).await;
    assert!(tables.len() >= 12, "{tables:?}");
    for statement in ["select from", "delete from", "truncate"] {
        for table in &tables {
            let statement = format!("{statement} trunkline.{table}");
            let error = site.reader.batch_execute(&statement).await.unwrap_err();
            assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}");
        }
    }
    // Nor through the views.
    for view in views(&site.documented.database).await {
        let statement = format!("delete from trunkline.{view}");
        site.reader.batch_execute(&statement).await.unwrap_err();
    }
}

/// Without grants, as while brokers do not authenticate, it sees nothing; a reader of all topics
/// sees everything, whatever is granted.
#[tokio::test]
async fn grants_decide_at_once_and_only_those_of_the_role() {
    let site = site().await;
    let name = site.documented.granted_reader.clone();
    let all = connect(&url_as(&site.documented.database, &site.documented.reader)).await;
    let sees = async |expected: &[&str]| {
        assert_eq!(topics(&site.reader).await, expected);
        assert_eq!(topics(&all).await, ["orders", "secrets"]);
    };
    sees(&[]).await;
    // A principal of the same name that calls brokers is somebody else, and so is a longer name
    // that PostgreSQL would cut off.
    site.grant(&name, "read", "*").await;
    site.grant(&format!("sql:{name}{}", "x".repeat(64)), "read", "*").await;
    site.grant("sql:somebody", "read", "*").await;
    site.grant_reader("publish", "*").await;
    site.grant_reader("read", "order").await;
    site.grant_reader("read", "secrets.*").await;
    sees(&[]).await;
    for (operation, pattern, expected) in [
        ("consume", "orders", &["orders"][..]),
        ("admin", "sec*", &["secrets"]),
        ("read", "*", &["orders", "secrets"]),
    ] {
        site.grant_reader(operation, pattern).await;
        sees(expected).await;
        let withdraw = "delete from trunkline.access_grant
            where principal = 'sql:' || $1 and operation = $2 and topics = $3";
        let sql = site.documented.database.sql().await;
        sql.execute(withdraw, &[&name, &operation, &pattern]).await.unwrap();
        sees(&[]).await;
    }
}

#[tokio::test]
async fn a_member_sees_what_is_granted_to_its_team_and_set_role_counts() {
    let site = site().await;
    let database = &site.documented.database;
    let ann = role(database, "ann").await;
    let sql = database.sql().await;
    let team = &site.documented.granted_reader;
    sql.batch_execute(&format!("grant {team} to {ann}")).await.unwrap();
    site.grant_reader("read", "orders").await;
    let member = connect(&url_as(database, &ann)).await;
    assert_eq!(topics(&member).await, ["orders"]);
    site.grant(&format!("sql:{ann}"), "read", "secrets").await;
    assert_eq!(topics(&member).await, ["orders", "secrets"]);
    // The team does not have what its member has.
    assert_eq!(topics(&site.reader).await, ["orders"]);
    member.batch_execute(&format!("set role {team}")).await.unwrap();
    assert_eq!(topics(&member).await, ["orders"]);
    // A superuser, too, has the rights of the role that it takes on.
    sql.batch_execute(&format!("set role {team}")).await.unwrap();
    assert_eq!(topics(&sql).await, ["orders"]);
    assert!(rows(&sql, "read('secrets')").await.is_err());
}

/// A condition that costs little comes first, and sees whatever it is called with.
#[tokio::test]
async fn a_function_of_the_reader_is_not_called_with_what_it_may_not_see() {
    let site = site().await;
    site.grant_reader("read", "orders").await;
    let spy = "create function pg_temp.spy(what text) returns boolean language plpgsql
            cost 0.0000001 as $$
        begin
            if what ~ 'secrets' or what ~ encode('secrets', 'hex') then
                raise exception 'seen: %', what;
            end if;
            return true;
        end $$";
    let temporary = format!(
        "grant temporary on database {} to {}",
        site.documented.database.name, site.documented.granted_reader
    );
    site.documented.database.sql().await.batch_execute(&temporary).await.unwrap();
    site.reader.batch_execute(spy).await.unwrap();
    for view in views(&site.documented.database).await {
        if INTERNAL.contains(&view.as_str()) {
            continue;
        }
        let columns = "select attname::text from pg_attribute
            where attrelid = ('trunkline.' || $1::text)::regclass and attnum > 0";
        let sql = site.documented.database.sql().await;
        for column in sql.query(columns, &[&view]).await.unwrap() {
            let column: &str = column.get(0);
            let query =
                format!("select from trunkline.{view} where pg_temp.spy(\"{column}\"::text)");
            let found = site.reader.query(&query, &[]).await;
            assert_eq!(found.unwrap().len(), 1, "{view}.{column}");
        }
    }
}

#[tokio::test]
async fn messages_that_were_removed_are_not_shown_while_their_batches_wait_for_deletion() {
    let site = site().await;
    site.grant_reader("read", "orders").await;
    let remove = "update trunkline.topic_head set first_offset = next_offset";
    site.documented.database.sql().await.batch_execute(remove).await.unwrap();
    for from in ["message", "readable_batch", "read('orders')"] {
        assert_eq!(rows(&site.reader, from).await.unwrap(), [""; 0], "{from}");
    }
}

/// The functions find their batches by the key, whatever decides about the topic.
#[tokio::test]
async fn a_reader_of_what_is_granted_uses_the_key() {
    let site = site().await;
    site.grant_reader("read", "orders").await;
    let sql = site.documented.database.sql().await;
    let more =
        "insert into trunkline.batch (topic_id, base_offset, count, bytes, payloads, producers,
                                             producer_counts, published_at)
        select topic_id, number, 1, 1, array['x'::bytea], array['p'], array[1], published_at
        from trunkline.batch join trunkline.topic on topic.id = topic_id,
             generate_series(1, 3000) number
        where name = 'orders'";
    sql.batch_execute(more).await.unwrap();
    let head = "update trunkline.topic_head set next_offset = 3001
        where topic_id = (select id from trunkline.topic where name = 'orders')";
    sql.batch_execute(head).await.unwrap();
    for analysed in [false, true] {
        if analysed {
            sql.batch_execute("analyze").await.unwrap();
        }
        for call in [
            "read('orders', 1500, 10)",
            "newest('orders', 10)",
            "message_at('orders', 1500)",
            "offset_at('orders', now())",
        ] {
            // Counts what the session has not reported yet, earlier transactions included.
            let fetched = async || {
                let fetched = "select coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint
                    from pg_stat_xact_all_tables
                    where schemaname = 'trunkline' and relname = 'batch'";
                site.reader.query_one(fetched, &[]).await.unwrap().get::<_, i64>(0)
            };
            site.reader.batch_execute("begin").await.unwrap();
            let before = fetched().await;
            let query = format!("select * from trunkline.{call}");
            site.reader.batch_execute(&query).await.unwrap();
            let fetched = fetched().await - before;
            site.reader.batch_execute("rollback").await.unwrap();
            assert!((1..=13).contains(&fetched), "{call} read {fetched} batches");
        }
    }
}

/// The documented statement finds the roles that saw all topics through views alone before the views
/// decided.
#[tokio::test]
async fn the_roles_that_see_less_after_an_upgrade_are_found() {
    let site = site().await;
    let Documented { database, granted_reader, after_upgrade, .. } = &site.documented;
    let report = role(database, "report").await;
    let sql = database.sql().await;
    sql.batch_execute(&format!(
        "create view public.digest as select topic, payload from trunkline.message;
         create view public.numbers as select count(*) from public.digest;
         create view public.unrelated as select 1 as one;
         grant select on public.numbers, public.unrelated to {report}"
    ))
    .await
    .unwrap();
    let found = async || -> Vec<(String, Vec<String>)> {
        let rows = sql.query(after_upgrade, &[]).await.unwrap();
        // The server has the roles of other tests, too.
        let rows = rows.iter().map(|row| (row.get(0), row.get(1)));
        rows.filter(|(role, _): &(String, _)| role.ends_with(&database.name)).collect()
    };
    let views = ["consumers", "message", "producers", "readable_batch", "readable_topic", "topics"];
    // Names of views in the search path stand alone.
    let of_granted = views.map(str::to_owned).to_vec();
    let of_report = vec!["numbers".to_owned()];
    assert_eq!(found().await, [(granted_reader.clone(), of_granted), (report.clone(), of_report)]);
    let member = connect(&url_as(database, &report)).await;
    let sees = async || -> i64 {
        member.query_one("select * from public.numbers", &[]).await.unwrap().get(0)
    };
    assert_eq!(sees().await, 0);
    // Either remedy of the page.
    site.grant(&format!("sql:{report}"), "read", "orders").await;
    assert_eq!(sees().await, 1);
    let all = format!("grant select on trunkline.batch to {report}");
    sql.batch_execute(&all).await.unwrap();
    assert_eq!(sees().await, 2);
    assert!(found().await.iter().all(|(role, _)| *role != report));
}

/// Who could read before the views decided can read afterwards.
#[tokio::test]
async fn whoever_may_read_the_table_sees_everything() {
    let site = site().await;
    let database: &Arc<TestDatabase> = &site.documented.database;
    let name = &site.documented.granted_reader;
    let grant = format!("grant select on trunkline.batch to {name}");
    database.sql().await.batch_execute(&grant).await.unwrap();
    assert_eq!(topics(&site.reader).await, ["orders", "secrets"]);
    assert_eq!(rows(&site.reader, "read('secrets')").await.unwrap().len(), 1);
}
