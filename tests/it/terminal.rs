//! Text of other users cannot control the terminal of the one who reads it.

use serde_json::Value;
use trunkline::proto::{CreateTopicRequest, PublishRequest};

use crate::support::{PRODUCER, TestBroker, Trunkline, message, soon};

/// Clears the screen, sets a title, reverses letters, and pretends to be another line.
const HOSTILE: &str =
    "\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\u{202e}cod.exe\u{2069}\r\nHEAD:  99\t\u{7f}";
const ESCAPED: &str =
    "\\u{1b}[2J\\u{1b}]0;t\\u{7}\\u{9b}31m\\u{202e}cod.exe\\u{2069}\\r\\nHEAD:  99\\t\\u{7f}";

#[track_caller]
fn assert_harmless(text: &str) {
    let controls = |c: char| {
        (c.is_control() && c != '\n')
            || ('\u{202a}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c)
    };
    assert!(!text.contains(controls), "{text:?}");
}

#[tokio::test]
async fn descriptions_labels_and_holders_are_escaped() {
    let broker = TestBroker::start().await;
    let request = CreateTopicRequest {
        topic: "orders".to_owned(),
        description: HOSTILE.to_owned(),
        labels: [("team".to_owned(), HOSTILE.to_owned())].into(),
        ..Default::default()
    };
    broker.topics().create_topic(request).await.unwrap();
    broker.consumer("orders", "c").await;
    // Client names may not contain control characters, but they may contain these.
    let holder = "a\u{202e}b\u{2066}c";
    let held = broker.take_over("orders", "c", holder).await;
    let run = async |arguments: &[&str]| {
        let ran = broker.run(arguments).await;
        assert_harmless(&ran.stdout);
        assert_harmless(&ran.stderr);
        ran
    };
    let described = run(&["topic", "describe", "orders"]).await;
    assert!(described.stdout.contains(&format!("description:     {ESCAPED}\n")), "{described:?}");
    assert!(
        described.stdout.contains(&format!("label:           team={ESCAPED}\n")),
        "{described:?}"
    );
    let json = run(&["topic", "describe", "orders", "-o", "json"]).await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["description"], &json["labels"]["team"]), (&HOSTILE.into(), &HOSTILE.into()));
    let list = run(&["topic", "list", "-o", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&list.stdout).unwrap()[0], json);

    let escaped = "a\\u{202e}b\\u{2066}c";
    let list = run(&["consumer", "list", "--topic", "orders"]).await;
    assert!(list.stdout.lines().nth(1).unwrap().ends_with(escaped), "{list:?}");
    let described = run(&["consumer", "describe", "--topic", "orders", "c"]).await;
    assert!(described.stdout.contains(&format!("holder:         {escaped}\n")), "{described:?}");
    let arguments = ["--endpoint", &broker.endpoint, "consume", "orders", "--consumer", "c"];
    let mut waiting = Trunkline::spawn(&arguments);
    let line = soon("the command waits", waiting.stderr.next_line()).await.unwrap().unwrap();
    assert!(line.ends_with(&format!("held by {escaped}")), "{line}");
    drop(held);
    // Refusals that repeat an argument escape it, too.
    let refused = run(&["topic", "describe", HOSTILE]).await;
    assert_eq!((refused.code(), refused.stderr.lines().count()), (1, 1), "{refused:?}");
    let created = run(&["topic", "create", "\u{1b}[31m"]).await;
    assert_eq!((created.code(), created.stderr.lines().count()), (1, 1), "{created:?}");
    let file = run(&["produce", "orders", "--producer", "p", "/nowhere/\u{1b}[31m"]).await;
    assert_eq!((file.code(), file.stderr.lines().count()), (1, 1), "{file:?}");
}

#[tokio::test]
async fn contexts_are_escaped() {
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
        let ran = Trunkline::run_configured(config.path(), arguments).await;
        assert!(!ran.stdout.is_empty() || !ran.stderr.is_empty(), "{ran:?}");
        assert_harmless(&ran.stdout);
        assert_harmless(&ran.stderr);
    }
}

/// A broker whose topic `orders` has a hostile message.
async fn with_hostile_message() -> TestBroker {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let request = PublishRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: vec![trunkline::proto::NewMessage {
            key: Some(HOSTILE.into()),
            headers: [("h".to_owned(), HOSTILE.to_owned())].into(),
            ..message(HOSTILE)
        }],
        ..Default::default()
    };
    broker.producers().publish(request).await.unwrap();
    broker
}

#[tokio::test]
async fn messages_are_printed_unchanged() {
    let broker = with_hostile_message().await;
    let read = async |options: &[&str]| {
        broker.run(&[&["topic", "read", "orders"], options].concat()).await.stdout
    };
    assert_eq!(read(&[]).await, format!("{HOSTILE}\n"));
    assert_eq!(read(&["--format", "%k|%h|%p"]).await, format!("{HOSTILE}|h={HOSTILE}|{HOSTILE}"));
    // JSON escapes them by its own rules.
    let json = read(&["--json"]).await;
    assert_harmless(&json);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["payload"], &json["key"]), (&HOSTILE.into(), &HOSTILE.into()));
    assert_eq!(json["headers"]["h"], HOSTILE);
}

#[tokio::test]
async fn messages_are_escaped_on_a_terminal() {
    let broker = with_hostile_message().await;
    broker.consumer("orders", "c").await;
    let shown = async |arguments: &[&str]| {
        let arguments = [&["--endpoint", &broker.endpoint], arguments].concat();
        let shown = String::from_utf8(Trunkline::run_on_terminal(&arguments).await).unwrap();
        // A terminal gets a carriage return with each line feed, and may get tabs.
        let shown = shown.replace("\r\n", "\n");
        assert_harmless(&shown.replace('\t', ""));
        shown
    };
    // A payload keeps its lines.
    let payload = ESCAPED.replace("\\n", "\n").replace("\\t", "\t");
    let consume = ["consume", "orders", "--consumer", "c", "-n", "1"];
    for arguments in [&["topic", "read", "orders"][..], &["topic", "tail", "orders"], &consume] {
        assert_eq!(shown(arguments).await, format!("{payload}\n"), "{arguments:?}");
    }
    let parts = shown(&["topic", "read", "orders", "--format", "%k|%h|%P|%c\\n"]).await;
    assert_eq!(parts, format!("{ESCAPED}|h={ESCAPED}|{PRODUCER}|orders\n"));
    let json = shown(&["topic", "read", "orders", "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["payload"], HOSTILE);
    // The format itself is the user's own.
    let coloured =
        ["--endpoint", &broker.endpoint, "topic", "read", "orders", "--format", "\\x1b[31m%o\\n"];
    assert_eq!(Trunkline::run_on_terminal(&coloured).await, b"\x1b[31m0\r\n");
}
