//! The statements of the documents, run as they stand.

use std::sync::Arc;

use tokio_postgres::error::SqlState;

use crate::{
    roles::{role, url_as},
    support::{Document, TestBroker, TestDatabase, connect, until},
};

/// The only test that creates the roles for applications, as they belong to the whole server.
#[tokio::test]
async fn every_statement_runs_and_the_roles_for_applications_get_their_functions() {
    let database = Arc::new(TestDatabase::create().await);
    let broker = TestBroker::start_on(database.clone()).await;
    broker.topic("access").await;
    let sql = database.sql().await;
    let mut blocks = 0;
    for document in ["README.md", "docs/sql.md"] {
        for block in Document::read(document).blocks_in("sql") {
            let ran = sql.batch_execute(&block).await;
            ran.unwrap_or_else(|error| panic!("{document}: {error:?}\n{block}"));
            blocks += 1;
        }
    }
    assert_eq!(blocks, 9);
    until("the events of README.md and of docs/sql.md are in the log", async || {
        let events = r#"select count(*) from trunkline.read('orders')
            where payload_text = '{"id": 1, "item": "lamp"}'"#;
        sql.query_one(events, &[]).await.unwrap().get::<_, i64>(0) == 2
    })
    .await;

    for (name, writes) in [("publisher", true), ("consumer", false)] {
        let own = role(&database, name).await;
        sql.batch_execute(&format!("grant trunkline_{name} to {own}")).await.unwrap();
        let grant = "insert into trunkline.access_grant (principal, operation, topics)
            values ($1, 'publish', 'access'), ($1, 'consume', 'access')";
        sql.execute(grant, &[&format!("sql:{own}")]).await.unwrap();
        let app = connect(&url_as(&database, &own)).await;
        let publish = app.batch_execute("select trunkline.publish('access', 'x')").await;
        let receive = app
            .batch_execute(
                "select trunkline.register_consumer('access', 'c');
                 select trunkline.receive('access', 'c');
                 select topic from trunkline.message;
                 select trunkline.consumer_info('access', 'c')",
            )
            .await;
        let (may, may_not) = if writes { (publish, receive) } else { (receive, publish) };
        may.unwrap();
        assert_eq!(may_not.unwrap_err().code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{name}");
    }
}
