//! Copies of messages: exports and imports, and logical replication to another server.

use std::{fs, path::Path, process::Stdio, sync::Arc};

use tokio::process::Command;
use tokio_postgres::{Client, error::SqlState};
use tonic::Code;

use crate::{
    roles::{role, url_as},
    sql_publish::refused,
    support::{Document, TestBroker, TestDatabase, connect, info, soon, start_server, until},
};

/// The commands of the document: an export, an import, a publication, a subscription, and what
/// removes consumers of deleted topics from a copy.
fn documented() -> [String; 5] {
    Document::read("docs/sql.md").blocks_in("psql").try_into().unwrap()
}

/// Creates the topic `orders`: four messages with everything that a message may have, in two batches.
/// The one before them was removed.
async fn four_messages(broker: &TestBroker, sql: &Client) {
    broker.topic("orders").await;
    sql.batch_execute(
        r#"select trunkline.publish('orders', 'removed');
           select trunkline.publish_many('orders', array['\x00ff0a5c', '', '\x5c2e']::bytea[],
               array['\x', null, '\x0009']::bytea[],
               array['{"h": "é\\\t"}', '{}', null]::jsonb[]);
           select trunkline.register_producer('orders', 'till');
           select trunkline.publish('orders', 'by a producer', 'key', producer => 'till')"#,
    )
    .await
    .unwrap();
    assert_eq!(broker.trim("orders", 1).await, 1);
}

