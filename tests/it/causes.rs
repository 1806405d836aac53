//! Errors name their cause: the server, setting or parameter, in the server's own words.

use std::{fs, time::Instant};

use trunkline::{
    client::{Client, ConnectError},
    embedded::{DATABASE, EmbeddedPostgres},
    storage::{self, Storage},
};

use crate::support::{
    DEADLINE, Finished, LIMITS, TestBroker, TestDatabase, Trunkline, connect, soon, until,
};

async fn error(url: &str) -> storage::Error {
    match Storage::open(url, None, LIMITS).await {
        Ok(_) => panic!("a refusal expected"),
        Err(error) => error,
    }
}

/// Runs a broker that cannot start, and checks that it gives up soon.
async fn serve(arguments: &[&str]) -> Finished {
    let started = Instant::now();
    let arguments = [&["serve", "--listen", "127.0.0.1:0"], arguments].concat();
    let finished = Trunkline::run(&arguments).await;
    assert!(started.elapsed() < DEADLINE / 2, "{finished:?}");
    assert!(!finished.stderr.contains("s3cret"), "{finished:?}");
    assert!(!finished.stderr.contains("wait for the database"), "{finished:?}");
    finished
}

#[tokio::test]
async fn an_unusable_database_url_is_a_usage_error_that_names_its_source() {
    for (url, problem) in [
        ("mysql://u:s3cret@h/d", "it does not begin with postgresql://"),
        ("postgres://", "it names no host"),
        ("nonsense", "a database URL has the form postgresql://USER:PASSWORD@HOST:PORT/DATABASE"),
        ("postgresql://u:s3cret@h/d?sslmode=s3cret", "sslmode is none of disable"),
        (
            "postgresql://u:s3cret@h/d?sslcrl=/s3cret",
            "this build does not know the parameter sslcrl",
        ),
    ] {
        let finished = serve(&["--database-url", url]).await;
        assert_eq!(finished.code(), 2, "{finished:?}");
        let text = format!("read the database URL of --database-url: {problem}");
        assert!(finished.stderr.contains(&text), "{url}: {finished:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    fs::write(&file, "mysql://u:s3cret@h/d\n").unwrap();
    let file = file.to_str().unwrap();
    let finished = serve(&["--database-url-file", file]).await;
    assert_eq!(finished.code(), 2, "{finished:?}");
    assert!(finished.stderr.contains(&format!("URL of {file}: ")), "{finished:?}");
    let direct = ["--database-url", "postgresql://h/d", "--direct-database-url", "mysql://x"];
    let finished = serve(&direct).await;
    assert_eq!(finished.code(), 2, "{finished:?}");
    assert!(finished.stderr.contains("URL of --direct-database-url: "), "{finished:?}");
}

#[tokio::test]
async fn a_database_url_that_only_prefers_tls_is_accepted() {
    let database = TestDatabase::create().await;
    let separator = if database.url.contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}sslmode=prefer", database.url);
    Storage::open(&url, None, LIMITS).await.unwrap().close();
}

#[tokio::test]
async fn a_failed_connection_is_reported_with_each_host_and_its_reason() {
    let error = error("postgresql://u@127.0.0.1:1,no-such-host.invalid:2,127.0.0.1:3/d").await;
    assert!(error.is_transient(), "{error}");
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1: Connection refused"), "{text}");
    assert!(text.contains("127.0.0.1:3: Connection refused"), "{text}");
    assert!(text.contains("no-such-host.invalid:2: "), "{text}");
}

#[tokio::test]
async fn a_wrong_role_database_or_password_ends_the_start_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = EmbeddedPostgres::start(dir.path()).await.unwrap();
    let sql = connect(&postgres.url(DATABASE)).await;
    sql.batch_execute("create role ann login password 'right'").await.unwrap();
    let rules: String = sql.query_one("show hba_file", &[]).await.unwrap().get(0);
    let other_rules = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, format!("local all ann scram-sha-256\n{other_rules}")).unwrap();
    sql.batch_execute("select pg_reload_conf()").await.unwrap();
    let socket = postgres.socket_dir().display();
    let server = format!("{socket}/.s.PGSQL.5432: ");
    let wrong = format!("host={socket} user=ann password=s3cret dbname={DATABASE}");
    until("the server has read the rules", async || {
        // The server accepted any password before it read them.
        tokio_postgres::connect(&wrong, tokio_postgres::NoTls).await.is_err()
    })
    .await;
    for (url, text) in [
        (wrong.clone(), "password authentication failed for user \"ann\" (28P01)"),
        (format!("host={socket} user=nobody dbname={DATABASE}"), "role \"nobody\" does not exist"),
        (postgres.url("nowhere"), "database \"nowhere\" does not exist (3D000)"),
    ] {
        let finished = serve(&["--database-url", &url]).await;
        assert_eq!(finished.code(), 1, "{finished:?}");
        let text = format!("trunkline: connect to the database: {server}{text}");
        assert!(finished.stderr.contains(&text), "{text}: {finished:?}");
    }
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_broker_waits_for_a_hot_standby_and_logs_that_it_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = EmbeddedPostgres::start(dir.path()).await.unwrap();
    let url = postgres.url(DATABASE);
    let sql = connect(&url).await;
    let data: String = sql.query_one("show data_directory", &[]).await.unwrap().get(0);
    drop(sql);
    postgres.stop().await.unwrap();
    fs::write(format!("{data}/standby.signal"), "").unwrap();
    let standby = EmbeddedPostgres::start(dir.path()).await.unwrap();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--database-url", &url];
    let mut broker = Trunkline::spawn(&arguments);
    let line = broker.log_line("wait for the database").await;
    assert!(line.contains("it is a hot standby, which is read-only"), "{line}");
    connect(&url).await.batch_execute("select pg_promote()").await.unwrap();
    let ready = soon("the ready line", broker.stdout.next_line()).await.unwrap().unwrap();
    assert!(ready.starts_with("listening on "), "{ready}");
    broker.kill().await;
    standby.stop().await.unwrap();
}

