//! What the client library does when a broker refuses its token or its rights, against a scripted
//! broker.

use std::{fs, path::PathBuf, sync::atomic::Ordering};

use tempfile::TempDir;
use tonic::Code;
use trunkline::client::{Client, Commit, Error, Event};

use crate::support::{
    ScriptedBroker,
    library_consumer::{next, next_event, status},
    soon,
};

/// A file that holds a token, in a folder that is removed when it is dropped.
struct TokenFile {
    _folder: TempDir,
    path: PathBuf,
}

impl TokenFile {
    fn new(token: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = Self { path: folder.path().join("token"), _folder: folder };
        file.replace(token);
        file
    }

    /// Replaces the file as a rotation does, at once.
    fn replace(&self, token: &str) {
        let new = self.path.with_extension("new");
        fs::write(&new, token).unwrap();
        fs::rename(new, &self.path).unwrap();
    }

    async fn connect(&self, broker: &ScriptedBroker) -> Client {
        Client::builder(&broker.endpoint).token_file(&self.path).connect().await.unwrap()
    }
}

#[track_caller]
fn assert_refused(error: &Error, code: Code, reason: &str) {
    assert_eq!((error.code(), error.reason()), (Some(code), Some(reason)), "{error:?}");
}

const FINAL: [(Code, &str); 3] = [
    (Code::Unauthenticated, "TOKEN_REVOKED"),
    (Code::PermissionDenied, "NOT_GRANTED"),
    (Code::PermissionDenied, "NOT_OWNER"),
];

#[tokio::test]
async fn a_producer_ends_when_it_is_denied() {
    let file = TokenFile::new("first");
    for (code, reason) in FINAL {
        let mut broker = ScriptedBroker::start().await;
        let producer = file.connect(&broker).await.producer("orders", "shop").open().await.unwrap();
        let sent = producer.send("a").await.unwrap();
        let mut stream = broker.publish_stream().await;
        stream.payloads().await;
        stream.end(status(code, reason)).await;
        let error = soon("the refusal", sent.offset()).await.unwrap_err();
        assert_refused(&error, code, reason);
        let error = producer.send("b").await.unwrap_err();
        assert_refused(&error, code, reason);
    }
}

#[tokio::test]
async fn a_consumer_ends_when_it_is_denied() {
    let file = TokenFile::new("first");
    for (code, reason) in FINAL {
        let mut broker = ScriptedBroker::start().await;
        let client = file.connect(&broker).await;
        let mut consumer =
            client.consumer("orders", "billing", Commit::Manual).open().await.unwrap();
        let stream = broker.consume().await;
        stream.attach(0, 1).await;
        stream.messages(0..2).await;
        let message = next(&mut consumer).await;
        stream.end(status(code, reason)).await;
        assert_eq!(next(&mut consumer).await.offset, 1);
        let error = soon("the refusal", consumer.next_event()).await.unwrap().unwrap_err();
        assert_refused(&error, code, reason);
        // A commit that is refused for the same reason is not repeated, and closing says why.
        consumer.commit(&message);
        let closing = tokio::spawn(consumer.close());
        broker.commit().await.answer(Err(status(code, reason)));
        let error = soon("the close", closing).await.unwrap().unwrap_err();
        assert!(matches!(&error, Error::Refused(_) | Error::Lost { .. }), "{error:?}");
        assert!(!broker.has_commit());
    }
}

#[tokio::test]
async fn a_producer_continues_with_the_token_that_replaced_its_own() {
    let file = TokenFile::new("first");
    let mut broker = ScriptedBroker::start().await;
    let client = file.connect(&broker).await;
    let producer = client.producer("orders", "shop").open().await.unwrap();
    let sent = producer.send("a").await.unwrap();
    let mut stream = broker.publish_stream().await;
    assert_eq!(stream.authorization.as_deref(), Some("Bearer first"));
    let request = stream.payloads().await;
    file.replace("second\n");
    stream.end(status(Code::Unauthenticated, "TOKEN_EXPIRED")).await;
    let mut stream = broker.publish_stream().await;
    assert_eq!(stream.authorization.as_deref(), Some("Bearer second"));
    assert_eq!(stream.payloads().await, request, "the request is sent again");
    // The broker may also refuse the token of a single request.
    file.replace("third");
    stream.refuse(Code::Unauthenticated, "TOKEN_REVOKED").await;
    let mut stream = broker.publish_stream().await;
    assert_eq!(stream.authorization.as_deref(), Some("Bearer third"));
    assert_eq!(stream.payloads().await, request);
    stream.receipt(7, false).await;
    assert_eq!(soon("the offset", sent.offset()).await, Ok(7));
    assert_eq!(broker.state.registered.load(Ordering::Acquire), 1, "nothing fenced it");
}

#[tokio::test]
async fn a_consumer_continues_with_the_token_that_replaced_its_own() {
    let file = TokenFile::new("first");
    let mut broker = ScriptedBroker::start().await;
    let client = file.connect(&broker).await;
    let mut consumer = client.consumer("orders", "billing", Commit::Manual).open().await.unwrap();
    let stream = broker.consume().await;
    assert_eq!(stream.authorization.as_deref(), Some("Bearer first"));
    stream.attach(0, 1).await;
    stream.messages(0..1).await;
    assert_eq!(next(&mut consumer).await.offset, 0);
    file.replace("second");
    stream.end(status(Code::Unauthenticated, "TOKEN_EXPIRED")).await;
    let Event::Broken(error) = next_event(&mut consumer).await else { panic!("no break") };
    assert_refused(&error, Code::Unauthenticated, "TOKEN_EXPIRED");
    let stream = broker.consume().await;
    assert_eq!(stream.authorization.as_deref(), Some("Bearer second"));
    stream.attach(0, 2).await;
    stream.messages(0..2).await;
    assert_eq!(next(&mut consumer).await.offset, 1);
}

#[tokio::test]
async fn a_call_is_repeated_once_if_its_token_was_replaced() {
    let file = TokenFile::new("first");
    let broker = ScriptedBroker::start().await;
    let client = file.connect(&broker).await;
    let accept = |token: &str| *broker.state.accepted.lock().unwrap() = Some(token.to_owned());
    let open = async || client.producer("orders", "shop").open().await.map(drop);
    let asked = || broker.state.asked.swap(0, Ordering::AcqRel);
    accept("another");
    // The same token would be refused again.
    assert_eq!(open().await.unwrap_err().code(), Some(Code::Unauthenticated));
    assert_eq!(asked(), 1);
    file.replace("second");
    accept("second");
    open().await.unwrap();
    assert_eq!(asked(), 2);
    // The replacement may be refused as well: that is final.
    file.replace("third");
    accept("another");
    assert_eq!(open().await.unwrap_err().code(), Some(Code::Unauthenticated));
    assert_eq!(asked(), 2);
}
