//! How many calls an owner may have open, and what that leaves to others.

use std::net::Ipv4Addr;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{FutureExt as _, future::join_all};
use h2::{RecvStream, SendStream, client::ResponseFuture};
use http::Response;
use prost::Message as _;
use tonic::{Code, Status};
use trunkline::{
    broker::Quotas,
    proto::{self, Operation},
};

use crate::support::{
    PRODUCER, RawClient, TestBroker, frames, info, message, read, retry_delay,
    secured::SecuredBroker, soon, until,
};

const CHECK: &str = "grpc.health.v1.Health/Check";
const WATCH: &str = "grpc.health.v1.Health/Watch";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const PUBLISH_STREAM: &str = "trunkline.v1.ProducerService/PublishStream";
const LIST_TOPICS: &str = "trunkline.v1.TopicService/ListTopics";
const GET_TOPIC: &str = "trunkline.v1.TopicService/GetTopic";
const READ: &str = "trunkline.v1.TopicService/ReadMessages";
const PULL: &str = "trunkline.v1.ConsumerService/Pull";
const WHO_AM_I: &str = "trunkline.v1.AccessService/WhoAmI";
const LIST_GRANTS: &str = "trunkline.v1.AccessService/ListGrants";

const MIB: usize = 1024 * 1024;

/// What an owner may have open beside the streams that its broker serves.
const OTHERS: usize = 8_192;

/// How many of them a test opens over one connection, which may have 2,048.
const OF_CONNECTION: usize = 2_000;

/// How many of them are of other kinds than idle publish streams.
const REST: usize = 1_024;

/// Where other clients come from.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