#[tokio::test]
async fn a_running_broker_logs_in_the_servers_words_why_it_cannot_reach_its_database() {
    let database = TestDatabase::create_empty().await;
    let (name, role) = (&database.name, format!("role_{}", database.name));
    let sql = database.sql().await;
    sql.batch_execute(&format!(
        "create role {role} login; grant create on database {name} to {role}"
    ))
    .await
    .unwrap();
    let url = format!("host={} user={role} dbname={name}", database.socket_dir.display());
    let (mut broker, endpoint) =
        Trunkline::serve(&["--listen", "127.0.0.1:0", "--database-url", &url]).await;
    let end_sessions =
        format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'");
    let list = ["--endpoint", &endpoint, "topic", "list"];
    for (change, words) in [
        (
            "set session_replication_role = replica",
            "permission denied to set parameter \"session_replication_role\" (42501)",
        ),
        ("nologin", "is not permitted to log in (28000)"),
    ] {
        // In two transactions: the change takes effect at the end of its own, and a session that
        // was opened before that would stay.
        sql.batch_execute(&format!("alter role {role} {change}")).await.unwrap();
        sql.batch_execute(&end_sessions).await.unwrap();
        until("a call is refused", async || Trunkline::run(&list).await.code() != 0).await;
        let line = loop {
            let line = soon("a log line", broker.stderr.next_line()).await.unwrap().unwrap();
            if line.contains("hit a database error") && line.contains(words) {
                break line;
            }
        };
        assert!(!line.contains("hook") && !line.contains("db error"), "{line}");
    }
    let undo = format!("alter role {role} reset session_replication_role; alter role {role} login");
    sql.batch_execute(&undo).await.unwrap();
    until("the broker recovers", async || Trunkline::run(&list).await.code() == 0).await;
    broker.kill().await;
}

#[tokio::test]
async fn a_client_reports_which_broker_it_could_not_reach_and_why() {
    let Err(ConnectError::Unreachable { endpoint, reason }) =
        Client::connect("http://127.0.0.1:1,http://127.0.0.1:2").await
    else {
        panic!("unreachable expected");
    };
    assert_eq!(endpoint, "http://127.0.0.1:1,http://127.0.0.1:2");
    for endpoint in ["http://127.0.0.1:1", "http://127.0.0.1:2"] {
        assert!(reason.contains(&format!("{endpoint}: Connection refused")), "{reason}");
    }

    let broker = TestBroker::start().await;
    let client = Client::connect(&broker.endpoint).await.unwrap();
    broker.stop().await;
    let mut text = String::new();
    until("the connection is broken", async || {
        let request = trunkline::proto::ListTopicsRequest::default();
        let status = client.topics().list_topics(request).await.unwrap_err();
        text = trunkline::client::explain(&status);
        text.contains("the connection to the broker is broken: Connection refused")
    })
    .await;
}
