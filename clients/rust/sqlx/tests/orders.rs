//! Runs the program beside a broker: clients/with-broker clients/rust/test

use std::{
    env,
    io::Read as _,
    process::{self, Command, Stdio},
    time::{Duration, Instant},
};

use sqlx::{Connection as _, PgConnection};
use tokio::time::sleep;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_is_rolled_back_is_not_published() -> sqlx::Result<()> {
    let url = env::var("TRUNKLINE_DATABASE_URL").expect("set by clients/with-broker");
    // A topic and a schema of the test's own.
    let name = format!("rust_{}", process::id());
    // sqlx wants a host beside a user, although PostgreSQL listens on a socket.
    let url = url.replace("@/", "@localhost/") + "&options[search_path]=" + &name;
    let mut database = PgConnection::connect(&url).await?;
    sqlx::query(&format!("create schema {name}")).execute(&mut database).await?;

    let printed = run(&url, &name).await;
    let events =
        ["1 {\"id\": 1, \"item\": \"one coffee\"}", "3 {\"id\": 3, \"item\": \"three cakes\"}"];
    assert_eq!(printed.lines().collect::<Vec<_>>(), events);
    let published = "select key_text || ' ' || payload_text from trunkline.read($1)";
    let published: Vec<String> =
        sqlx::query_scalar(published).bind(&name).fetch_all(&mut database).await?;
    assert_eq!(published, events);
    let stored = "select id || ' ' || item from orders order by id";
    let stored: Vec<String> = sqlx::query_scalar(stored).fetch_all(&mut database).await?;
    assert_eq!(stored, ["1 one coffee", "3 three cakes"]);
    Ok(())
}

/// Runs the program, and returns what it printed.
async fn run(database_url: &str, topic: &str) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_orders"))
        .args([topic, "billing"])
        .env("DATABASE_URL", database_url)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let began = Instant::now();
    let status = loop {
        if let Some(status) = program.try_wait().expect("the program can be waited for") {
            break status;
        }
        if began.elapsed() > LIMIT {
            program.kill().expect("the program can be killed");
        }
        sleep(Duration::from_millis(20)).await;
    };
    assert!(status.success(), "{status}");
    let mut printed = String::new();
    program.stdout.expect("its output is piped").read_to_string(&mut printed).expect("text");
    printed
}
