//! A value that is given but empty is an error; it never counts as not given.

use std::fs;

use tokio::process::Command;
use trunkline::client::{Client, Commit, ConnectError, Error, Start};

use crate::support::{Finished, TestBroker, TestDatabase, Trunkline};

/// Runs `serve` in a folder, with environment variables.
async fn serve(
    folder: &std::path::Path,
    variables: &[(&str, &str)],
    arguments: &[&str],
) -> Finished {
    let mut command = Trunkline::command(&["serve"]);
    // If the command starts despite the empty value, this keeps it from leaving a server behind.
    command.env("TRUNKLINE_POSTGRES_BIN", "/nonexistent");
    command.args(arguments).envs(variables.iter().copied()).current_dir(folder);
    Trunkline::finish(command).await
}

#[track_caller]
fn assert_refused(finished: &Finished, name: &str) {
    assert_eq!(finished.code(), 2, "{name}: {finished:?}");
    assert!(finished.stderr.contains(name), "{name}: {finished:?}");
    assert!(!finished.stdout.contains("listening"), "{finished:?}");
}

#[tokio::test]
async fn an_empty_database_url_does_not_start_the_embedded_postgres() {
    let folder = tempfile::tempdir().unwrap();
    for blank in ["", " ", "\n", " \n\t\n"] {
        let file = folder.path().join("url");
        fs::write(&file, blank).unwrap();
        let file = file.to_str().unwrap();
        for flag in ["--database-url", "--direct-database-url"] {
            let finished = serve(folder.path(), &[], &[flag, blank]).await;
            assert_refused(&finished, flag);
            let finished = serve(folder.path(), &[], &[&format!("{flag}-file"), file]).await;
            assert_refused(&finished, file);
        }
        for variable in ["TRUNKLINE_DATABASE_URL", "TRUNKLINE_DIRECT_DATABASE_URL", "DATABASE_URL"]
        {
            let finished = serve(folder.path(), &[(variable, blank)], &[]).await;
            assert_refused(&finished, variable);
        }
        // An empty variable is refused even if another one is set.
        let set = ("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/x");
        let finished = serve(folder.path(), &[("TRUNKLINE_DATABASE_URL", blank), set], &[]).await;
        assert_refused(&finished, "TRUNKLINE_DATABASE_URL");
    }
    let left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["url"], "no data folder was created");
}

