//! The list of the audit's records: by call, and by command.

use tonic::Code;
use trunkline::proto;

use crate::support::{TestBroker, assert_field, info, shop::Shop};

#[tokio::test]
async fn the_audit_is_listed_newest_first_in_pages_and_by_principal_topic_and_time() {
    let Shop { broker, root, shop, .. } = Shop::open().await;
    shop.register_producer("orders", "app", false).await.unwrap();
    let list = async |request: proto::ListAuditRequest| {
        let (mut records, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = proto::ListAuditRequest { page_token, ..request.clone() };
            let page = root.access().list_audit(request).await.unwrap().into_inner();
            records.extend(page.records);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return records;
            }
        }
    };
    let all = list(proto::ListAuditRequest::default()).await;
    assert_eq!(
        (all[0].act.as_str(), all[0].subject.as_str()),
        ("register_producer", "producer app")
    );
    assert_eq!(all.last().unwrap().act, "bootstrap");
    let paged = list(proto::ListAuditRequest { page_size: 2, ..Default::default() }).await;
    assert_eq!(paged, all);
    let principal = "shop".to_owned();
    let of_shop = list(proto::ListAuditRequest { principal, page_size: 1, ..Default::default() });
    let subjects: Vec<_> = of_shop.await.into_iter().map(|record| record.subject).collect();
    assert_eq!(subjects, ["producer app", "producer web"]);
    let topic = "orders".to_owned();
    let of_orders = list(proto::ListAuditRequest { topic, ..Default::default() }).await;
    let is_about_orders = |record: &&proto::AuditRecord| record.topic == "orders";
    assert_eq!(of_orders, all.iter().filter(is_about_orders).cloned().collect::<Vec<_>>());
    let since = all[1].time;
    let newest = list(proto::ListAuditRequest { since, page_size: 1, ..Default::default() }).await;
    assert_eq!(newest, all[..2]);

    let request = proto::ListAuditRequest::default();
    let refused = shop.access().list_audit(request.clone()).await.unwrap_err();
    info(&refused, Code::PermissionDenied, "NOT_GRANTED");
    let late = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
    for (request, field) in [
        (proto::ListAuditRequest { page_size: -1, ..request.clone() }, "page_size"),
        (proto::ListAuditRequest { page_token: "x".to_owned(), ..request.clone() }, "page_token"),
        (proto::ListAuditRequest { principal: "a b".to_owned(), ..request.clone() }, "principal"),
        (proto::ListAuditRequest { topic: "a b".to_owned(), ..request.clone() }, "topic"),
        (proto::ListAuditRequest { since: late, ..request }, "since"),
    ] {
        assert_field(root.access().list_audit(request).await, field, None);
    }
    drop(broker);
}

#[tokio::test]
async fn the_command_lists_the_audit() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.topic("payments").await;
    let listed = broker.run(&["audit", "list", "--topic", "orders", "--since", "1h"]).await;
    assert_eq!(listed.code(), 0, "{listed:?}");
    let acts: Vec<_> =
        listed.stdout.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(acts, ["ACT", "register_producer", "create_topic"]);
    let listed = broker.run(&["audit", "list", "--limit", "3", "-o", "json"]).await;
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
    let topics: Vec<_> = listed.as_array().unwrap().iter().map(|it| &it["topic"]).collect();
    assert_eq!(topics, ["payments", "payments", "orders"]);
    assert_eq!(listed[0]["details"]["epoch"], "0");
    let none = broker.run(&["audit", "list", "--principal", "nobody", "-o", "json"]).await;
    assert_eq!(none.stdout.trim(), "[]");
    for (arguments, problem) in [(["--limit", "0"], "--limit"), (["--since", "soon"], "--since")] {
        let refused = broker.run(&[&["audit", "list"][..], &arguments].concat()).await;
        assert_eq!(refused.code(), 2, "{refused:?}");
        assert!(refused.stderr.contains(problem), "{refused:?}");
    }
    // Publishing leaves no record.
    broker.try_publish("orders", crate::support::PRODUCER, ["a"]).await.unwrap();
    let count = "select count(*) from trunkline.audit where method like '%/Publish%'";
    assert_eq!(broker.sql().await.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 0);
}
