//! No secret and no payload is in a log, an error, the audit, or what a list of processes shows. Secrets
//! are planted, every call is driven to success and to failure, and everything that can be seen is
//! searched for them.

mod search;

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use base64::Engine as _;
use prost::Message as _;
use tokio::process::Command;
use tokio_postgres::Client as Sql;
use tokio_util::task::AbortOnDropHandle;
use trunkline::{
    client::{Client, Commit, Start, Stop},
    proto,
};

use crate::{
    access_matrix::table::{Call, Names, paths, table},
    support::{
        Authority, RawClient, TestDatabase, TlsFolder, Trunkline, connect,
        http::{get, http_address},
        soon, until,
    },
};

use search::{Secret, Seen};

const PASSWORD: &str = "planted-password-of-the-database";
const PAYLOAD: &str = "planted-payload";
const KEY: &str = "planted-key";
const HEADER: &str = "planted-header";
const VALUE: &str = "planted-value";
const METADATA: &str = "planted-metadata";
const INPUT: &str = "planted-line-of-input";
const MALFORMED: &str = "planted-malformed-token";
const WRONG: &str = "tlk_aaaaaaaaaaaa_plantedsecretofatokenthatdoesnotexistany000";

/// The key of RFC 7515, A.3, and a token that it signed, which has expired.
const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256",
    "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
const JWT: [&str; 3] = [
    "eyJhbGciOiJFUzI1NiJ9",
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
];

/// Starts a broker at its most verbose, whose log is seen. It is killed when the handle is dropped.
/// Returns where it serves gRPC and HTTP, too.
async fn broker(
    seen: &Seen,
    arguments: &[&str],
    scheme: &str,
) -> (AbortOnDropHandle<()>, String, String) {
    let filter = "trace,h2=trace,hyper=trace,tonic=trace,rustls=trace,tokio_postgres=trace";
    let arguments = [arguments, &["--http", "127.0.0.1:0"]].concat();
    let (mut broker, endpoint) = Trunkline::serve_with_log(filter, &arguments).await;
    let http = http_address(&mut broker, scheme).await;
    let seen = seen.clone();
    let log = tokio::spawn(async move {
        // Moved in as a whole, as dropping it kills the broker.
        let mut broker = broker;
        while let Ok(Some(line)) = broker.stderr.next_line().await {
            seen.add("the broker's log", line);
        }
    });
    (AbortOnDropHandle::new(log), endpoint, http)
}

/// Makes a call. Its status is seen; a message of its answer is for its caller.
async fn call(seen: &Seen, client: &RawClient, path: &str, token: &str, body: &[u8]) {
    let headers = [
        ("authorization", format!("Bearer {token}")),
        ("x-planted", METADATA.to_owned()),
        ("x-request-id", "seven".to_owned()),
    ];
    let answer = soon(path, client.call(path, &headers, &[body])).await;
    if let Some(status) = answer.status {
        seen.add(format!("the status of {path}"), format!("{status:?}"));
        seen.add(format!("the status of {path}"), status.message());
        seen.add(format!("the details of {path}"), status.details());
    }
}

fn publish(topic: &str) -> proto::PublishRequest {
    let message = proto::NewMessage::new(PAYLOAD).with_key(KEY).with_header(HEADER, VALUE);
    proto::PublishRequest {
        topic: topic.to_owned(),
        producer_id: "p".to_owned(),
        messages: vec![message],
        ..Default::default()
    }
}

/// A new topic that a call may use or delete, with the producer `p`, the consumer `c` and a message.
async fn topic(sql: &Sql, name: &str) {
    let create = format!(
        "with topic as (insert into trunkline.topic (name) values ('{name}') returning id),
              head as (insert into trunkline.topic_head (topic_id) select id from topic)
         select 1 from topic;
         insert into trunkline.producer_topic (topic_id, producer_id, owner)
         select id, 'p', 'admin' from trunkline.topic where name = '{name}';
         insert into trunkline.consumer_topic (topic_id, consumer_id, position, owner)
         select id, 'c', 0, 'admin' from trunkline.topic where name = '{name}'"
    );
    sql.batch_execute(&create).await.unwrap();
}

