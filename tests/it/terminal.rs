//! What others have written moves no cursor and sets no title of whoever reads it.

use serde_json::Value;
use trunkline::proto::{CreateTopicRequest, PublishRequest};

use crate::support::{PRODUCER, TestBroker, Trunkline, message};

/// Clears the screen, sets a title, turns letters around, and pretends to be another line.
const EVIL: &str = "\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\u{202e}cod.exe\u{2069}\r\nHEAD:  99\t\u{7f}";
const SHOWN: &str =
    "\\u{1b}[2J\\u{1b}]0;t\\u{7}\\u{9b}31m\\u{202e}cod.exe\\u{2069}\\r\\nHEAD:  99\\t\\u{7f}";

#[track_caller]
fn assert_harmless(text: &str) {
    let acts = |c: char| {
        (c.is_control() && c != '\n')
            || ('\u{202a}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c)
    };
    assert!(!text.contains(acts), "{text:?}");
}

#[tokio::test]
async fn descriptions_labels_and_holders_are_shown_as_text() {
    let broker = TestBroker::start().await;
    let request = CreateTopicRequest {
        topic: "orders".to_owned(),
        description: EVIL.to_owned(),
        labels: [("team".to_owned(), EVIL.to_owned())].into(),
        ..Default::default()
    };
    broker.topics().create_topic(request).await.unwrap();
    broker.consumer("orders", "c").await;
    // Control characters are refused in a holder's name, but not these.
    let holder = "a\u{202e}b\u{2066}c";
    let held = broker.take_over("orders", "c", holder).await;
    let run = async |arguments: &[&str]| {
        let arguments = [&["--endpoint", &broker.endpoint], arguments].concat();
        let told = Trunkline::run(&arguments).await;
        assert_harmless(&told.stdout);
        assert_harmless(&told.stderr);
        told
    };
    let described = run(&["topic", "describe", "orders"]).await;
    assert!(described.stdout.contains(&format!("description:     {SHOWN}\n")), "{described:?}");
    assert!(
        described.stdout.contains(&format!("label:           team={SHOWN}\n")),
        "{described:?}"
    );
    let json = run(&["topic", "describe", "orders", "-o", "json"]).await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["description"], &json["labels"]["team"]), (&EVIL.into(), &EVIL.into()));
    let list = run(&["topic", "list", "-o", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&list.stdout).unwrap()[0], json);

    let shown = "a\\u{202e}b\\u{2066}c";
    let list = run(&["consumer", "list", "--topic", "orders"]).await;
    assert!(list.stdout.lines().nth(1).unwrap().ends_with(shown), "{list:?}");
    let described = run(&["consumer", "describe", "--topic", "orders", "c"]).await;
    assert!(described.stdout.contains(&format!("holder:         {shown}\n")), "{described:?}");
    let arguments = ["--endpoint", &broker.endpoint, "consume", "orders", "--consumer", "c"];
    let mut waiting = Trunkline::spawn(&arguments);
    let told = crate::support::soon("it waits", waiting.stderr.next_line()).await.unwrap().unwrap();
    assert!(told.ends_with(&format!("held by {shown}")), "{told}");
    drop(held);
    // What a refusal repeats of the command line, too.
    let refused = run(&["topic", "describe", EVIL]).await;
    assert_eq!((refused.code(), refused.stderr.lines().count()), (1, 1), "{refused:?}");
    let created = run(&["topic", "create", "\u{1b}[31m"]).await;
    assert_eq!((created.code(), created.stderr.lines().count()), (1, 1), "{created:?}");
    let file = run(&["produce", "orders", "--producer", "p", "/nowhere/\u{1b}[31m"]).await;
    assert_eq!((file.code(), file.stderr.lines().count()), (1, 1), "{file:?}");
}

#[tokio::test]
async fn contexts_are_shown_as_text() {
    let config = tempfile::tempdir().unwrap();
    std::fs::create_dir(config.path().join("trunkline")).unwrap();
    let text = "[contexts.\"a\\u001B[31m\"]\nendpoint = \"http://x:1/\\u009B\"\n";
    std::fs::write(config.path().join("trunkline/config.toml"), text).unwrap();
    for arguments in [
        &["context", "list"][..],
        &["context", "list", "-o", "json"],
        &["context", "use", "a\u{1b}[31m"],
        &["topic", "list"],
        &["topic", "list", "--context", "b\u{1b}[31m"],
        &["context", "remove", "a\u{1b}[31m"],
    ] {
        let told = Trunkline::run_configured(config.path(), arguments).await;
        assert!(!told.stdout.is_empty() || !told.stderr.is_empty(), "{told:?}");
        assert_harmless(&told.stdout);
        assert_harmless(&told.stderr);
    }
}

#[tokio::test]
async fn messages_are_data_and_stay_as_they_are() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let request = PublishRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: vec![trunkline::proto::NewMessage {
            key: Some(EVIL.into()),
            headers: [("h".to_owned(), EVIL.to_owned())].into(),
            ..message(EVIL)
        }],
        ..Default::default()
    };
    broker.producers().publish(request).await.unwrap();
    let read = async |options: &[&str]| {
        let read = ["--endpoint", &broker.endpoint, "topic", "read", "orders"];
        Trunkline::run(&[&read[..], options].concat()).await.stdout
    };
    assert_eq!(read(&[]).await, format!("{EVIL}\n"));
    assert_eq!(read(&["--format", "%k|%h|%p"]).await, format!("{EVIL}|h={EVIL}|{EVIL}"));
    // In JSON they are the same, said otherwise.
    let json = read(&["--json"]).await;
    assert_harmless(&json);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["payload"], &json["key"]), (&EVIL.into(), &EVIL.into()));
    assert_eq!(json["headers"]["h"], EVIL);
}
