//! Transactions that are prepared: the direct ways of publishing cannot be part of them.

use tokio_postgres::error::SqlState;

use crate::{
    sql_publish::{refused, stored},
    support::{connect, start_server},
};

/// A prepared transaction would keep the topic locked until somebody ends it.
#[tokio::test]
async fn a_transaction_that_publishes_directly_is_not_prepared() {
    let folder = tempfile::Builder::new().prefix("trunkline-prepared-").tempdir().unwrap();
    let server = start_server(folder.path(), &["max_prepared_transactions = 2"]).await;
    let sql = connect(&server.url("postgres")).await;
    sql.batch_execute("select trunkline.create_topic('orders')").await.unwrap();
    let cannot = ("TL118".to_owned(), "CANNOT_PREPARE".to_owned());
    for way in ["publish", "publish_at_commit"] {
        for prepare in [
            "prepare transaction 'one'",
            "/* a; */ PREPARE -- b\n transaction 'one'",
            "select 1; prepare\ttransaction 'one'",
        ] {
            sql.batch_execute(&format!("begin; select trunkline.{way}('orders', 'x')"))
                .await
                .unwrap();
            assert_eq!(refused(&sql, prepare).await, cannot, "{way} {prepare}");
            sql.batch_execute("rollback").await.unwrap();
        }
        // A check that no longer waits for the end leaves the refusal to PostgreSQL.
        for (before, after) in
            [("set constraints all immediate; ", ""), ("", "; set constraints all immediate")]
        {
            sql.batch_execute("begin").await.unwrap();
            let publish = format!("{before}select trunkline.{way}('orders', 'x'){after}");
            sql.batch_execute(&publish).await.unwrap();
            let error = sql.batch_execute("prepare transaction 'one'").await.unwrap_err();
            assert_eq!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED), "{way} {publish}");
            sql.batch_execute("rollback").await.unwrap();
        }
        // A word alone does not matter.
        sql.batch_execute(&format!(
            "begin; select trunkline.{way}('orders', 'prepare transaction')"
        ))
        .await
        .unwrap();
        sql.batch_execute("commit").await.unwrap();
        sql.batch_execute(&format!("select trunkline.{way}('orders', 'prepare transaction')"))
            .await
            .unwrap();
    }
    assert_eq!(stored(&sql, "orders").await.len(), 4);
    let left = "select (select count(*) from trunkline.direct_publish) + (select count(*) from trunkline.staged_message)";
    assert_eq!(sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);

    sql.batch_execute("begin; select trunkline.publish_later('orders', 'later')").await.unwrap();
    sql.batch_execute("prepare transaction 'one'").await.unwrap();
    sql.batch_execute("commit prepared 'one'").await.unwrap();
    let waits = "select count(*) from trunkline.outbox";
    assert_eq!(sql.query_one(waits, &[]).await.unwrap().get::<_, i64>(0), 1);
    server.stop().await.unwrap();
}