/// Makes every call: as it should be, with wrong tokens, with broken requests, and with one too large.
async fn drive_every_call(seen: &Seen, endpoint: &str, token: &str, sql: &Sql) {
    let client = RawClient::connect(endpoint).await;
    let calls = table();
    for path in paths().iter().filter(|path| path.starts_with("trunkline.")) {
        let Call { request, .. } = &calls[path.as_str()];
        let name = path.replace('/', ".");
        topic(sql, &name).await;
        let names = Names { topic: name.clone(), token_id: "aaaaaaaaaaaa".to_owned() };
        let request = match path.contains("/Publish") {
            true => publish(&name).encode_to_vec(),
            false => request(&names),
        };
        for wrong in [WRONG, MALFORMED, &JWT.join("."), &JWT[..2].join(".")] {
            call(seen, &client, path, wrong, &request).await;
        }
        // A field 1 that is a text and is not UTF-8, and what is no message at all.
        let mut not_utf8 = vec![0x0a, PAYLOAD.len() as u8 + 1, 0xff];
        not_utf8.extend(PAYLOAD.as_bytes());
        call(seen, &client, path, token, &not_utf8).await;
        call(seen, &client, path, token, PAYLOAD.as_bytes()).await;
        call(seen, &client, path, token, PAYLOAD.repeat(20_000).as_bytes()).await;
        call(seen, &client, path, token, &request).await;
    }
}

/// Makes every call once more, whatever comes of it.
async fn drive_failing_calls(seen: &Seen, endpoint: &str, token: &str) {
    let client = RawClient::connect(endpoint).await;
    let calls = table();
    for path in paths().iter().filter(|path| path.starts_with("trunkline.")) {
        let names = Names { topic: "orders".to_owned(), token_id: "aaaaaaaaaaaa".to_owned() };
        let request = match path.contains("/Publish") {
            true => publish("orders").encode_to_vec(),
            false => (calls[path.as_str()].request)(&names),
        };
        call(seen, &client, path, token, &request).await;
    }
}

/// Publishes and consumes by the library, and calls with a token that does not exist.
async fn drive_the_library(seen: &Seen, endpoint: &str, token_file: &Path, ca: &str) {
    let builder = Client::builder(endpoint).ca_certificate(ca);
    let client = builder.clone().token_file(token_file).connect().await.unwrap();
    seen.add("the client", format!("{client:?}"));
    let producer = client.producer("orders", "library").register().open().await.unwrap();
    let message = proto::NewMessage::new(PAYLOAD).with_key(KEY).with_header(HEADER, VALUE);
    producer.publish(message.clone()).await.unwrap();
    let large = proto::NewMessage::new(PAYLOAD.repeat(100_000)).with_key(KEY);
    let error = producer.publish(large).await.unwrap_err();
    seen.add("the library's error", format!("{error} {error:?}"));
    producer.close().await.unwrap();
    let consumer = client.consumer("orders", "library", Commit::Auto).register_at(Start::Earliest);
    let mut consumer = consumer.stop(Stop::CaughtUp).open().await.unwrap();
    while let Some(event) = soon("an event", consumer.next_event()).await {
        if let Err(error) = event {
            seen.add("the library's error", format!("{error} {error:?}"));
        }
    }
    for token in [WRONG, MALFORMED, "planted-malformed-token\u{e4}\n"] {
        let builder = builder.clone().token(token);
        seen.add("the builder", format!("{builder:?}"));
        match builder.connect().await {
            Ok(client) => {
                let producer = client.producer("orders", "library").open().await;
                let error = producer.err().unwrap();
                seen.add("the library's error", format!("{error} {error:?}"));
            }
            Err(error) => seen.add("the library's error", format!("{error} {error:?}")),
        }
    }
}

/// Runs a command, and adds what it says. Only what is meant to be printed is left out.
async fn command(seen: &Seen, arguments: &[&str], input: &str, shows: bool) {
    let finished = Trunkline::run_with_input(arguments, input.as_bytes()).await;
    seen.add(format!("stderr of {arguments:?}"), &finished.stderr);
    if !shows {
        seen.add(format!("stdout of {arguments:?}"), &finished.stdout);
    }
}