/// What a copy keeps of each message of a topic, in order.
async fn kept(sql: &Client, topic: &str) -> Vec<String> {
    let read = r#"select (published_at, producer_id, key, headers, payload)::text
        from trunkline.message where topic = $1 order by "offset""#;
    sql.query(read, &[&topic]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn number(sql: &Client, query: &str) -> i64 {
    sql.query_one(query, &[]).await.unwrap().get(0)
}

async fn psql(database: &TestDatabase, folder: &Path, commands: &str) {
    let file = folder.join("commands.sql");
    fs::write(&file, commands).unwrap();
    let mut psql = Command::new("psql");
    psql.args(["-qX", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&file).arg(&database.url);
    psql.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    let ran = soon("psql ends", psql.output()).await.unwrap();
    assert!(ran.status.success(), "{commands}: {}", String::from_utf8_lossy(&ran.stderr));
}

#[tokio::test]
#[cfg_attr(not(has_pg_dump), ignore = "psql is not on this machine")]
async fn an_export_is_imported_with_everything_but_offsets() {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    four_messages(&broker, &sql).await;
    let folder = tempfile::tempdir().unwrap();
    let [export, import, ..] = documented();
    psql(&broker.database, folder.path(), &export).await;
    psql(&broker.database, folder.path(), &import).await;

    let exported = kept(&sql, "orders").await;
    assert_eq!(exported.len(), 4);
    assert_eq!(kept(&sql, "orders-2025").await, exported);
    let topics = "select first_offset, head, bytes from trunkline.topics order by topic";
    let topics = sql.query(topics, &[]).await.unwrap();
    let topics: Vec<(i64, i64, i64)> =
        topics.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(topics, [(1, 5, 29), (0, 4, 29)]);
    let producers = "select producer_id, last_offset, owner from trunkline.producer_topic
        join trunkline.topic on topic_id = id where name = 'orders-2025' order by producer_id";
    let producers = sql.query(producers, &[]).await.unwrap();
    let producers: Vec<(&str, i64, Option<&str>)> =
        producers.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(producers, [("sql.trunkline", 2, None), ("till", 3, None)]);
    let act = "select topic, method, details ->> 'messages' from trunkline.audit
        where act = 'import_messages'";
    let act = sql.query_one(act, &[]).await.unwrap();
    assert_eq!(
        (act.get::<_, &str>(0), act.get::<_, &str>(1), act.get::<_, &str>(2)),
        ("orders-2025", "sql/import_messages", "4")
    );
}

#[tokio::test]
async fn messages_of_one_time_become_batches_of_limited_size_and_reach_open_streams() {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    broker.topic("orders").await;
    broker.consumer("orders", "reports").await;
    let mut stream = broker.consume("orders", "reports").await;
    stream.read_to_end().await;
    // 10,002 messages of one time, 2 of the next one, and 9 of the largest size. A view has no order.
    sql.batch_execute(
        r#"create view source as
           select n as "offset",
                  timestamptz '2020-01-01 00:00:00.000001Z' + n / 10002 * interval '1 us' as published_at,
                  'p' || n % 2 as producer_id, null::bytea as key, null::jsonb as headers,
                  case when n < 20004 then convert_to(n::text, 'UTF8')
                       else decode(repeat('00', 1048576), 'hex') end as payload
           from generate_series(20012::bigint, 0, -1) n where n not between 10004 and 20003"#,
    )
    .await
    .unwrap();
    let import = "select trunkline.import_messages('orders', 'source')";
    assert_eq!(number(&sql, import).await, 10_013);
    let received = stream.messages(10_013).await;
    assert!(received.iter().map(|message| message.offset).eq(0..10_013));
    let payloads = received[..10_004].iter().map(|message| message.payload.to_vec());
    assert!(payloads.eq((0..10_004).map(|number: i32| number.to_string().into_bytes())));
    let producers = received[..10_004].iter().map(|message| message.producer_id.clone());
    assert!(producers.eq((0..10_004).map(|number| format!("p{}", number % 2))));
    let batches = "select count from trunkline.batch order by base_offset";
    let batches = sql.query(batches, &[]).await.unwrap();
    let batches: Vec<i32> = batches.iter().map(|row| row.get(0)).collect();
    assert_eq!(batches, [10_000, 2, 2, 8, 1]);
    // What is published next continues the log.
    assert_eq!(broker.publish("orders", ["next"]).await, 10_013);
    assert_eq!(stream.payloads(1).await, ["next"]);

    sql.batch_execute("create table nothing as select * from source limit 0").await.unwrap();
    let import = "select trunkline.import_messages('orders', 'nothing')";
    assert_eq!(number(&sql, import).await, 0);
}

/// The code of a refusal, and the column or argument and the offset that it names.
async fn refused_field(sql: &Client, statement: &str) -> (String, String, Option<String>) {
    let error = sql.batch_execute(statement).await.unwrap_err();
    let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error}"));
    let detail: serde_json::Value = serde_json::from_str(error.detail().unwrap()).unwrap();
    let text = |name: &str| detail[name].as_str().map(str::to_owned);
    let field = text("field").unwrap_or_else(|| panic!("{statement}: {error}"));
    assert!(error.message().starts_with(&format!("{field}: ")), "{error}");
    (error.code().code().to_owned(), field, text("offset"))
}

#[tokio::test]
async fn an_import_is_refused_as_a_whole_with_the_column_and_the_row() {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    broker.topic("orders").await;
    sql.batch_execute(
        r#"create table source ("offset" bigint, published_at timestamptz, producer_id text,
                                key bytea, headers jsonb, payload bytea);
           insert into source values (7, '2020-01-02', 'p', null, null, '');
           select trunkline.import_messages('orders', 'source')"#,
    )
    .await
    .unwrap();
    let import = "select trunkline.import_messages('orders', 'source')";
    for (rows, field, offset) in [
        ("(null, '2020-01-03', 'p', null, null, '')", "offset", None),
        ("(1, null, 'p', null, null, '')", "published_at", Some("1")),
        ("(1, '2020-01-03', null, null, null, '')", "producer_id", Some("1")),
        ("(1, '2020-01-03', 'a b', null, null, '')", "producer_id", Some("1")),
        ("(1, '2020-01-03', 'p', null, null, null)", "payload", Some("1")),
        (
            "(1, '2020-01-03', 'p', '\\x00', null, decode(repeat('00', 1048576), 'hex'))",
            "payload",
            Some("1"),
        ),
        ("(1, '2020-01-03', 'p', null, '[]', '')", "headers", Some("1")),
        ("(1, '2020-01-03', 'p', null, '{\"a\": 1}', '')", "headers", Some("1")),
        // After rows that are right.
        (
            "(1, '2020-01-03', 'p', null, null, ''), (1, '2020-01-03', 'p', null, null, '')",
            "offset",
            Some("1"),
        ),
        (
            "(2, '2020-01-03', 'p', null, null, ''), (1, '2020-01-04', 'p', null, null, '')",
            "published_at",
            Some("2"),
        ),
        // Older than the topic's newest message.
        ("(1, '2020-01-01', 'p', null, null, '')", "published_at", Some("1")),
        ("(1, '2999-01-01', 'p', null, null, '')", "published_at", Some("1")),
        ("(1, 'infinity', 'p', null, null, '')", "published_at", Some("1")),
        ("(1, '-infinity', 'p', null, null, '')", "published_at", Some("1")),
    ] {
        sql.batch_execute(&format!("truncate source; insert into source values {rows}"))
            .await
            .unwrap();
        let (code, named, row) = refused_field(&sql, import).await;
        assert_eq!((&*code, &*named, row.as_deref()), ("TL101", field, offset), "{rows}");
    }
    sql.batch_execute(
        r#"create view narrow as select "offset", published_at, producer_id, headers, payload from source;
           create view other as select "offset", published_at, producer_id, key, headers::json, payload
               from source"#,
    )
    .await
    .unwrap();
    for (arguments, field) in [
        ("'orders', 'narrow'", "key"),
        ("'orders', 'other'", "headers"),
        ("'orders', null", "source"),
        ("null, 'source'", "topic"),
    ] {
        let statement = format!("select trunkline.import_messages({arguments})");
        let (code, named, _) = refused_field(&sql, &statement).await;
        assert_eq!((&*code, &*named), ("TL101", field), "{arguments}");
    }
    let missing = refused(&sql, "select trunkline.import_messages('missing', 'source')").await;
    assert_eq!(missing, ("TL102".to_owned(), "TOPIC_NOT_FOUND".to_owned()));
    sql.batch_execute(
        "update trunkline.producer_topic set epoch = 1 where producer_id = 'p';
         truncate source; insert into source values (1, '2020-01-03', 'p', null, null, '')",
    )
    .await
    .unwrap();
    // What it published once claims no epoch.
    sql.batch_execute(import).await.unwrap();
    assert_eq!(kept(&sql, "orders").await.len(), 2);
    assert_eq!(number(&sql, "select head from trunkline.topics").await, 2);
}

/// Whoever is granted the function by mistake cannot use it either.
#[tokio::test]
async fn an_import_runs_with_the_rights_of_its_caller() {
    let broker = TestBroker::start().await;
    let sql = broker.sql().await;
    broker.topic("orders").await;
    let own = role(&broker.database, "importer").await;
    sql.batch_execute(&format!(
        r#"create table public.source as select "offset", published_at, producer_id, key, headers, payload
               from trunkline.message;
           grant select on public.source to {own};
           grant usage on schema trunkline to {own};
           insert into trunkline.access_grant values ('sql:{own}', 'publish', '*')"#
    ))
    .await
    .unwrap();
    let app = connect(&url_as(&broker.database, &own)).await;
    let grant = format!("grant execute on function trunkline.import_messages to {own}");
    for preparation in ["", &grant] {
        sql.batch_execute(preparation).await.unwrap();
        let import = "select trunkline.import_messages('orders', 'public.source')";
        let error = app.batch_execute(import).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{preparation}");
    }
}

#[tokio::test]
async fn a_copy_on_another_server_follows_and_serves_its_own_consumers() {
    let folder = tempfile::Builder::new().prefix("trunkline-original-").tempdir().unwrap();
    let original_server = start_server(folder.path(), &["wal_level = logical"]).await;
    let database = Arc::new(TestDatabase::of(&original_server));
    let original = TestBroker::start_on(database).await;
    let original_sql = original.sql().await;
    four_messages(&original, &original_sql).await;
    let copy_folder = tempfile::Builder::new().prefix("trunkline-copy-").tempdir().unwrap();
    // The default of 5 s is also how soon the next tables are begun.
    let soon_again = ["wal_retrieve_retry_interval = '100ms'"];
    let copy_server = start_server(copy_folder.path(), &soon_again).await;
    let copy_database = Arc::new(TestDatabase::of(&copy_server));
    let copy_sql = copy_database.sql().await;

    let [_, _, mut publication, subscription, clean_up] = documented();
    let version = "select current_setting('server_version_num')::bigint / 10000";
    let has_column_lists = number(&original_sql, version).await >= 15;
    if !has_column_lists {
        let begin = publication.find(" (id, ").unwrap();
        let end = publication.find("created_by)").unwrap() + "created_by)".len();
        publication.replace_range(begin..end, "");
    }
    original_sql.batch_execute(&publication).await.unwrap();
    let documented_server = "host=db.example dbname=mine user=trunkline_copier password=secret";
    assert!(subscription.contains(documented_server));
    let server = format!(
        "host={} port=5432 dbname=postgres user=trunkline_copier",
        original_server.socket_dir().display()
    );
    let subscription = subscription.replace(documented_server, &server);
    copy_sql.batch_execute(&subscription).await.unwrap();
    until("all tables are copied", async || {
        let copied = "select count(*) from pg_subscription_rel where srsubstate = 'r'";
        number(&copy_sql, copied).await == 4
    })
    .await;
    let is_same = async || kept(&copy_sql, "orders").await == kept(&original_sql, "orders").await;
    assert!(is_same().await, "{:?}", kept(&copy_sql, "orders").await);
    let read = r#"select min("offset") from trunkline.read('orders')"#;
    assert_eq!(number(&copy_sql, read).await, 1);

    original.publish("orders", ["later"]).await;
    until("a later message arrives", &is_same).await;
    let set = "update trunkline.topic set retention_messages = 1";
    original_sql.batch_execute(set).await.unwrap();
    until("what retention removes is removed from the copy", async || {
        number(&copy_sql, "select first_offset from trunkline.topics").await == 5
            && number(&copy_sql, "select count(*) from trunkline.batch").await == 1
    })
    .await;
    let limits = "select count(retention_messages) from trunkline.topic";
    assert_eq!(number(&copy_sql, limits).await, i64::from(!has_column_lists));

    let copy = TestBroker::start_on(copy_database).await;
    copy.consumer("orders", "reports").await;
    let mut stream = copy.consume("orders", "reports").await;
    assert_eq!(stream.payloads(1).await, ["later"]);
    original.publish("orders", ["live"]).await;
    assert_eq!(stream.payloads(1).await, ["live"]);
    until("the position is the copy's", async || copy.position("orders", "reports").await == 7)
        .await;
    assert!(original.no_consumers("orders").await);

    original.delete_topic("orders").await;
    original.topic("orders").await;
    assert_eq!(original.publish("orders", ["anew"]).await, 0);
    until("the topic is the new one", async || {
        is_same().await && number(&copy_sql, "select count(*) from trunkline.batch").await == 1
    })
    .await;
    copy_sql.batch_execute(&clean_up).await.unwrap();
    // Of the new topic.
    info(&stream.ended().await, Code::NotFound, "CONSUMER_NOT_FOUND");
    drop(stream);
    copy.consumer("orders", "reports").await;
    let mut stream = copy.consume("orders", "reports").await;
    assert!(stream.attaches().await.epoch > 1, "no epoch of the removed consumer comes again");
    assert_eq!(stream.payloads(1).await, ["anew"]);

    drop((stream, copy_sql, original_sql));
    copy.stop().await;
    original.stop().await;
    // The copy first: a server that stops waits for those that replicate from it.
    soon("the copy stops", copy_server.stop()).await.unwrap();
    soon("the original stops", original_server.stop()).await.unwrap();
}