type Headers = Vec<(&'static str, String)>;

fn with_token(token: &str) -> Headers {
    vec![("authorization", format!("Bearer {token}"))]
}

/// A call that was begun.
type Open = (ResponseFuture, SendStream<Bytes>);

/// Opens calls whose requests never end, each with a method of its own, and beginning with `bytes`.
async fn open(
    client: &RawClient,
    headers: &Headers,
    methods: impl IntoIterator<Item = &str>,
    bytes: &Bytes,
) -> Vec<Open> {
    let mut open = Vec::new();
    for method in methods {
        let (answer, mut body) = client.begin(method, headers).await;
        if !bytes.is_empty() {
            body.send_data(bytes.clone(), false).unwrap();
        }
        open.push((answer, body));
    }
    open
}

/// Opens publish streams that have nothing to publish, which may be so for any time, over as many
/// connections as that takes.
async fn open_idle(
    endpoint: &str,
    headers: &Headers,
    mut count: usize,
) -> (Vec<RawClient>, Vec<Open>) {
    let (mut clients, mut held) = (Vec::new(), Vec::new());
    while count > 0 {
        let some = count.min(OF_CONNECTION);
        let client = RawClient::connect(endpoint).await;
        held.extend(open(&client, headers, vec![PUBLISH_STREAM; some], &Bytes::new()).await);
        // Once a later call is answered, they have arrived.
        client.call(CHECK, headers, &[&[]]).await;
        clients.push(client);
        count -= some;
    }
    (clients, held)
}

/// Makes calls until one is refused, as those that were begun count only once they have arrived.
async fn refusal(client: &RawClient, headers: &Headers, method: &str) -> Status {
    let mut refused = None;
    until("a call is refused", async || {
        let answer = client.call(method, headers, &[&[]]).await;
        refused = answer.status.filter(|status| status.code() != Code::Ok);
        refused.is_some()
    })
    .await;
    refused.unwrap()
}

#[track_caller]
fn assert_too_many(status: &Status, limit: usize) {
    let metadata = info(status, Code::ResourceExhausted, "TOO_MANY_CALLS");
    assert_eq!(metadata["limit"], limit.to_string());
    assert!(retry_delay(status).is_some(), "{status:?}");
}

#[tokio::test]
async fn a_client_may_have_so_many_calls_open_and_others_go_on() {
    let broker = TestBroker::start_limited(Quotas { streams: 1, ..Default::default() }).await;
    let greedy = RawClient::connect(&broker.endpoint).await;
    let limit = 1 + OTHERS;
    let methods = [CHECK, REFLECTION, PUBLISH_STREAM, LIST_TOPICS].into_iter().cycle();
    let nothing = Headers::new();
    let (_clients, mut held) = open_idle(&broker.endpoint, &nothing, limit - 1 - REST).await;
    held.extend(open(&greedy, &nothing, methods.take(REST), &Bytes::new()).await);
    // A stream that has its request, and whose answer never ends.
    let (answer, mut body) = greedy.begin(WATCH, &nothing).await;
    body.send_data(frames(&[&[]]), true).unwrap();
    let watched = soon("the health", answer).await.unwrap();

    assert_too_many(&refusal(&greedy, &nothing, CHECK).await, limit);
    // Also over another connection.
    let again = RawClient::connect(&broker.endpoint).await;
    assert_too_many(&refusal(&again, &nothing, LIST_TOPICS).await, limit);
    let other = RawClient::connect_from(ELSEWHERE, &broker.endpoint).await;
    let answer = other.call(CHECK, &[], &[&[]]).await;
    assert_eq!(answer.messages.len(), 1, "{:?}", answer.status);

    // Calls that are given up make room for as many.
    drop(watched);
    held.truncate(limit / 2);
    until("there is room for a call", async || {
        again.call(CHECK, &[], &[&[]]).await.messages.len() == 1
    })
    .await;
}

#[tokio::test]
async fn strangers_may_have_few_calls_open_and_keep_none_from_principals() {
    const LIMIT: usize = 256;
    let broker = SecuredBroker::start().await;
    let stranger = RawClient::connect(&broker.endpoint).await;
    let nothing = Headers::new();
    let methods = [CHECK, WATCH].into_iter().cycle().take(LIMIT);
    let _held = open(&stranger, &nothing, methods, &Bytes::new()).await;
    assert_too_many(&refusal(&stranger, &nothing, CHECK).await, LIMIT);
    let forged = with_token("tl_0000000000000000_forged");
    assert_too_many(&refusal(&stranger, &forged, CHECK).await, LIMIT);
    // From the same address.
    let known = stranger.call(CHECK, &with_token(&broker.root), &[&[]]).await;
    assert_eq!(known.messages.len(), 1, "{:?}", known.status);
    assert_eq!(broker.root().await.who_am_i().await.unwrap().principal, "admin");
    let other = RawClient::connect_from(ELSEWHERE, &broker.endpoint).await;
    let answer = other.call(CHECK, &[], &[&[]]).await;
    assert_eq!(answer.messages.len(), 1, "{:?}", answer.status);
}

#[tokio::test]
async fn a_principal_with_all_its_calls_open_and_its_bytes_in_use_stalls_no_other() {
    let quotas = Quotas { streams: 1, ..Default::default() };
    let broker = SecuredBroker::start_limited(quotas).await;
    let root = broker.root().await;
    for (topic, principal) in [("shop.orders", "shop"), ("bank.payments", "bank")] {
        root.create_topic(topic).await.unwrap();
        root.grant(principal, Operation::Publish, topic).await;
    }
    let token = root.create_token("shop").await;
    let headers = with_token(&token);
    let limit = quotas.streams + OTHERS;
    // The beginnings of requests that are small enough for all to hold their room, and together charged
    // nearly all that a principal may hold.
    let mut beginning = BytesMut::new();
    beginning.put_u8(0);
    beginning.put_u32(1_200);
    beginning.put_bytes(0, 1_000);
    let greedy = RawClient::connect(&broker.endpoint).await;
    let (_clients, mut held) = open_idle(&broker.endpoint, &headers, limit - REST).await;
    let methods = vec![PUBLISH_STREAM; REST];
    held.extend(open(&greedy, &headers, methods, &beginning.freeze()).await);
    assert_too_many(&refusal(&greedy, &headers, WHO_AM_I).await, limit);

    let token = root.create_token("bank").await;
    let bank = broker.with_token(&token).await;
    bank.register_producer("bank.payments", "teller", false).await.unwrap();
    for offset in 0..10 {
        let published = soon("a receipt", bank.publish("bank.payments", "teller", "42")).await;
        assert_eq!(published.unwrap(), offset);
    }
    let mut stream = bank.publish_stream("bank.payments", "teller").await;
    stream.publish("bank.payments", "teller").await;
    stream.answer().await.unwrap();
    // Still open, all of them.
    assert!(held.iter_mut().all(|(_, body)| body.poll_reset(&mut noop()).is_pending()));
}

fn noop() -> std::task::Context<'static> {
    std::task::Context::from_waker(std::task::Waker::noop())
}

