//! The SQL views and functions return the right rows, and read no more batches than needed.

use tokio_postgres::{Client, error::SqlState};
use trunkline::storage::Storage;

use crate::support::{Document, LIMITS, TestBroker, TestDatabase, until};

/// The pages whose queries are run here.
pub const DOCUMENTS: [&str; 2] = ["README.md", "docs/sql.md"];

/// A topic `big` of 300 batches of ten messages, one batch a second, each too large to be stored in
/// its row; and a topic `empty`.
async fn big_topic() -> (TestDatabase, Client) {
    let database = TestDatabase::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "insert into trunkline.topic (name) values ('big'), ('empty');
         insert into trunkline.topic_head (topic_id, next_offset)
         select id, case name when 'big' then 3000 else 0 end from trunkline.topic;
         insert into trunkline.batch
         select id, number * 10, 10, 4000,
                array(select convert_to(number * 10 + place || ' ' || (
                          select string_agg(md5(random()::text || part || place || number), '')
                          from generate_series(1, 12) part), 'UTF8')
                      from generate_series(0, 9) place),
                null, null, array['p'], array[10],
                timestamptz '2026-01-01 00:00:00Z' + number * interval '1 second'
         from trunkline.topic, generate_series(0, 299) number where name = 'big'",
    )
    .await
    .unwrap();
    (database, sql)
}

/// What a session has read.
struct Read {
    /// Rows of batches.
    batches: i64,
    /// Chunks of values that are stored out of line.
    chunks: i64,
}

async fn read_so_far(sql: &Client) -> Read {
    let statement = "select
            sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))
                filter (where schemaname = 'trunkline')::bigint,
            sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))
                filter (where schemaname = 'pg_toast')::bigint
        from pg_stat_xact_all_tables
        where relid in (select unnest(array[oid, reltoastrelid]) from pg_class
                        where oid = 'trunkline.batch'::regclass)";
    let row = sql.query_one(statement, &[]).await.unwrap();
    Read { batches: row.get(0), chunks: row.get(1) }
}

struct Measured {
    /// The result, as text.
    rows: Vec<String>,
    /// The batches that the query read.
    batches: i64,
    /// The batches that it also unpacked.
    unpacked: i64,
}

async fn measured(sql: &Client, query: &str) -> Measured {
    // PostgreSQL resets these counters at the end of a transaction.
    sql.batch_execute("begin").await.unwrap();
    let start = read_so_far(sql).await;
    // Counts the chunks of one batch.
    let one = "select octet_length(payloads[1]) from trunkline.batch where base_offset = 0";
    sql.query(one, &[]).await.unwrap();
    let before = read_so_far(sql).await;
    let chunks_of_one = (before.chunks - start.chunks).max(1);
    let text = format!("select (result)::text from ({query}) result");
    let rows = sql.query(&text, &[]).await.unwrap();
    let after = read_so_far(sql).await;
    sql.batch_execute("rollback").await.unwrap();
    let chunks = after.chunks - before.chunks;
    Measured {
        rows: rows.iter().map(|row| row.get(0)).collect(),
        batches: after.batches - before.batches,
        unpacked: (chunks + chunks_of_one - 1) / chunks_of_one,
    }
}

