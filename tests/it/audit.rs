//! The audit: what is recorded, by whom it can be changed, and what it costs.

use std::collections::BTreeSet;

use prost::Message as _;
use tokio_postgres::error::SqlState;
use tonic::Code;
use trunkline::{
    model::Act,
    proto::{self, Operation, consume_response::Event},
};

use crate::{
    access_matrix::table::paths,
    support::{
        RawClient, TestBroker, TestDatabase, Trunkline, connect, info,
        secured::{SecuredBroker, id_of},
        shop::Shop,
        soon, until,
    },
};

/// Calls that change nothing worth a record, or as often as there are messages.
const UNRECORDED: [&str; 24] = [
    "AccessService/WhoAmI",
    "AccessService/ListTokens",
    "AccessService/ListGrants",
    "AccessService/ListQuotas",
    "AccessService/ListAudit",
    "TopicService/GetTopic",
    "TopicService/ListTopics",
    "TopicService/ReadMessages",
    "ProducerService/GetProducer",
    "ProducerService/ListProducers",
    "ProducerService/Publish",
    "ProducerService/PublishStream",
    "ConsumerService/GetConsumer",
    "ConsumerService/ListConsumers",
    // Only if it takes a lease over, which a test of its own shows.
    "ConsumerService/Consume",
    "ConsumerService/Pull",
    "ConsumerService/Commit",
    "SubscriptionService/GetSubscription",
    "SubscriptionService/ListSubscriptions",
    "SubscriptionService/ListParked",
    "SubscriptionService/Subscribe",
    "SubscriptionService/Receive",
    "SubscriptionService/Settle",
    "OverviewService/GetOverview",
];

/// A call, and what its record must say.
struct Step {
    method: &'static str,
    request: Vec<u8>,
    act: &'static str,
    topic: Option<&'static str>,
    /// The subject, or how it begins.
    subject: Option<&'static str>,
}

/// The topic, the producer and the consumer that the calls are about.
const ORDERS: Option<&str> = Some("orders");
const TILL: Option<&str> = Some("producer till");
const KITCHEN: Option<&str> = Some("consumer kitchen");

/// A token that exists, of the principal `x`.
const TOKEN: &str = "aaaaaaaaaaaa";

/// Every call that is recorded, in an order in which each succeeds.
fn steps() -> Vec<Step> {
    let topic = || "orders".to_owned();
    let step = |method, request, act, topic, subject| Step { method, request, act, topic, subject };
    let till = |fence| {
        let producer_id = "till".to_owned();
        proto::RegisterProducerRequest { topic: topic(), producer_id, fence, ..Default::default() }
            .encode_to_vec()
    };
    let kitchen = proto::GetConsumerRequest { topic: topic(), consumer_id: "kitchen".to_owned() };
    let kitchen = kitchen.encode_to_vec();
    let update = proto::UpdateTopicRequest {
        topic: topic(),
        description: "changed".to_owned(),
        ..Default::default()
    };
    let target = Some(proto::seek_request::Target::Offset(0));
    let seek = proto::SeekRequest { topic: topic(), consumer_id: "kitchen".to_owned(), target };
    let before = Some(proto::trim_topic_request::Before::Offset(0));
    let trim = proto::TrimTopicRequest { topic: topic(), before };
    let assign = proto::AssignOwnerRequest {
        topic: topic(),
        registration: Some(proto::assign_owner_request::Registration::ProducerId("till".into())),
        principal: "x".to_owned(),
    };
    let grant = proto::AddGrantRequest {
        principal: "x".to_owned(),
        operation: Operation::Read.into(),
        topics: "*".to_owned(),
    };
    let grant = grant.encode_to_vec();
    let limit = proto::Limit::Streams.into();
    let quota = proto::SetQuotaRequest { principal: "x".to_owned(), limit, value: 1 };
    let no_quota = proto::RemoveQuotaRequest { principal: "x".to_owned(), limit };
    let token = proto::CreateTokenRequest { principal: "x".to_owned(), ..Default::default() };
    let token_id = proto::RevokeTokenRequest { token_id: TOKEN.to_owned() }.encode_to_vec();
    let named = proto::GetTopicRequest { topic: topic() }.encode_to_vec();
    let of_x = Some("principal x");
    let the_token = Some("token aaaaaaaaaaaa");
    vec![
        step("TopicService/CreateTopic", named.clone(), "create_topic", ORDERS, None),
        step("TopicService/UpdateTopic", update.encode_to_vec(), "update_topic", ORDERS, None),
        step("ProducerService/RegisterProducer", till(false), "register_producer", ORDERS, TILL),
        step("ProducerService/RegisterProducer", till(true), "fence_producer", ORDERS, TILL),
        step(
            "ConsumerService/RegisterConsumer",
            kitchen.clone(),
            "register_consumer",
            ORDERS,
            KITCHEN,
        ),
        step("ConsumerService/Seek", seek.encode_to_vec(), "seek", ORDERS, KITCHEN),
        step("TopicService/TrimTopic", trim.encode_to_vec(), "trim_topic", ORDERS, None),
        step("AccessService/AssignOwner", assign.encode_to_vec(), "assign_owner", ORDERS, TILL),
        step("AccessService/AddGrant", grant.clone(), "add_grant", None, of_x),
        step("AccessService/RemoveGrant", grant, "remove_grant", None, of_x),
        step("AccessService/SetQuota", quota.encode_to_vec(), "set_quota", None, of_x),
        step("AccessService/RemoveQuota", no_quota.encode_to_vec(), "remove_quota", None, of_x),
        step(
            "AccessService/CreateToken",
            token.encode_to_vec(),
            "create_token",
            None,
            Some("token "),
        ),
        step("AccessService/RotateToken", token_id.clone(), "rotate_token", None, the_token),
        step("AccessService/RevokeToken", token_id, "revoke_token", None, the_token),
        step(
            "ProducerService/UnregisterProducer",
            till(false),
            "unregister_producer",
            ORDERS,
            TILL,
        ),
        step(
            "ConsumerService/UnregisterConsumer",
            kitchen.clone(),
            "unregister_consumer",
            ORDERS,
            KITCHEN,
        ),
        // Its requests name the topic and the consumer in the same fields.
        step(
            "SubscriptionService/CreateSubscription",
            kitchen.clone(),
            "create_subscription",
            ORDERS,
            KITCHEN,
        ),
        step(
            "SubscriptionService/UpdateSubscription",
            kitchen.clone(),
            "update_subscription",
            ORDERS,
            KITCHEN,
        ),
        step(
            "SubscriptionService/SeekSubscription",
            kitchen.clone(),
            "seek_subscription",
            ORDERS,
            KITCHEN,
        ),
        step("SubscriptionService/ReplayParked", kitchen.clone(), "replay_parked", ORDERS, KITCHEN),
        step(
            "SubscriptionService/DiscardParked",
            kitchen.clone(),
            "discard_parked",
            ORDERS,
            KITCHEN,
        ),
        step(
            "SubscriptionService/DeleteSubscription",
            kitchen,
            "delete_subscription",
            ORDERS,
            KITCHEN,
        ),
        step("TopicService/DeleteTopic", named, "delete_topic", ORDERS, None),
    ]
}