#[tokio::test]
async fn reads_of_one_client_that_queue_for_sessions_do_not_hold_up_another() {
    let broker = TestBroker::with_five_messages().await;
    let mut sql = broker.sql().await;
    let held = sql.transaction().await.unwrap();
    held.batch_execute("lock table trunkline.batch").await.unwrap();

    // Each read of messages keeps a session until its wait for the table is over.
    let greedy = RawClient::connect(&broker.endpoint).await;
    let request = proto::ReadMessagesRequest { topic: "orders".to_owned(), ..Default::default() };
    let request = request.encode_to_vec();
    let requests = [request.as_slice()];
    let mut reads: Vec<_> = (0..256).map(|_| Box::pin(greedy.call(READ, &[], &requests))).collect();
    for read in &mut reads {
        assert!(read.as_mut().now_or_never().is_none());
    }
    let pools = "trunkline query";
    let mut reads = Box::pin(join_all(reads));
    until("all sessions are in use", async || {
        assert!(reads.as_mut().now_or_never().is_none());
        broker.sessions_waiting_for_locks(pools).await == 4
    })
    .await;

    let other = RawClient::connect_from(ELSEWHERE, &broker.endpoint).await;
    let request = proto::GetTopicRequest { topic: "orders".to_owned() }.encode_to_vec();
    for _ in 0..3 {
        let answer = other.call(GET_TOPIC, &[], &[&request]).await;
        assert_eq!(answer.messages.len(), 1, "{:?}", answer.status);
    }
    held.rollback().await.unwrap();
    soon("answers", reads).await;
}

/// Makes a call, and reads only the headers of its answer.
async fn unread(
    client: &RawClient,
    method: &str,
    headers: &Headers,
    request: &[u8],
) -> Response<RecvStream> {
    let (answer, mut body) = client.begin(method, headers).await;
    body.send_data(frames(&[request]), true).unwrap();
    soon("an answer", answer).await.unwrap()
}

/// Makes calls and reads none of their answers, until one is refused; returns all answers.
async fn unread_until_refused(
    client: &RawClient,
    method: &str,
    headers: &Headers,
    request: &[u8],
) -> Vec<Response<RecvStream>> {
    let mut answers = Vec::new();
    loop {
        let answer = unread(client, method, headers, request).await;
        if answer.headers().contains_key("grpc-status") {
            let status = read(answer).await.status.unwrap();
            let metadata = info(&status, Code::ResourceExhausted, "ANSWERS_UNREAD");
            assert_eq!(metadata["limit"], (64 * MIB).to_string());
            return answers;
        }
        answers.push(answer);
        assert!(answers.len() < 1_000, "there is no limit");
    }
}

#[tokio::test]
async fn a_pull_needs_room_for_what_it_takes_and_no_more() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.topic("small").await;
    broker.consumer("small", "billing").await;
    broker.try_publish("orders", PRODUCER, vec![vec![7; MIB]; 3]).await.unwrap();
    broker.try_publish("small", PRODUCER, ["x"]).await.unwrap();
    let request = proto::ReadMessagesRequest { topic: "orders".to_owned(), ..Default::default() };
    let lazy = RawClient::connect(&broker.endpoint).await;
    let nothing = Headers::new();
    // Less than a megabyte is left.
    let _unread = unread_until_refused(&lazy, READ, &nothing, &request.encode_to_vec()).await;
    let pull = proto::PullRequest {
        topic: "small".to_owned(),
        consumer_id: "billing".to_owned(),
        ..Default::default()
    };
    // A connection of its own, as the other's flow control is used up.
    let client = RawClient::connect(&broker.endpoint).await;
    let answer = soon("an answer", client.call(PULL, &[], &[&pull.encode_to_vec()])).await;
    assert_eq!(answer.messages.len(), 1, "{:?}", answer.status);
    let pulled = proto::PullResponse::decode(answer.messages[0].clone()).unwrap();
    assert_eq!(pulled.messages[0].payload, "x");
}

