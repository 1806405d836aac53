//! Every call of every service, by every kind of caller. A call that is missing in the table fails the
//! test.

pub mod table;

use prost::Message as _;
use tonic::Code;
use tonic_types::StatusExt as _;
use trunkline::proto::{
    self, Operation, PublishStreamResponse, publish_stream_response::Result as Answer,
};

use crate::support::{
    RawClient,
    secured::{SecuredBroker, id_of},
    soon, until,
};

use table::{
    ALL, NOBODY, NOT_GRANTED, NOT_OWNER, Names, OPEN, Outcome, Permitted, Refused, paths, table,
};

/// A broker with a principal for each operation on the topics `t*`, and others.
struct Matrix {
    broker: SecuredBroker,
    client: RawClient,
    sql: tokio_postgres::Client,
    topics: usize,
}

impl Matrix {
    async fn start() -> Self {
        let broker = SecuredBroker::start().await;
        let client = RawClient::connect(&broker.endpoint).await;
        let sql = broker.sql().await;
        Self { broker, client, sql, topics: 0 }
    }

    /// The token of a new principal.
    async fn principal(&self, principal: &str, operation: Operation, topics: &str) -> String {
        let root = self.broker.root().await;
        root.grant(principal, operation, topics).await;
        root.create_token(principal).await
    }

    /// A new topic whose producer `p` and consumer `c` belong to a principal.
    async fn topic(&mut self, owner: &str) -> Names {
        self.topics += 1;
        let topic = format!("t{}", self.topics);
        let create = format!(
            "with topic as (insert into trunkline.topic (name) values ('{topic}') returning id),
                  head as (insert into trunkline.topic_head (topic_id) select id from topic)
             select 1 from topic;
             insert into trunkline.producer_topic (topic_id, producer_id, owner)
             select id, 'p', '{owner}' from trunkline.topic where name = '{topic}';
             insert into trunkline.consumer_topic (topic_id, consumer_id, position, owner)
             select id, 'c', 0, '{owner}' from trunkline.topic where name = '{topic}'"
        );
        self.sql.batch_execute(&create).await.unwrap();
        Names { topic, token_id: id_of(&self.broker.root).to_owned() }
    }

    async fn call(&self, path: &str, authorization: Option<&str>, request: &[u8]) -> Outcome {
        let headers = authorization.map(|token| ("authorization", format!("Bearer {token}")));
        let headers: Vec<_> = headers.into_iter().collect();
        let answer = soon(path, self.client.call(path, &headers, &[request])).await;
        let status = answer.status.unwrap_or_else(|| panic!("{path}: no status"));
        let mut reason = status.get_details_error_info().map(|info| info.reason);
        if status.code() == Code::Ok && path.ends_with("/PublishStream") {
            let response = PublishStreamResponse::decode(answer.messages[0].clone()).unwrap();
            if let Some(Answer::Refusal(refusal)) = response.result {
                reason = Some(refusal.reason);
            }
        }
        // What the broker answers once a caller has passed.
        const PASSED: [&str; 9] = [
            "TOPIC_EXISTS",
            "PRODUCER_EXISTS",
            "CONSUMER_EXISTS",
            "LEASE_LOST",
            "COMMIT_BEYOND",
            "GRANT_NOT_FOUND",
            "LEASE_HELD",
            "NOT_A_SUBSCRIPTION",
            "DEADLINE_EXCEEDED",
        ];
        match reason {
            None => {
                assert_eq!(status.code(), Code::Ok, "{path}: {status:?}");
                Permitted
            }
            Some(reason) if PASSED.contains(&reason.as_str()) => Permitted,
            Some(reason) => Refused(reason.leak()),
        }
    }
}

#[tokio::test]
async fn every_call_has_an_entry_in_the_table() {
    let table = table();
    for path in paths() {
        let known = table.contains_key(path.as_str()) || OPEN.contains(&path.as_str());
        assert!(known, "the table lacks {path}");
    }
    assert_eq!(table.len() + OPEN.len(), paths().len());
}