/// The first column of a query's result.
async fn integers(sql: &Client, query: &str) -> Vec<i64> {
    let rows = sql.query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_query_reads_only_the_batches_it_needs() {
    let (_database, sql) = big_topic().await;
    for analysed in [false, true] {
        if analysed {
            sql.batch_execute("analyze").await.unwrap();
        }
        for (query, rows, batches, unpacked) in [
            (r#"select "offset", payload from trunkline.newest('big', 10)"#, 10, 3, 1),
            (r#"select "offset", payload from trunkline.newest('big', 15)"#, 15, 4, 2),
            (r#"select "offset" from trunkline.newest('big') limit 1"#, 1, 3, 1),
            (r#"select payload_text from trunkline.message_at('big', 1500)"#, 1, 3, 1),
            (r#"select "offset", payload from trunkline.read('big', 1495, 20)"#, 20, 5, 3),
            (r#"select count(*) from trunkline.read('big', 1495, 20)"#, 1, 5, 3),
            (r#"select max("offset") from trunkline.read('big', 2995)"#, 1, 3, 1),
            // A binary search of the log reads nine or ten batches, twice.
            (
                "select payload from trunkline.read_since('big', '2026-01-01 00:01:00Z',
                                                          '2026-01-01 00:01:03Z')",
                30,
                25,
                3,
            ),
            ("select trunkline.offset_at('big', '2026-01-01 00:04:59Z')", 1, 12, 0),
            ("select head - 1 as max, messages from trunkline.topics where topic = 'big'", 1, 0, 0),
            // The view reads all batches of the topic, and unpacks those of the requested time.
            (
                "select payload from trunkline.message
                 where topic = 'big' and published_at >= '2026-01-01 00:04:58Z'",
                20,
                300,
                2,
            ),
        ] {
            let measured = measured(&sql, query).await;
            assert_eq!(measured.rows.len(), rows, "{query}");
            assert!(measured.batches <= batches, "{query}: {} batches", measured.batches);
            assert!(measured.unpacked <= unpacked, "{query}: {} unpacked", measured.unpacked);
        }
    }
}

#[tokio::test]
async fn the_view_does_not_unpack_hidden_batches() {
    let (_database, sql) = big_topic().await;
    let hide = "update trunkline.topic_head set first_offset = 2985 where next_offset = 3000";
    sql.batch_execute(hide).await.unwrap();
    let measured = measured(&sql, "select payload from trunkline.message").await;
    assert_eq!((measured.rows.len(), measured.unpacked), (15, 2));
}

/// Whether a documented statement reads messages, topics or consumers.
fn reads(query: &str) -> bool {
    let from = ["newest(", "read(", "message_at(", "read_since(", "topics", "consumers"];
    from.iter().any(|name| query.contains(&format!("from trunkline.{name}")))
}

#[tokio::test]
async fn the_documented_queries_read_few_batches() {
    let (_database, sql) = big_topic().await;
    sql.batch_execute(
        "update trunkline.topic set name = case name when 'big' then 'orders' else 'access' end",
    )
    .await
    .unwrap();
    let mut queries = 0;
    for document in DOCUMENTS {
        for block in Document::read(document).blocks_in("sql") {
            for query in block.split_terminator(";\n").filter(|query| reads(query)) {
                let measured = measured(&sql, query).await;
                assert!(measured.batches <= 25 && measured.unpacked <= 6, "{query}");
                queries += 1;
            }
        }
    }
    assert_eq!(queries, 7);
}

#[tokio::test]
async fn functions_return_the_same_messages_as_the_view() {
    let (_database, sql) = big_topic().await;
    // The log starts within a batch; earlier batches are deleted, or about to be.
    sql.batch_execute(
        "delete from trunkline.batch where base_offset < 1000;
         update trunkline.topic_head set first_offset = 1025, deleted_until = 1000
         where next_offset = 3000",
    )
    .await
    .unwrap();
    for (function, of_view) in [
        ("newest('big', 12)", r#"order by "offset" desc limit 12"#),
        ("newest('big', null)", r#"order by "offset" desc"#),
        ("newest('big', 0)", r#"limit 0"#),
        ("read('big')", r#"order by "offset" limit 1000"#),
        ("read('big', null, null)", r#"order by "offset""#),
        ("read('big', 1020, 10)", r#"and "offset" between 1025 and 1034 order by "offset""#),
        ("read('big', -5, 1)", r#"and "offset" = 1025"#),
        ("read('big', 2995, 2147483647)", r#"and "offset" >= 2995 order by "offset""#),
        ("read('big', 3000, 10)", "limit 0"),
        ("read('big', 9223372036854775807, 2147483647)", "limit 0"),
        ("message_at('big', 1024)", "limit 0"),
        ("message_at('big', 1025)", r#"and "offset" = 1025"#),
        ("message_at('big', 2999)", r#"and "offset" = 2999"#),
        ("message_at('big', 3000)", "limit 0"),
        ("message_at('big', -1)", "limit 0"),
        ("message_at('big', 9223372036854775807)", "limit 0"),
        ("message_at('big', null)", "limit 0"),
        (
            "read_since('big', '2026-01-01 00:02:00Z', '2026-01-01 00:02:05Z')",
            r#"and published_at >= '2026-01-01 00:02:00Z'
               and published_at < '2026-01-01 00:02:05Z' order by "offset""#,
        ),
        (
            "read_since('big', null, '2026-01-01 00:01:43Z')",
            r#"and "offset" < 1030 order by "offset""#,
        ),
        ("read_since('big', '2026-01-01', null, 3)", r#"order by "offset" limit 3"#),
        ("read_since('big', 'infinity')", "limit 0"),
        ("read_since('big', '2026-01-01 00:04:00Z', '2026-01-01 00:03:00Z')", "limit 0"),
        ("read(null)", "limit 0"),
        ("newest(null)", "limit 0"),
        ("read_since(null, now())", "limit 0"),
    ] {
        let found = measured(&sql, &format!("select * from trunkline.{function}")).await.rows;
        let view = format!("select * from trunkline.message where topic = 'big' {of_view}");
        let expected = measured(&sql, &view).await.rows;
        assert_eq!(found, expected, "{function}");
    }
    for function in [
        "newest('empty')",
        "read('empty', 0)",
        "message_at('empty', 0)",
        "read_since('empty', now())",
    ] {
        let query = format!(r#"select "offset" from trunkline.{function}"#);
        assert!(integers(&sql, &query).await.is_empty(), "{function}");
    }
    for (arguments, offset) in [
        ("'big', '-infinity'", 1025),
        ("'big', '2026-01-01 00:01:42.5Z'", 1030),
        ("'big', '2026-01-01 00:01:43Z'", 1030),
        ("'big', '2026-01-01 00:04:59.000001Z'", 3000),
        ("'empty', now()", 0),
    ] {
        let query = format!("select trunkline.offset_at({arguments})");
        assert_eq!(integers(&sql, &query).await, [offset], "{arguments}");
    }
    // An argument that the planner does not know.
    let query = r#"select "offset" from trunkline.newest((select name from trunkline.topic where name = 'big'), 1)"#;
    assert_eq!(integers(&sql, query).await, [2999]);
}

#[tokio::test]
async fn a_missing_topic_and_a_negative_limit_are_errors() {
    let (_database, sql) = big_topic().await;
    for function in [
        "newest('no')",
        "read('no', 0)",
        "message_at('no', 0)",
        "read_since('no', now())",
        "offset_at('no', now())",
    ] {
        let query = format!("select * from trunkline.{function}");
        let error = sql.query(&query, &[]).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code(), &SqlState::NO_DATA_FOUND, "{function}");
        assert_eq!(error.message(), "topic \"no\" does not exist");
    }
    for function in
        ["newest('big', -1)", "read('big', 0, -1)", "read_since('big', now(), null, -1)"]
    {
        let query = format!("select * from trunkline.{function}");
        let error = sql.query(&query, &[]).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code(), &SqlState::INVALID_ROW_COUNT_IN_LIMIT_CLAUSE, "{function}");
        assert_eq!(error.message(), "limit must not be negative");
    }
}

/// Bytes and their text, if they are text.
const BYTES: [(&[u8], Option<&str>); 12] = [
    (b"", Some("")),
    (b"abc", Some("abc")),
    (b"\\x41", Some("\\x41")),
    ("é".as_bytes(), Some("é")),
    ("🦀 €".as_bytes(), Some("🦀 €")),
    (b"a\0b", None),
    (b"\xff", None),
    (b"abc\xe9", None),
    (b"\xc0\x80", None),
    (b"\xed\xa0\x80", None),
    (b"\xf4\x90\x80\x80", None),
    (b"\xe2\x82", None),
];

#[tokio::test]
async fn bytes_that_are_not_text_are_shown_as_null() {
    let (_database, sql) = big_topic().await;
    for (bytes, text) in BYTES {
        let row = sql.query_one("select trunkline.to_text($1)", &[&bytes]).await.unwrap();
        assert_eq!(row.get::<_, Option<&str>>(0), text, "{bytes:x?}");
    }
    // Compared with the server's own check: every first byte, with the edge cases that may follow.
    let differing = r"
        with edge (byte) as (
            select unnest(array[0, 65, 127, 128, 143, 144, 159, 160, 191, 192, 223, 224, 240, 255])
        ), string (bytes) as (
            select decode(lpad(to_hex(a), 2, '0') || lpad(to_hex(b.byte), 2, '0')
                          || lpad(to_hex(c.byte), 2, '0') || lpad(to_hex(d.byte), 2, '0'), 'hex')
            from generate_series(0, 255) a, edge b, edge c, edge d
        )
        select count(*) from string
        where trunkline.to_text(bytes) is distinct from pg_temp.checked(bytes)";
    sql.batch_execute(
        "create function pg_temp.checked(bytes bytea) returns text language plpgsql as $$
         begin
             return convert_from(bytes, 'UTF8');
         exception when character_not_in_repertoire then
             return null;
         end $$",
    )
    .await
    .unwrap();
    assert_eq!(integers(&sql, differing).await, [0]);
}

#[tokio::test]
async fn characters_that_the_databases_encoding_lacks_are_shown_as_null() {
    let database = TestDatabase::create_encoded("LATIN1").await;
    Storage::open(&database.url, None, LIMITS).await.unwrap().close();
    let sql = database.sql().await;
    for (bytes, text) in BYTES {
        let text = text.filter(|text| text.chars().all(|one| u32::from(one) < 256));
        let row = sql.query_one("select trunkline.to_text($1)", &[&bytes]).await.unwrap();
        assert_eq!(row.get::<_, Option<&str>>(0), text, "{bytes:x?}");
    }
}

#[tokio::test]
async fn the_views_show_topics_consumers_and_producers() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.topic("empty").await;
    broker.consumer("orders", "billing").await;
    broker.consumer("orders", "late").await;
    broker.consumer("empty", "idle").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    broker.publish("orders", ["d"]).await;
    let mut stream = broker.consume("orders", "billing").await;
    stream.payloads(4).await;
    broker.trim("orders", 1).await;
    let sql = broker.sql().await;
    until("the position is stored", async || broker.position("orders", "billing").await == 4).await;

    let topics = "select topic, first_offset, head, messages, last_published_at is not null
                  from trunkline.topics order by topic";
    let rows = sql.query(topics, &[]).await.unwrap();
    let shown: Vec<(&str, i64, i64, i64, bool)> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4)))
        .collect();
    assert_eq!(shown, [("empty", 0, 0, 0, false), ("orders", 1, 4, 3, true)]);

    let consumers = "select consumer, position, lag_messages, lag_seconds, holder is not null
                     from trunkline.consumers order by consumer";
    let aged = "update trunkline.batch set published_at = published_at - interval '1 hour'
                where base_offset = 0";
    sql.batch_execute(aged).await.unwrap();
    let rows = sql.query(consumers, &[]).await.unwrap();
    let shown: Vec<(&str, i64, i64, bool)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(4))).collect();
    assert_eq!(shown, [("billing", 4, 0, true), ("idle", 0, 0, false), ("late", 0, 3, false)]);
    let lags: Vec<f64> = rows.iter().map(|row| row.get(3)).collect();
    assert_eq!(lags[..2], [0.0, 0.0]);
    assert!((3_600.0..3_700.0).contains(&lags[2]), "{lags:?}");

    drop(stream);
    broker.all_leases_are_free().await;
    let holder = "select count(holder) from trunkline.consumers";
    assert_eq!(integers(&sql, holder).await, [0]);

    let producers = "select topic, producer, last_offset from trunkline.producers order by topic";
    let rows = sql.query(producers, &[]).await.unwrap();
    let shown: Vec<(&str, &str, Option<i64>)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(shown, [("empty", "producer", None), ("orders", "producer", Some(3))]);
}

#[tokio::test]
async fn a_lag_is_calculated_without_unpacking_a_batch() {
    let (_database, sql) = big_topic().await;
    sql.batch_execute(
        "insert into trunkline.consumer_topic (topic_id, consumer_id, position)
         select id, 'c' || number, number * 300
         from trunkline.topic, generate_series(0, 10) number where name = 'big'",
    )
    .await
    .unwrap();
    let query = "select consumer, lag_messages, lag_seconds, holder from trunkline.consumers";
    let measured = measured(&sql, query).await;
    assert_eq!(measured.rows.len(), 11);
    // One batch for each consumer, except for the one without a lag.
    assert!(measured.batches <= 10, "{} batches", measured.batches);
    assert_eq!(measured.unpacked, 0);
}
