//! What a shell completes, and the manual.

use std::path::Path;

use tokio::process::Command;

use crate::support::{Finished, TestBroker, Trunkline, soon};

/// What is offered for the last of some words, as the script for bash asks for it.
async fn offered(words: &[&str]) -> Vec<String> {
    let index = words.len().to_string();
    let mut command = Trunkline::command(&[&["--", "trunkline"], words].concat());
    command.env("TRUNKLINE_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index);
    command.env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_SPACE", "false");
    let Finished { status, stdout, stderr } = Trunkline::finish(command).await;
    assert!(status.success() && stderr.is_empty(), "{words:?}: {stderr}");
    stdout.lines().map(str::to_owned).collect()
}

/// What is offered but flags.
async fn names(words: &[&str]) -> Vec<String> {
    let offered = offered(words).await.into_iter();
    offered.filter(|candidate| !candidate.starts_with('-')).collect()
}

#[tokio::test]
async fn subcommands_are_offered_before_flags() {
    for words in [&[""][..], &["topic", ""], &["consumer", ""]] {
        let offered = offered(words).await;
        let first_flag = offered.iter().position(|candidate| candidate.starts_with('-')).unwrap();
        assert!(first_flag > 5, "{offered:?}");
        assert!(offered[first_flag..].iter().all(|it| it.starts_with('-')), "{offered:?}");
    }
    assert_eq!(names(&["topic", "de"]).await, ["describe", "delete"]);
    assert!(offered(&["consume", "--until"]).await.contains(&"--until-caught-up".to_owned()));
    let serve = offered(&["serve", "--"]).await;
    assert!(!serve.contains(&"--token-file".to_owned()), "{serve:?}");
}

#[tokio::test]
async fn names_are_those_that_the_broker_has() {
    let broker = TestBroker::start().await;
    for topic in ["orders", "order-items", "bills"] {
        broker.topic(topic).await;
    }
    broker.consumer("orders", "billing").await;
    broker.consumer("bills", "audit").await;
    broker.run(&["producer", "register", "orders", "till"]).await.assert().success();
    let names =
        async |words: &[&str]| names(&[&["--endpoint", &broker.endpoint], words].concat()).await;
    assert_eq!(names(&["topic", "describe", "ord"]).await, ["order-items", "orders"]);
    for words in [
        &["tail", ""][..],
        &["topic", "delete", ""],
        &["pub", ""],
        &["produce", ""],
        &["consume", ""],
        &["lag", ""],
        &["consumer", "list", ""],
        &["consumer", "describe", "--topic", ""],
        &["topic", "copy", ""],
        &["audit", "list", "--topic", ""],
    ] {
        assert_eq!(names(words).await, ["bills", "order-items", "orders"], "{words:?}");
    }
    for (words, expected) in [
        (&["consumer", "describe", "orders", ""][..], &["billing"][..]),
        (&["consumer", "seek", "bills", ""], &["audit"]),
        (&["consume", "orders", "--consumer", ""], &["billing"]),
        (&["producer", "unregister", "orders", ""], &["producer", "till"]),
        (&["pub", "orders", "--producer", ""], &["producer", "till"]),
    ] {
        assert_eq!(names(words).await, expected, "{words:?}");
    }
    broker.run(&["subscription", "create", "orders", "pool"]).await.assert().success();
    for words in [
        &["subscription", "describe", "orders", ""][..],
        &["subscription", "replay", "orders", ""],
        &["work", "orders", "--subscription", ""],
    ] {
        assert_eq!(names(words).await, ["pool"], "{words:?}");
    }
    assert_eq!(names(&["work", "b"]).await, ["bills"]);
    assert!(names(&["subscription", "create", "orders", ""]).await.is_empty());
    assert!(names(&["consumer", "register", "orders", ""]).await.is_empty());
    assert!(names(&["topic", "create", ""]).await.is_empty());
}

#[tokio::test]
async fn nothing_is_offered_and_nothing_printed_without_a_broker() {
    assert!(names(&["--endpoint", "127.0.0.1:1", "topic", "describe", ""]).await.is_empty());
    assert!(names(&["--endpoint", "no host", "topic", "describe", ""]).await.is_empty());
    // One that never answers delays the shell by less than the deadline of a test.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap().to_string();
    assert!(names(&["--endpoint", &silent, "topic", "describe", ""]).await.is_empty());
}

#[tokio::test]
async fn contexts_are_those_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["staging", "here"] {
        let add = ["context", "add", name, "localhost"];
        Trunkline::run_configured(folder.path(), &add).await.assert().success();
    }
    for words in
        [&["context", "use", ""][..], &["--context", ""], &["topic", "list", "--context", ""]]
    {
        let index = words.len().to_string();
        let mut command = Trunkline::command(&[&["--", "trunkline"], words].concat());
        command.env("XDG_CONFIG_HOME", folder.path()).env("TRUNKLINE_COMPLETE", "fish");
        command.env("_CLAP_COMPLETE_INDEX", index);
        let finished = Trunkline::finish(command).await;
        let words: Vec<_> = finished.stdout.lines().filter(|it| !it.starts_with('-')).collect();
        assert_eq!(words, ["here", "staging"], "{finished:?}");
    }
}

/// The whole way: bash sources the script, and calls its function.
#[tokio::test]
async fn bash_completes_with_the_script() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let program = Path::new(env!("CARGO_BIN_EXE_trunkline")).parent().unwrap();
    let script = "source <(trunkline completions bash)
        COMP_WORDS=(trunkline topic describe o) COMP_CWORD=3
        _clap_complete_trunkline trunkline o describe
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).env("TRUNKLINE_ENDPOINT", &broker.endpoint);
    bash.env("PATH", format!("{}:{}", program.display(), std::env::var("PATH").unwrap()));
    bash.env("XDG_CONFIG_HOME", "/nonexistent").env_remove("TRUNKLINE_CONTEXT");
    let output = soon("bash", bash.output()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "orders", "{output:?}");
}

#[tokio::test]
async fn manual_pages_are_written() {
    let page = Trunkline::run(&["man"]).await;
    assert_eq!(page.code(), 0, "{page:?}");
    for part in [".TH trunkline 1", ".SH SUBCOMMANDS", "trunkline\\-topic(1)", "Exit codes"] {
        assert!(page.stdout.contains(part), "{part}: {}", page.stdout);
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    let written = Trunkline::run(&["man", "--out", pages.to_str().unwrap()]).await;
    assert_eq!(written.code(), 0, "{written:?}");
    let page = std::fs::read_to_string(pages.join("trunkline-consumer-seek.1")).unwrap();
    for part in ["trunkline\\-consumer\\-seek", "Examples:", "\\-\\-to"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(pages.join("trunkline.1").exists() && pages.join("trunkline-pub.1").exists());
    let failed = Trunkline::run(&["man", "--out", "/dev/null/x"]).await;
    assert_eq!((failed.code(), failed.stderr.lines().count()), (1, 1), "{failed:?}");
}
