//! Denied calls in the audit: who made them, and how few rows a flood of them makes.

use std::net::Ipv4Addr;

use tokio_postgres::Row;
use tonic::Code;
use trunkline::proto::{Operation, publish_stream_response::Result as Answer};

use crate::support::{
    RawClient, info,
    secured::{SecuredBroker, end_of, id_of},
    shop::Shop,
    until,
};

/// The denied calls of a reason: how many rows, and how many calls.
async fn denied(sql: &tokio_postgres::Client, reason: &str) -> (i64, i64) {
    let found = "select count(*), coalesce(sum(count), 0)::bigint from trunkline.audit
                 where act = 'denied_call' and outcome = 'denied' and reason = $1";
    let row = sql.query_one(found, &[&reason]).await.unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn denied_calls_are_recorded_with_who_made_them_and_equal_ones_together() {
    let Shop { broker, root, shop, office } = Shop::open().await;
    let sql = broker.sql().await;
    let stranger = broker.stranger().await;
    for _ in 0..20 {
        stranger.get_topic("orders").await.unwrap_err();
    }
    // Of a principal: without the right, with another's producer, and on a hidden topic.
    office.publish("orders", "web", "a").await.unwrap_err();
    let rival = broker.principal("rival", [(Operation::Publish, "orders")]).await;
    rival.publish("orders", "web", "a").await.unwrap_err();
    root.create_topic("secret").await.unwrap();
    shop.get_topic("secret").await.unwrap_err();
    shop.get_topic("nowhere").await.unwrap_err();
    // A token of another's, and one that was revoked.
    shop.revoke(&root.token_id().await).await.unwrap_err();
    let token = root.create_token("leaver").await;
    root.revoke(id_of(&token)).await.unwrap();
    broker.with_token(&token).await.who_am_i().await.unwrap_err();
    // What a stream is refused while it is open.
    let mut stream = shop.publish_stream("orders", "web").await;
    stream.publish("elsewhere", "web").await;
    let refused = stream.answer().await.unwrap().result.unwrap();
    assert!(matches!(refused, Answer::Refusal(_)), "{refused:?}");
    // What does not exist for an administrator is no denial.
    root.get_topic("nowhere").await.unwrap_err();

    for (reason, calls) in [
        ("TOKEN_MISSING", 20),
        ("NOT_GRANTED", 1),
        ("NOT_OWNER", 1),
        ("TOPIC_HIDDEN", 3),
        ("TOKEN_HIDDEN", 1),
        ("TOKEN_REVOKED", 1),
    ] {
        until(reason, async || denied(&sql, reason).await.1 >= calls).await;
        assert_eq!(denied(&sql, reason).await.1, calls, "{reason}");
    }
    let (rows, _) = denied(&sql, "TOKEN_MISSING").await;
    assert!(rows < 20, "{rows} rows");
    let row = async |reason: &str, principal: Option<&str>| -> Row {
        let found = "select address, method, topic, subject, token_id from trunkline.audit
                     where reason = $1 and principal is not distinct from $2
                     order by topic limit 1";
        sql.query_one(found, &[&reason, &principal]).await.unwrap()
    };
    let texts = |row: &Row| -> Vec<Option<String>> { (0..4).map(|it| row.get(it)).collect() };
    let here = |method: &str, topic: Option<&str>, subject: Option<&str>| {
        let method = format!("trunkline.v1.{method}");
        let known = [Some("127.0.0.1"), Some(&method), topic, subject];
        known.map(|text| text.map(str::to_owned)).to_vec()
    };
    let found = texts(&row("TOKEN_MISSING", None).await);
    assert_eq!(found, here("TopicService/GetTopic", None, None));
    let found = texts(&row("NOT_GRANTED", Some("office")).await);
    assert_eq!(found, here("ProducerService/Publish", Some("orders"), None));
    let found = texts(&row("NOT_OWNER", Some("rival")).await);
    assert_eq!(found, here("ProducerService/Publish", Some("orders"), Some("producer web")));
    let found = texts(&row("TOPIC_HIDDEN", Some("shop")).await);
    assert_eq!(found, here("ProducerService/PublishStream", Some("elsewhere"), None));
    let revoked = row("TOKEN_REVOKED", Some("leaver")).await;
    assert_eq!(revoked.get::<_, &str>(4), id_of(&token));
}

#[tokio::test]
async fn a_stream_that_ends_because_its_token_was_revoked_is_recorded() {
    let Shop { broker, root, office, .. } = Shop::open().await;
    let token = root.create_token("office").await;
    let mut stream = broker.with_token(&token).await.consume("orders", "billing").await;
    root.revoke(id_of(&token)).await.unwrap();
    end_of(&mut stream).await;
    let sql = broker.sql().await;
    until("the end is recorded", async || denied(&sql, "TOKEN_REVOKED").await == (1, 1)).await;
    let found = "select principal, method from trunkline.audit where reason = 'TOKEN_REVOKED'";
    let found = sql.query_one(found, &[]).await.unwrap();
    let (principal, method): (&str, &str) = (found.get(0), found.get(1));
    assert_eq!((principal, method), ("office", "trunkline.v1.ConsumerService/Consume"));
    office.who_am_i().await.unwrap();
}

/// Strangers cannot fill the disk, and what is not listed is counted.
#[tokio::test]
async fn a_flood_of_denied_calls_adds_few_rows() {
    const CALLS: u8 = 100;
    let broker = SecuredBroker::start().await;
    for number in 1..=CALLS {
        let from = Ipv4Addr::new(127, 0, 1, number);
        let client = RawClient::connect_from(from, &broker.endpoint).await;
        let answer = client.call("trunkline.v1.AccessService/WhoAmI", &[], &[&[]]).await;
        info(&answer.status.unwrap(), Code::Unauthenticated, "TOKEN_MISSING");
    }
    let sql = broker.sql().await;
    broker.stop().await;
    let (rows, listed) = denied(&sql, "TOKEN_MISSING").await;
    // Of one minute, or of two if the machine is slow.
    assert!((60..=99).contains(&rows), "{rows} rows");
    let rest = "select sum(count)::bigint, min(details->>'callers') from trunkline.audit
                where outcome = 'not_recorded'";
    let rest = sql.query_one(rest, &[]).await.unwrap();
    assert_eq!(listed + rest.get::<_, i64>(0), i64::from(CALLS));
    assert_eq!(rest.get::<_, &str>(1), "strangers");
}