#[tokio::test]
async fn a_pull_whose_answer_has_no_room_takes_nothing() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.try_publish("orders", PRODUCER, vec![vec![7; MIB]; 3]).await.unwrap();
    let request = proto::ReadMessagesRequest { topic: "orders".to_owned(), ..Default::default() };
    let lazy = RawClient::connect(&broker.endpoint).await;
    let nothing = Headers::new();
    let unread = unread_until_refused(&lazy, READ, &nothing, &request.encode_to_vec()).await;

    let pull = proto::PullRequest {
        topic: "orders".to_owned(),
        consumer_id: "billing".to_owned(),
        ..Default::default()
    };
    let pull = pull.encode_to_vec();
    let refused = soon("an answer", lazy.call(PULL, &[], &[&pull])).await.status.unwrap();
    info(&refused, Code::ResourceExhausted, "ANSWERS_UNREAD");
    assert!(retry_delay(&refused).is_some(), "{refused:?}");
    // The deadline of the client counts as well.
    let soon_over = [("grpc-timeout", "200m".to_owned())];
    let late = soon("an answer", lazy.call(PULL, &soon_over, &[&pull])).await.status.unwrap();
    info(&late, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    let other = RawClient::connect_from(ELSEWHERE, &broker.endpoint).await;
    let get =
        proto::GetConsumerRequest { topic: "orders".to_owned(), consumer_id: "billing".to_owned() };
    let method = "trunkline.v1.ConsumerService/GetConsumer";
    let answer = other.call(method, &[], &[&get.encode_to_vec()]).await;
    let found = proto::GetConsumerResponse::decode(answer.messages[0].clone()).unwrap();
    assert_eq!(found.consumer.unwrap().position, 0, "nothing was taken");

    // It waits for a while, until others are read or reset.
    let mut unread = unread;
    let requests = [pull.as_slice()];
    let client = RawClient::connect(&broker.endpoint).await;
    let mut waiting = Box::pin(client.call(PULL, &[], &requests));
    assert!((&mut waiting).now_or_never().is_none());
    unread.truncate(unread.len() - 2);
    let answer = soon("an answer", waiting).await;
    let pulled = proto::PullResponse::decode(answer.messages[0].clone()).unwrap();
    assert_eq!(pulled.messages[0].offset, 0);

    join_all(unread.into_iter().map(read)).await;
    let answer = soon("an answer", lazy.call(PULL, &[], &[&pull])).await;
    let pulled = proto::PullResponse::decode(answer.messages[0].clone()).unwrap();
    assert_eq!(pulled.messages[0].offset, 1);
    // What the answer did not need was returned.
    until("the share is free", async || {
        let requests = [pull.as_slice()];
        let all = (0..16).map(|_| lazy.call(PULL, &[], &requests));
        join_all(all).await.into_iter().all(|answer| answer.messages.len() == 1)
    })
    .await;
}

#[tokio::test]
async fn lists_of_grants_that_are_not_read_are_charged() {
    let broker = SecuredBroker::start().await;
    let sql = broker.sql().await;
    let many = "insert into trunkline.access_grant (principal, operation, topics)
        select rpad(number::text, 120, 'p'), 'read', repeat('t', 200)
        from generate_series(1, 1000) number";
    sql.execute(many, &[]).await.unwrap();
    let lazy = RawClient::connect(&broker.endpoint).await;
    let request = proto::ListGrantsRequest { page_size: 1_000, ..Default::default() };
    let headers = with_token(&broker.root);
    let answers =
        unread_until_refused(&lazy, LIST_GRANTS, &headers, &request.encode_to_vec()).await;
    assert!(answers.len() > 16, "{}", answers.len());
    assert_eq!(broker.root().await.who_am_i().await.unwrap().principal, "admin");
}

#[tokio::test]
async fn a_publish_is_no_longer_counted_once_it_is_answered() {
    let broker = TestBroker::start_limited(Quotas { streams: 1, ..Default::default() }).await;
    broker.topic("orders").await;
    let request = proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: vec![message("m")],
        ..Default::default()
    };
    let request = request.encode_to_vec();
    let raw = RawClient::connect(&broker.endpoint).await;
    // More than may be open at once: each makes room with its answer.
    for _ in 0..OTHERS / 64 + 2 {
        let method = "trunkline.v1.ProducerService/Publish";
        let requests = [request.as_slice()];
        let calls = (0..64).map(|_| raw.call(method, &[], &requests));
        for answer in join_all(calls).await {
            assert_eq!(answer.messages.len(), 1, "{:?}", answer.status);
        }
    }
}