/// Makes every call that is recorded, and checks the one row that each leaves.
async fn check_steps(endpoint: &str, sql: &tokio_postgres::Client, token: Option<&str>) {
    sql.batch_execute(&format!(
        "insert into trunkline.access_token (id, principal, hash)
         values ('{TOKEN}', 'x', sha256('unused'))"
    ))
    .await
    .unwrap();
    let client = RawClient::connect(endpoint).await;
    let headers: Vec<_> =
        token.map(|token| ("authorization", format!("Bearer {token}"))).into_iter().collect();
    for Step { method, request, act, topic, subject } in steps() {
        let last = "select coalesce(max(id), 0) from trunkline.audit";
        let last: i64 = sql.query_one(last, &[]).await.unwrap().get(0);
        let path = format!("trunkline.v1.{method}");
        let answer = client.call(&path, &headers, &[&request]).await;
        assert_eq!(answer.status.map(|status| status.code()), Some(Code::Ok), "{method}");
        // The record is there before the answer is.
        let rows = "select act, outcome, principal, token_id, address, method, topic, subject,
                           count, reason, abs(extract(epoch from clock_timestamp() - at)) < 20
                    from trunkline.audit where id > $1";
        let rows = sql.query(rows, &[&last]).await.unwrap();
        assert_eq!(rows.len(), 1, "{method}");
        let text = |column: usize| rows[0].get::<_, Option<&str>>(column);
        assert_eq!([text(0), text(1)], [Some(act), Some("done")]);
        let principal = token.map(|_| "admin");
        assert_eq!([text(2), text(3)], [principal, token.map(id_of)], "{method}");
        assert!(text(4).unwrap().starts_with("127.0.0.1:"), "{method}: {:?}", text(4));
        assert_eq!([text(5), text(6)], [Some(path.as_str()), topic], "{method}");
        let is_subject = match (text(7), subject) {
            (Some(found), Some(expected)) => found.starts_with(expected),
            (found, expected) => found == expected,
        };
        assert!(is_subject, "{method}: {:?}", text(7));
        assert_eq!((rows[0].get::<_, i64>(8), text(9)), (1, None), "{method}");
        assert!(rows[0].get::<_, bool>(10), "{method}: the time");
    }
}

