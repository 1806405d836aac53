//! Contexts: names for brokers in the command's configuration.

use std::fs;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{TestBroker, Trunkline, soon};

#[tokio::test]
async fn a_context_names_a_broker() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let dir = tempfile::tempdir().unwrap();
    let run = async |arguments: &[&str]| Trunkline::run_configured(dir.path(), arguments).await;
    run(&["context", "list"]).await.assert().success().stdout("  NAME  ENDPOINT\n");
    run(&["context", "add", "here", &broker.endpoint]).await.assert().success();
    run(&["context", "add", "nowhere", "http://127.0.0.1:1"]).await.assert().success();
    // The first context that was added is in use.
    let listed = run(&["topic", "list", "-o", "json"]).await;
    assert!(listed.stdout.contains("\"orders\""), "{listed:?}");
    let contexts = run(&["context", "list", "-o", "json"]).await;
    let contexts: Value = serde_json::from_str(&contexts.stdout).unwrap();
    let expected = json!([
        { "name": "here", "endpoint": broker.endpoint, "in_use": true },
        { "name": "nowhere", "endpoint": "http://127.0.0.1:1", "in_use": false },
    ]);
    assert_eq!(contexts, expected);
    run(&["context", "use", "nowhere"]).await.assert().success();
    assert_eq!(run(&["topic", "list"]).await.code(), 69);
    // Options take precedence.
    run(&["topic", "list", "--context", "here"]).await.assert().success();
    run(&["topic", "list", "--endpoint", &broker.endpoint]).await.assert().success();
    let with_variable = async |variable: &str, value: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        command.env("XDG_CONFIG_HOME", dir.path()).env_remove("TRUNKLINE_ENDPOINT");
        let command = command.env_remove("TRUNKLINE_CONTEXT").env(variable, value).args(arguments);
        soon("the end", command.output()).await.unwrap().status.code()
    };
    let list = ["topic", "list"];
    assert_eq!(with_variable("TRUNKLINE_CONTEXT", "here", &list).await, Some(0));
    assert_eq!(with_variable("TRUNKLINE_ENDPOINT", &broker.endpoint, &list).await, Some(0));
    let address = broker.endpoint.strip_prefix("http://").unwrap();
    assert_eq!(with_variable("TRUNKLINE_ENDPOINT", address, &list).await, Some(0));
    run(&["topic", "list", "--endpoint", &format!("127.0.0.1:1,{address}")])
        .await
        .assert()
        .success();
    run(&["context", "add", "short", address]).await.assert().success();
    run(&["topic", "list", "--context", "short"]).await.assert().success();
    run(&["context", "remove", "short"]).await.assert().success();
    let list = ["topic", "list", "--context", "here"];
    assert_eq!(with_variable("TRUNKLINE_ENDPOINT", "http://127.0.0.1:1", &list).await, Some(0));
    let list = ["topic", "list", "--endpoint", &broker.endpoint];
    assert_eq!(with_variable("TRUNKLINE_CONTEXT", "nowhere", &list).await, Some(0));
    let bad = run(&["context", "add", "bad", "no host"]).await;
    assert_eq!((bad.code(), bad.stderr.lines().count()), (2, 1), "{bad:?}");
    let both = run(&["topic", "list", "--endpoint", "x", "--context", "here"]).await;
    assert_eq!(both.code(), 2, "{both:?}");
    run(&["context", "remove", "nowhere"]).await.assert().success();
    for unknown in [
        &["context", "use", "nowhere"][..],
        &["context", "remove", "nowhere"],
        &["topic", "list", "--context", "nowhere"],
    ] {
        let refused = run(unknown).await;
        assert_eq!((refused.code(), refused.stderr.lines().count()), (2, 1), "{refused:?}");
        assert!(refused.stderr.contains("there is no context nowhere"), "{refused:?}");
    }
    fs::write(dir.path().join("trunkline/config.toml"), "contexts = 7").unwrap();
    let broken = run(&["topic", "list"]).await;
    assert_eq!((broken.code(), broken.stderr.lines().count()), (1, 1), "{broken:?}");
    assert!(broken.stderr.contains("config.toml"), "{broken:?}");
}
