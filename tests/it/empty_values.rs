//! What is given but empty is an error, and never the same as what is not given.

use std::fs;

use tokio::process::Command;
use trunkline::client::{Client, Commit, ConnectError, Error, Start};

use crate::support::{Finished, TestBroker, TestDatabase, Trunkline};

/// Runs `serve` in a folder of its own, with variables; ends it if it comes up.
async fn serve(
    folder: &std::path::Path,
    variables: &[(&str, &str)],
    arguments: &[&str],
) -> Finished {
    let mut command = Trunkline::command(&["serve"]);
    // Whatever goes wrong here, no server is left behind.
    command.env("TRUNKLINE_POSTGRES_BIN", "/nonexistent");
    command.args(arguments).envs(variables.iter().copied()).current_dir(folder);
    Trunkline::finish(command).await
}

#[track_caller]
fn assert_refused(told: &Finished, named: &str) {
    assert_eq!(told.code(), 2, "{named}: {told:?}");
    assert!(told.stderr.contains(named), "{named}: {told:?}");
    assert!(!told.stdout.contains("listening"), "{told:?}");
}

#[tokio::test]
async fn an_empty_database_url_starts_no_private_postgres() {
    let folder = tempfile::tempdir().unwrap();
    for blank in ["", " ", "\n", " \n\t\n"] {
        let file = folder.path().join("url");
        fs::write(&file, blank).unwrap();
        let file = file.to_str().unwrap();
        for flag in ["--database-url", "--direct-database-url"] {
            let told = serve(folder.path(), &[], &[flag, blank]).await;
            assert_refused(&told, flag);
            let told = serve(folder.path(), &[], &[&format!("{flag}-file"), file]).await;
            assert_refused(&told, file);
        }
        for variable in ["TRUNKLINE_DATABASE_URL", "TRUNKLINE_DIRECT_DATABASE_URL", "DATABASE_URL"]
        {
            let told = serve(folder.path(), &[(variable, blank)], &[]).await;
            assert_refused(&told, variable);
        }
        // It hides no variable that is set, either.
        let set = ("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/x");
        let told = serve(folder.path(), &[("TRUNKLINE_DATABASE_URL", blank), set], &[]).await;
        assert_refused(&told, "TRUNKLINE_DATABASE_URL");
    }
    let left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["url"], "no folder was made for a PostgreSQL");
}

#[tokio::test]
async fn every_variable_of_serve_that_is_set_but_empty_is_named() {
    let help = Trunkline::run(&["serve", "--help"]).await;
    let named = help.stdout.split("[env: ").skip(1).filter_map(|rest| {
        let end = rest.find(['=', ']'])?;
        Some(rest[..end].trim())
    });
    // Those of all other commands, which `serve` does not read.
    let of_clients = ["TRUNKLINE_ENDPOINT", "TRUNKLINE_CONTEXT"];
    let variables: Vec<&str> = named.filter(|name| !of_clients.contains(name)).collect();
    assert!(variables.len() >= 11, "{variables:?}");
    let folder = tempfile::tempdir().unwrap();
    for variable in variables {
        let told = serve(folder.path(), &[(variable, "")], &[]).await;
        let flag = variable.trim_start_matches("TRUNKLINE_").to_lowercase().replace('_', "-");
        assert_refused(&told, &format!("--{flag}"));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_blank_folder_is_none() {
    let folder = tempfile::tempdir().unwrap();
    for blank in ["", " ", "\t"] {
        let told = serve(folder.path(), &[], &["--data-dir", blank]).await;
        assert_refused(&told, "--data-dir");
        let told = serve(folder.path(), &[("TRUNKLINE_DATA_DIR", blank)], &[]).await;
        assert_refused(&told, "TRUNKLINE_DATA_DIR");
        let told = serve(folder.path(), &[("TRUNKLINE_POSTGRES_BIN", blank)], &[]).await;
        assert_refused(&told, "TRUNKLINE_POSTGRES_BIN");
        let url = ["--database-url", "postgresql://nobody@127.0.0.1:1/x"];
        let told = serve(folder.path(), &[("TRUNKLINE_POSTGRES_BIN", blank)], &url).await;
        assert_refused(&told, "TRUNKLINE_POSTGRES_BIN");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no folder was made");
}

#[tokio::test]
async fn a_url_from_a_file_may_end_with_a_line() {
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
async fn an_empty_endpoint_or_context_leads_nowhere() {
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
        // Without an id one is made; with an empty one none is.
        ("[ID]", &["consumer", "register", "--topic", "t", ""]),
        ("[ID]", &["producer", "register", "--topic", "t", ""]),
        ("<NAME>", &["context", "add", "", "http://127.0.0.1:1"]),
        ("<URL>", &["context", "add", "name", ""]),
    ] {
        assert_refused(&with(&[], arguments).await, flag);
    }
}

#[tokio::test]
async fn an_empty_endpoint_of_a_context_is_told() {
    let config = tempfile::tempdir().unwrap();
    fs::create_dir(config.path().join("trunkline")).unwrap();
    let file = config.path().join("trunkline/config.toml");
    for (text, named) in [
        ("current = \"a\"\n[contexts.a]\nendpoint = \"\"\n", "endpoint \"\""),
        ("current = \"\"\n", "there is no context"),
    ] {
        fs::write(&file, text).unwrap();
        let told = Trunkline::run_configured(config.path(), &["topic", "list"]).await;
        assert_refused(&told, named);
    }
}

#[tokio::test]
async fn the_library_takes_no_empty_ids_and_credentials() {
    let broker = TestBroker::start().await;
    broker.topic("orders").await;
    let client = Client::connect(&broker.endpoint).await.unwrap();
    let consumer = client.consumer("orders", "", Commit::Manual).register_at(Start::Earliest);
    let refused = consumer.open().await.unwrap_err();
    assert!(matches!(&refused, Error::Invalid { field: "consumer_id", .. }), "{refused}");
    assert!(broker.no_consumers("orders").await, "none was made");
    let refused = client.producer("orders", "").register().open().await.unwrap_err();
    assert!(matches!(&refused, Error::Invalid { field: "producer_id", .. }), "{refused}");
    for (builder, named) in [
        (Client::builder(&broker.endpoint).token(" "), "token"),
        (Client::builder("https://127.0.0.1:1").ca_certificate("\n"), "CA certificate"),
    ] {
        match builder.check() {
            Err(ConnectError::Credentials { what, reason }) => {
                assert_eq!((what, reason.as_str()), (named, "it is empty"));
            }
            other => panic!("{named}: {other:?}"),
        }
    }
}