#[tokio::test]
async fn every_act_leaves_one_row() {
    let broker = SecuredBroker::start().await;
    let sql = broker.sql().await;
    let first = "select act, outcome, principal, details::text from trunkline.audit";
    let first = sql.query_one(first, &[]).await.unwrap();
    assert_eq!((first.get::<_, &str>(0), first.get::<_, &str>(1)), ("bootstrap", "done"));
    assert_eq!(first.get::<_, Option<&str>>(2), None);
    assert!(first.get::<_, &str>(3).contains("admin"));
    check_steps(&broker.endpoint, &sql, Some(&broker.root)).await;
}

#[tokio::test]
async fn acts_are_recorded_without_authentication_too() {
    let broker = TestBroker::start().await;
    check_steps(&broker.endpoint, &broker.sql().await, None).await;
}

/// A call that somebody adds must be recorded, or listed as one that need not be.
#[tokio::test]
async fn every_call_is_recorded_or_known_to_need_no_record() {
    let of_trunkline = |path: &String| path.starts_with("trunkline.");
    let calls: BTreeSet<String> = paths().into_iter().filter(of_trunkline).collect();
    let path = |method: &&str| format!("trunkline.v1.{method}");
    let recorded = steps().into_iter().map(|step| path(&step.method));
    let known: BTreeSet<String> = recorded.chain(UNRECORDED.iter().map(path)).collect();
    assert_eq!(known, calls);
    let acts: BTreeSet<&str> = steps().iter().map(|step| step.act).collect();
    for act in Act::ALL {
        let is_elsewhere = matches!(act, Act::TakeOver | Act::Bootstrap | Act::DeniedCall);
        assert_eq!(acts.contains(act.name()), !is_elsewhere, "{act:?}");
        let is_call = calls.contains(act.method());
        assert_eq!(is_call, !matches!(act, Act::Bootstrap | Act::DeniedCall), "{act:?}");
    }
}

#[tokio::test]
async fn a_take_over_is_recorded_and_an_ordinary_stream_is_not() {
    let Shop { broker, office, .. } = Shop::open().await;
    let _first = office.consume("orders", "billing").await;
    let request = proto::ConsumeRequest {
        topic: "orders".to_owned(),
        consumer_id: "billing".to_owned(),
        on_busy: proto::OnBusy::TakeOver.into(),
        ..Default::default()
    };
    let mut second = office.consumers().consume(request).await.unwrap().into_inner();
    loop {
        let frame = soon("a frame", second.message()).await.unwrap().unwrap();
        if let Some(Event::Attached(_)) = frame.event {
            break;
        }
    }
    let found = "select principal, address, topic, subject, details->>'position'
                 from trunkline.audit where method like '%/Consume'";
    let found = broker.sql().await.query_one(found, &[]).await.unwrap();
    let text = |column: usize| found.get::<_, &str>(column);
    assert_eq!([text(0), text(2), text(3)], ["office", "orders", "consumer billing"]);
    assert!(text(1).starts_with("127.0.0.1:") && text(4) == "0");
}

/// An act cannot be hidden by hanging up while it is under way.
#[tokio::test]
async fn an_act_is_recorded_although_its_client_does_not_wait() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let mut sql = broker.sql().await;
    let holder = sql.transaction().await.unwrap();
    let hold = "select from trunkline.topic_head for update";
    holder.query(hold, &[]).await.unwrap();
    let client = RawClient::connect(&broker.endpoint).await;
    let request = proto::DeleteTopicRequest { topic: "orders".to_owned() }.encode_to_vec();
    let headers = [("grpc-timeout", "100m".to_owned())];
    let answer = client.call("trunkline.v1.TopicService/DeleteTopic", &headers, &[&request]).await;
    info(&answer.status.unwrap(), Code::DeadlineExceeded, "OUTCOME_UNKNOWN");
    holder.rollback().await.unwrap();
    let sql = broker.sql().await;
    until("the act is recorded", async || {
        let rows = "select outcome from trunkline.audit where act = 'delete_topic'";
        let rows = sql.query(rows, &[]).await.unwrap();
        rows.iter().any(|row| row.get::<_, &str>(0) == "done")
    })
    .await;
}