/// The library's own lines, for a program that logs everything of it.
#[derive(Clone)]
struct Lines(Seen);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.add("the library's log", bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_is_secret_is_seen_nowhere() {
    let seen = Seen::default();
    // The test has one thread, so this is the log of all of its tasks.
    let lines = Lines(seen.clone());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("trunkline=trace,audit=trace")
        .with_writer(move || lines.clone())
        .finish();
    let _log = tracing::subscriber::set_default(subscriber);

    let database = Arc::new(TestDatabase::create().await);
    let root = trunkline::server::bootstrap(&database.url).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let separator = if database.url.contains('?') { '&' } else { '?' };
    let url = file("url", &format!("{}{separator}password={PASSWORD}", database.url));
    let broken = file("broken", &format!("postgresql://u:{PASSWORD}@h:port/d"));
    let (keys, token) = (file("keys.json", JWKS), file("token", &root));
    let wrong = file("wrong", WRONG);
    let authority = Authority::new();
    let tls = TlsFolder::new(&authority);
    let (ca, certificate) = (file("ca.pem", &authority.pem()), tls.flags());

    let common = [
        "--listen",
        "127.0.0.1:0",
        "--database-url-file",
        &url,
        "--auth",
        "required",
        "--jwt-issuer",
        "joe",
        "--jwt-audience",
        "trunkline",
        "--jwt-keys",
        &keys,
        "--drain-timeout",
        "1s",
    ];
    let (_plain, endpoint, http) = broker(&seen, &common, "http").await;
    let certificate: Vec<&str> = certificate.iter().map(String::as_str).collect();
    let (_encrypted, secure, _) =
        broker(&seen, &[&common[..], &certificate].concat(), "https").await;
    let secure = secure.replace("http://", "https://");
    let sql = database.sql().await;
    for operation in ["publish", "consume"] {
        let grant = ["grant", "add", "admin", operation, "*", "--endpoint", &endpoint];
        command(&seen, &[&grant[..], &["--token-file", &token]].concat(), "", false).await;
    }
    topic(&sql, "orders").await;

    drive_every_call(&seen, &endpoint, &root, &sql).await;
    // The list of grants comes from the database, which the other broker asks for news once a second.
    until("the other broker knows the grants", async || {
        let who = ["--endpoint", &secure, "--ca-file", &ca, "--token-file", &token];
        let consume =
            ["consume", "orders", "--consumer", "probe", "--register", "--until-caught-up"];
        Trunkline::run(&[&consume[..], &who].concat()).await.code() == 0
    })
    .await;
    drive_the_library(&seen, &secure, Path::new(&token), &authority.pem()).await;
    let here = ["--endpoint", &secure, "--ca-file", &ca, "--token-file"];
    for (who, words, shows) in [
        ("right", &["produce", "orders", "--producer", "till", "--register", "-"][..], false),
        ("right", &["produce", "orders", "--producer", "till", "--json", "-"], false),
        ("wrong", &["produce", "orders", "--producer", "till", "-"], false),
        (
            "right",
            &["consume", "orders", "--consumer", "k", "--register", "--until-caught-up"],
            true,
        ),
        ("wrong", &["consume", "orders", "--consumer", "k", "--until-caught-up"], true),
        ("right", &["topic", "read", "orders"], true),
        ("right", &["topic", "describe", "orders"], false),
        ("right", &["token", "create", "shop"], true),
        ("right", &["token", "list"], false),
        ("right", &["audit", "list", "-o", "json"], false),
        ("right", &["whoami"], false),
        ("wrong", &["whoami"], false),
        ("wrong", &["topic", "delete", "orders"], false),
    ] {
        let file = if who == "wrong" { &wrong } else { &token };
        let arguments = [&here[..], &[file.as_str()], words].concat();
        command(&seen, &arguments, &format!("{INPUT}\n"), shows).await;
    }
    for words in [
        &["serve", "--database-url-file", &broken][..],
        &["migrate", "--database-url-file", &broken],
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--jwt-keys",
            &wrong,
            "--jwt-issuer",
            "joe",
            "--jwt-audience",
            "t",
            "--auth",
            "required",
            "--database-url-file",
            &url,
        ],
        &["serve", "--listen", "127.0.0.1:0", "--tls-cert", &ca, "--tls-key", &wrong],
        &["token", "bootstrap", "--database-url-file", &url],
    ] {
        command(&seen, words, "", false).await;
    }
    seen.add_processes();

    let headers = [("Host", "localhost"), ("Authorization", &*format!("Bearer {MALFORMED}"))];
    for path in ["/metrics", "/readyz", "/nothing"] {
        seen.add("an answer over HTTP", get(&http, path, &headers).await.body);
    }

    // The database refuses rows, and quotes them in its errors.
    let refuse = "alter table trunkline.batch add constraint refused check (false) not valid";
    sql.batch_execute(refuse).await.unwrap();
    drive_failing_calls(&seen, &endpoint, &root).await;
    sql.batch_execute("alter table trunkline.batch drop constraint refused").await.unwrap();
    // Then it is away.
    let elsewhere = database.url.replacen(&database.name, "postgres", 1);
    let elsewhere = connect(&elsewhere).await;
    let name = &database.name;
    drop(sql);
    let close = format!("alter database {name} allow_connections false");
    elsewhere.batch_execute(&close).await.unwrap();
    let end =
        format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
    elsewhere.batch_execute(&end).await.unwrap();
    drive_failing_calls(&seen, &endpoint, &root).await;
    let open = format!("alter database {name} allow_connections true");
    elsewhere.batch_execute(&open).await.unwrap();

    let who = ["--endpoint", &endpoint, "--token-file", &token];
    until("the broker works again", async || {
        let create = [&who[..], &["topic", "create", "the-last-topic"]].concat();
        let created = Trunkline::run(&create).await;
        created.code() == 0 || created.stderr.contains("TOPIC_EXISTS")
    })
    .await;
    let sql = database.sql().await;
    until("denied calls are recorded", async || {
        // The few rows of an address show each reason.
        let found = "select from trunkline.audit where reason = 'TOKEN_MALFORMED'";
        !sql.query(found, &[]).await.unwrap().is_empty()
    })
    .await;
    for row in sql.query("select audit::text from trunkline.audit", &[]).await.unwrap() {
        seen.add("the audit", row.get::<_, &str>(0));
    }
    for row in sql.query("select t::text from trunkline.access_token t", &[]).await.unwrap() {
        seen.add("the tokens", row.get::<_, &str>(0));
    }
    until("the last line is logged", async || seen.has("the-last-topic")).await;
    seen.add_processes();

    let private = fs::read_to_string(tls.path("key.pem")).unwrap();
    let mut secrets = vec![
        Secret::new("the database's password", PASSWORD),
        Secret::new("a payload", PAYLOAD),
        Secret::new("a key", KEY),
        Secret::new("a header's name", HEADER),
        Secret::new("a header's value", VALUE),
        Secret::new("metadata", METADATA),
        Secret::new("a line of input", INPUT),
        Secret::new("a malformed token", MALFORMED),
        Secret::new("a token that does not exist", &WRONG[17..]),
        Secret::new("the administrator's token", &root[17..]),
        Secret::new("a JWT's claims", JWT[1]),
        Secret::new("a JWT's signature", JWT[2]),
        Secret::new("the private key", private.lines().nth(1).unwrap()),
    ];
    let payload = base64::engine::general_purpose::STANDARD.encode(PAYLOAD);
    secrets.push(Secret::new("a payload in base64", payload.trim_end_matches('=')));
    let leaks = seen.leaks(&secrets);
    assert!(leaks.is_empty(), "{leaks:#?}");
    // What was searched has the lines that could have leaked.
    for line in [
        "TRACE",
        "TOKEN_MALFORMED",
        "audit: created a topic",
        "orders",
        "hit a database error",
        "trunkline_refusals_total",
    ] {
        assert!(seen.has(line), "{line} was not seen");
    }
}