#[tokio::test]
async fn every_call_but_those_for_health_needs_a_valid_token() {
    let matrix = Matrix::start().await;
    let root = matrix.broker.root().await;
    let revoked = matrix.principal("x", Operation::Read, "*").await;
    root.revoke(id_of(&revoked)).await.unwrap();
    let request = proto::CreateTokenRequest {
        principal: "x".to_owned(),
        valid_for: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..Default::default()
    };
    let expired = root.access().create_token(request).await.unwrap().into_inner().secret;
    let short = matrix.broker.with_token(&expired).await;
    until("the token expires", async || short.who_am_i().await.is_err()).await;
    let unknown = format!("{}{}", &revoked[..17], &matrix.broker.root[17..]);
    for (path, call) in table() {
        let names = Names { topic: "t".to_owned(), token_id: "aaaaaaaaaaaa".to_owned() };
        let request = (call.request)(&names);
        for (token, reason) in [
            (None, "TOKEN_MISSING"),
            (Some("nonsense"), "TOKEN_MALFORMED"),
            (Some(unknown.as_str()), "TOKEN_UNKNOWN"),
            (Some(expired.as_str()), "TOKEN_EXPIRED"),
            (Some(revoked.as_str()), "TOKEN_REVOKED"),
        ] {
            let outcome = matrix.call(path, token, &request).await;
            assert_eq!(outcome, Refused(reason), "{path}");
        }
    }
    assert_eq!(matrix.call(OPEN[0], None, b"").await, Permitted);
    let (response, mut body) = matrix.client.begin(OPEN[1], &[]).await;
    // An empty message.
    body.send_data(vec![0; 5].into(), true).unwrap();
    let response = soon("an answer", response).await.unwrap();
    assert!(!response.headers().contains_key("grpc-status"), "{response:?}");
}

#[tokio::test]
async fn every_call_needs_its_right_on_the_topic() {
    let mut matrix = Matrix::start().await;
    let mut tokens = Vec::new();
    for operation in ALL {
        let name = format!("{operation:?}");
        tokens.push((*operation, matrix.principal(&name, *operation, "t*").await));
    }
    let elsewhere = matrix.principal("elsewhere", Operation::Admin, "elsewhere").await;
    let none = matrix.broker.root().await.create_token("none").await;
    for (path, call) in table() {
        for (operation, token) in &tokens {
            let names = matrix.topic(&format!("{operation:?}")).await;
            let outcome = matrix.call(path, Some(token), &(call.request)(&names)).await;
            let expected = match call.permits.contains(operation) {
                true => Permitted,
                // Not a matter of a topic.
                false if call.without_rights == Refused("TOKEN_NOT_FOUND") => {
                    call.without_rights.clone()
                }
                false => NOT_GRANTED,
            };
            assert_eq!(outcome, expected, "{path} by a principal with {operation:?}");
        }
        for token in [&elsewhere, &none] {
            let names = matrix.topic("none").await;
            let outcome = matrix.call(path, Some(token), &(call.request)(&names)).await;
            assert_eq!(outcome, call.without_rights, "{path} without a right");
        }
        // The token that some of the others name is the administrator's own.
        if call.permits == NOBODY {
            continue;
        }
        let names = matrix.topic("x").await;
        let root = matrix.broker.root.clone();
        let by_root = matrix.call(path, Some(&root), &(call.request)(&names)).await;
        let is_for_admins = call.permits.contains(&Operation::Admin);
        // The registrations are another's.
        let registers = path.contains("/Register") || path.ends_with("/CreateSubscription");
        let is_another = call.of_another == NOT_OWNER && registers;
        assert_eq!(by_root == Permitted, is_for_admins && !is_another, "{path}: {by_root:?}");
    }
}

#[tokio::test]
async fn every_call_that_names_a_registration_needs_its_owner() {
    let mut matrix = Matrix::start().await;
    for (path, call) in table() {
        let Some(expected) = call.of_another.clone() else { continue };
        // Those who may do it only with what is their own.
        let is_of_consumers = path.contains("Consumer") || path.contains("Subscription");
        let describes = ["/GetConsumer", "/GetSubscription", "/ListParked"]
            .iter()
            .any(|call| path.ends_with(call));
        let operation = match is_of_consumers && !describes {
            true => Operation::Consume,
            false => Operation::Publish,
        };
        let principal = format!("{operation:?}");
        let token = matrix.principal(&principal, operation, "t*").await;
        let names = matrix.topic("somebody-else").await;
        let outcome = matrix.call(path, Some(&token), &(call.request)(&names)).await;
        assert_eq!(outcome, expected, "{path}");
        let names = matrix.topic(&principal).await;
        let outcome = matrix.call(path, Some(&token), &(call.request)(&names)).await;
        assert_eq!(outcome, Permitted, "{path} by the owner");
    }
}