#[tokio::test]
async fn nobody_changes_a_row_and_only_the_owner_removes_one() {
    let database = TestDatabase::create().await;
    let sql = database.sql().await;
    let insert = "insert into trunkline.audit (act, outcome, method, at)
                  values ('seek', 'done', '', now() - interval '91 days'), ('seek', 'done', '', now())";
    sql.batch_execute(insert).await.unwrap();
    let role = format!("clerk_{}", database.name);
    let create = format!(
        "create role {role} login; grant usage on schema trunkline to {role};
         grant select, insert on trunkline.audit to {role}"
    );
    sql.batch_execute(&create).await.unwrap();
    let url = database.url.replacen(&format!("//{}@", database.user), &format!("//{role}@"), 1);
    let clerk = connect(&url).await;
    clerk.batch_execute(insert).await.unwrap();
    let changes = [
        "update trunkline.audit set principal = 'nobody'",
        "delete from trunkline.audit",
        "truncate trunkline.audit",
        "select trunkline.prune_audit(interval '0')",
    ];
    let refused = async |client: &tokio_postgres::Client, statement: &str| {
        let error = client.batch_execute(statement).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}: {error}");
    };
    for statement in changes {
        refused(&clerk, statement).await;
    }
    // Not even with every privilege.
    let all = format!(
        "grant all on trunkline.audit to {role};
         grant execute on function trunkline.prune_audit to {role}"
    );
    sql.batch_execute(&all).await.unwrap();
    for statement in changes {
        refused(&clerk, statement).await;
    }
    refused(&sql, changes[0]).await;
    let count = async || -> i64 {
        let count = "select count(*) from trunkline.audit";
        sql.query_one(count, &[]).await.unwrap().get(0)
    };
    assert_eq!(count().await, 4);
    let prune = "select trunkline.prune_audit(interval '90 days')";
    assert_eq!(sql.query_one(prune, &[]).await.unwrap().get::<_, i64>(0), 2);
    assert_eq!(count().await, 2);
}

/// A broker with a log filter, and a topic that is created with it.
async fn broker_with_topic(filter: &str, database: &TestDatabase) -> (Trunkline, String) {
    let arguments = ["--listen", "127.0.0.1:0", "--database-url", &database.url];
    let (broker, endpoint) = Trunkline::serve_with_log(filter, &arguments).await;
    create(&endpoint, "orders").await;
    (broker, endpoint)
}

async fn create(endpoint: &str, topic: &str) {
    Trunkline::run(&["--endpoint", endpoint, "topic", "create", topic]).await.assert().success();
}

#[tokio::test]
async fn a_log_filter_selects_the_audit_or_leaves_it_out() {
    let database = TestDatabase::create().await;
    let (mut broker, _) = broker_with_topic("off,audit=info", &database).await;
    // Nothing but the audit is logged.
    let line = soon("a line", broker.stderr.next_line()).await.unwrap().unwrap();
    assert!(line.contains("INFO") && line.contains("audit: created a topic"), "{line}");
    assert!(line.contains("topic=\"orders\"") && line.contains("address=\"127.0.0.1:"), "{line}");

    let database = TestDatabase::create().await;
    let (mut broker, _) = broker_with_topic("info,audit=off", &database).await;
    broker.signal(nix::sys::signal::Signal::SIGTERM);
    let (mut lines, mut drained) = (Vec::new(), false);
    while let Some(line) = soon("a line", broker.stderr.next_line()).await.unwrap() {
        drained |= line.contains("drained");
        lines.push(line);
    }
    assert!(drained && !lines.iter().any(|line| line.contains("created a topic")), "{lines:?}");
}

#[tokio::test]
async fn an_act_stands_and_is_in_the_log_when_it_cannot_be_recorded() {
    let database = TestDatabase::create().await;
    let (mut broker, endpoint) = broker_with_topic("error", &database).await;
    let sql = database.sql().await;
    sql.batch_execute("alter table trunkline.audit rename to lost").await.unwrap();
    // One line each, although they differ in nothing but the topic's number.
    for topic in ["orders-1", "orders-2"] {
        create(&endpoint, topic).await;
        let line = broker.log_line("audit: created a topic").await;
        for part in [
            " ERROR ",
            "could not store the record",
            "act=\"create_topic\"",
            &format!("topic=\"{topic}\""),
            "address=\"127.0.0.1:",
            "error=",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
    let topics = "select count(*) from trunkline.topic";
    assert_eq!(sql.query_one(topics, &[]).await.unwrap().get::<_, i64>(0), 3);
}

#[tokio::test]
async fn an_act_is_recorded_although_the_session_of_its_record_is_lost() {
    let database = TestDatabase::create().await;
    let (_broker, endpoint) = broker_with_topic("error", &database).await;
    let sql = database.sql().await;
    // The first record loses its session. A sequence moves on for good, whatever is rolled back.
    let lose = "create sequence public.record;
        create function public.lose() returns trigger language plpgsql as $$
        begin
            if nextval('public.record') = 1 then
                perform pg_terminate_backend(pg_backend_pid());
            end if;
            return new;
        end $$;
        create trigger lose before insert on trunkline.audit
            for each row execute function public.lose()";
    sql.batch_execute(lose).await.unwrap();
    create(&endpoint, "payments").await;
    let count = "select count(*), nextval('public.record') from trunkline.audit
        where act = 'create_topic' and topic = 'payments'";
    let row = sql.query_one(count, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 3));
}