/// The search itself can fail: it finds what is planted in each of the places.
#[tokio::test]
async fn the_search_finds_what_is_planted() {
    let secret = [Secret::new("it", "planted-to-be-found")];
    assert!(Seen::default().is_empty() && Seen::default().leaks(&secret).is_empty());
    let bytes = secret[0].text.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    for text in [
        format!("a log line with {} in it", secret[0].text),
        format!("{bytes:?}"),
        format!("Failing row contains (\\x{hex})"),
    ] {
        let seen = Seen::default();
        seen.add("a log", &text);
        assert_eq!(seen.leaks(&secret).len(), 1, "{text}");
    }
    let mut child = Command::new("sh");
    child.args(["-c", "read line", "planted-to-be-found"]).env("PLANTED", "planted-in-environment");
    let mut child = child.stdin(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let environment = [Secret::new("it", "planted-in-environment")];
    // A new process has its own only once it has begun to run the command.
    until("a process is found", async || {
        let seen = Seen::default();
        seen.add_processes();
        let own = |leak: &String| leak.contains(&format!("/proc/{}/", child.id().unwrap()));
        seen.leaks(&secret).iter().any(own) && seen.leaks(&environment).iter().any(own)
    })
    .await;
    tokio::time::timeout(Duration::from_secs(5), child.kill()).await.unwrap().unwrap();
}