#[tokio::test]
async fn every_variable_of_serve_that_is_set_but_empty_is_refused_by_name() {
    let help = Trunkline::run(&["serve", "--help"]).await;
    let name = help.stdout.split("[env: ").skip(1).filter_map(|rest| {
        let end = rest.find(['=', ']'])?;
        Some(rest[..end].trim())
    });
    // Global variables that `serve` does not read.
    let of_clients = [
        "TRUNKLINE_ENDPOINT",
        "TRUNKLINE_CONTEXT",
        "TRUNKLINE_TOKEN_FILE",
        "TRUNKLINE_CA_FILE",
        "TRUNKLINE_CLIENT_CERT",
        "TRUNKLINE_CLIENT_KEY",
    ];
    let variables: Vec<&str> = name.filter(|name| !of_clients.contains(name)).collect();
    assert!(variables.len() >= 11, "{variables:?}");
    let folder = tempfile::tempdir().unwrap();
    for variable in variables {
        let finished = serve(folder.path(), &[(variable, "")], &[]).await;
        let flag = variable.trim_start_matches("TRUNKLINE_").to_lowercase().replace('_', "-");
        assert_refused(&finished, &format!("--{flag}"));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_blank_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for blank in ["", " ", "\t"] {
        let finished = serve(folder.path(), &[], &["--data-dir", blank]).await;
        assert_refused(&finished, "--data-dir");
        let finished = serve(folder.path(), &[("TRUNKLINE_DATA_DIR", blank)], &[]).await;
        assert_refused(&finished, "TRUNKLINE_DATA_DIR");
        let finished = serve(folder.path(), &[("TRUNKLINE_POSTGRES_BIN", blank)], &[]).await;
        assert_refused(&finished, "TRUNKLINE_POSTGRES_BIN");
        let url = ["--database-url", "postgresql://nobody@127.0.0.1:1/x"];
        let finished = serve(folder.path(), &[("TRUNKLINE_POSTGRES_BIN", blank)], &url).await;
        assert_refused(&finished, "TRUNKLINE_POSTGRES_BIN");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no folder was created");
}

#[tokio::test]
async fn a_database_url_in_a_file_may_be_surrounded_by_newlines() {
    let database = TestDatabase::create().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("\n{}\n\n", database.url)).unwrap();
    let (mut broker, endpoint) = Trunkline::serve(&[
        "--listen",
        "127.0.0.1:0",
        "--database-url-file",
        file.path().to_str().unwrap(),
    ])
    .await;
    Client::connect(&endpoint).await.unwrap();
    broker.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(broker.wait().await.success());
}

#[tokio::test]
async fn empty_arguments_and_variables_of_client_commands_are_refused() {
    let with = async |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command: Command = Trunkline::command(arguments);
        command.envs(variables.iter().copied());
        Trunkline::finish(command).await
    };
    for variable in ["TRUNKLINE_ENDPOINT", "TRUNKLINE_CONTEXT"] {
        assert_refused(&with(&[(variable, "")], &["topic", "list"]).await, variable);
    }
    for (flag, arguments) in [
        ("--endpoint", &["--endpoint", "", "topic", "list"][..]),
        ("--context", &["--context", "", "topic", "list"]),
        ("--consumer", &["consume", "t", "--consumer", "", "--register"]),
        ("--client-name", &["consume", "t", "--consumer", "c", "--client-name", ""]),
        ("--format", &["consume", "t", "--consumer", "c", "--format", ""]),
        ("--producer", &["produce", "t", "--producer", "", "--register"]),
        ("--header", &["produce", "t", "--producer", "p", "--header", ""]),
        ("[FILE]", &["produce", "t", "--producer", "p", ""]),
        // Without an id the broker generates one, but not for an empty id.
        ("[CONSUMER]", &["consumer", "register", "t", ""]),
        ("[PRODUCER]", &["producer", "register", "t", ""]),
        ("<NAME>", &["context", "add", "", "http://127.0.0.1:1"]),
        ("<ADDRESS>", &["context", "add", "name", ""]),
    ] {
        assert_refused(&with(&[], arguments).await, flag);
    }
}

#[tokio::test]
async fn an_empty_endpoint_of_a_context_is_refused() {
    let config = tempfile::tempdir().unwrap();
    fs::create_dir(config.path().join("trunkline")).unwrap();
    let file = config.path().join("trunkline/config.toml");
    for (text, name) in [
        ("current = \"a\"\n[contexts.a]\nendpoint = \"\"\n", "endpoint \"\""),
        ("current = \"\"\n", "there is no context"),
    ] {
        fs::write(&file, text).unwrap();
        let finished = Trunkline::run_configured(config.path(), &["topic", "list"]).await;
        assert_refused(&finished, name);
    }
}

#[tokio::test]
async fn the_library_refuses_empty_ids_and_credentials() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let client = Client::connect(&broker.endpoint).await.unwrap();
    let consumer = client.consumer("orders", "", Commit::Manual).register_at(Start::Earliest);
    let refused = consumer.open().await.unwrap_err();
    assert!(matches!(&refused, Error::Invalid { field: "consumer_id", .. }), "{refused}");
    assert!(broker.no_consumers("orders").await, "no consumer was registered");
    let refused = client.producer("orders", "").register().open().await.unwrap_err();
    assert!(matches!(&refused, Error::Invalid { field: "producer_id", .. }), "{refused}");
    for (builder, name) in [
        (Client::builder(&broker.endpoint).token(" "), "token"),
        (Client::builder("https://127.0.0.1:1").ca_certificate("\n"), "CA certificate"),
    ] {
        match builder.check() {
            Err(ConnectError::Credentials { what, reason }) => {
                assert_eq!((what, reason.as_str()), (name, "it is empty"));
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}
