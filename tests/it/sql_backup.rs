//! A database that is dumped and restored into another cluster.

use std::{process::Command, sync::Arc, time::Duration};

use trunkline::embedded::EmbeddedPostgres;

use crate::{
    sql_outbox::outbox_is_empty,
    sql_publish::stored,
    support::{PRODUCER, TestBroker, TestDatabase, until},
};

/// Runs one of PostgreSQL's programs; returns what it wrote.
fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let ran = Command::new(program).args(arguments).output().unwrap();
    assert!(ran.status.success(), "{program}: {}", String::from_utf8_lossy(&ran.stderr));
    ran.stdout
}

#[tokio::test]
#[cfg_attr(not(has_pg_dump), ignore = "pg_dump is not on this machine")]
async fn a_dump_keeps_messages_positions_registrations_and_the_outbox() {
    let database = Arc::new(TestDatabase::create().await);
    let broker = TestBroker::start_on(database.clone()).await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a", "b", "c"]).await;
    let mut stream = broker.consume_manually("orders", "billing").await;
    let epoch = stream.attaches().await.epoch;
    stream.payloads(3).await;
    stream.commit(2).await.unwrap();
    // The pass that moves this is noted, and says nothing of another cluster.
    let sql = database.sql().await;
    sql.batch_execute("select trunkline.publish_later('orders', 'moved')").await.unwrap();
    until("a pass is noted", async || {
        let noted = "select count(*) from trunkline.outbox_pass where newest_id > 0";
        sql.query_one(noted, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    broker.stop().await;
    sql.batch_execute(
        r#"select trunkline.publish_later('orders', 'later ' || n, 'k' || n, '{"h": "v"}')
           from generate_series(1, 3) n;
           insert into trunkline.access_grant values ('sql:app', 'publish', '*')"#,
    )
    .await
    .unwrap();

    let folder = tempfile::Builder::new().prefix("trunkline-restored-").tempdir().unwrap();
    let dump = run("pg_dump", &["--no-owner", &database.url]);
    let cluster = EmbeddedPostgres::start(folder.path()).await.unwrap();
    let url = cluster.url("postgres");
    // The numbers of this cluster's transactions are others.
    let file = folder.path().join("dump.sql");
    std::fs::write(&file, dump).unwrap();
    run("psql", &["-qX", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap(), &url]);

    let restored = Arc::new(TestDatabase::of(&cluster));
    let broker = TestBroker::start_on(restored.clone()).await;
    let sql = restored.sql().await;
    outbox_is_empty(&sql).await;
    let expected = ["a", "b", "c", "moved", "later 1", "later 2", "later 3"];
    assert_eq!(stored(&sql, "orders").await, expected);
    let mut stream = broker.consume("orders", "billing").await;
    let attached = stream.attaches().await;
    assert_eq!((attached.position, attached.head), (2, 7));
    assert!(attached.epoch > epoch, "{} follows {epoch}", attached.epoch);
    let messages = stream.messages(5).await;
    assert_eq!(messages[4].key.as_deref(), Some(&b"k3"[..]));
    assert_eq!(messages[4].headers["h"], "v");
    // What is published next, in every way, continues the log.
    assert_eq!(broker.try_publish("orders", PRODUCER, ["d"]).await.unwrap().first_offset, 7);
    for (way, offset) in [("publish", 8), ("publish_at_commit", 9), ("publish_later", 10)] {
        sql.batch_execute(&format!("select trunkline.{way}('orders', '{way}')")).await.unwrap();
        let stored = async || stored(&sql, "orders").await.len() == offset + 1;
        until("it is in the log", stored).await;
    }
    let grants = "select count(*) from trunkline.access_grant";
    assert_eq!(sql.query_one(grants, &[]).await.unwrap().get::<_, i64>(0), 1);
    drop((stream, sql));
    broker.stop().await;
    tokio::time::timeout(Duration::from_secs(20), cluster.stop()).await.unwrap().unwrap();
}
