//! The HTTP port: who may ask it, and whether the broker is well.

use std::sync::Arc;

use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};
use trunkline::server;

use crate::support::{
    Authority, Finished, TestDatabase, TlsFolder, Trunkline,
    http::{Answer, HttpBroker, Metrics, get, get_over, http_address},
    soon, until,
};

#[tokio::test]
async fn a_broker_says_that_it_lives_and_is_ready() {
    let broker = HttpBroker::start(&[]).await;
    let live = broker.get("/livez").await;
    assert_eq!((live.status, &*live.body), (200, "ok\n"));
    let ready = broker.get("/readyz").await;
    assert_eq!((ready.status, &*ready.body), (200, "[+] database answers\n[+] accepts calls\n"));
    assert_eq!(broker.get("/nothing").await.status, 404);
}

#[tokio::test]
async fn a_broker_without_its_database_lives_and_is_not_ready() {
    let broker = HttpBroker::start(&[]).await;
    let database = broker.calls.database.clone();
    assert_eq!(broker.metrics().await.value("trunkline_topics"), 0.0);
    database.close().await;
    until("the broker is not ready", async || broker.get("/readyz").await.status == 503).await;
    let ready = broker.get("/readyz").await;
    assert_eq!(&*ready.body, "[-] database does not answer\n[+] accepts calls\n");
    assert_eq!(broker.get("/livez").await.status, 200);
    // What was read a moment ago may still be shown.
    let absent = async || broker.metrics().await.get("trunkline_topics").is_none();
    until("the metrics have no topics", absent).await;
    let metrics = broker.metrics().await;
    assert_eq!(metrics.value("trunkline_database_up"), 0.0);
    assert!(metrics.value("trunkline_catalogue_age_seconds") > 0.0);
    database.open().await;
    until("the broker is ready", async || broker.get("/readyz").await.status == 200).await;
    let metrics = async || broker.metrics().await.get("trunkline_topics") == Some(0.0);
    until("the metrics have topics again", metrics).await;
}

#[tokio::test]
async fn pages_of_other_hosts_do_not_read_the_metrics_of_this_one() {
    let broker = HttpBroker::start(&["--http-host", "broker.internal,second.internal"]).await;
    let (port, with_port) = (broker.http.rsplit_once(':').unwrap().1, broker.http.clone());
    for host in ["localhost", "127.0.0.1", "[::1]:8080", &with_port, "Second.internal"] {
        assert_eq!(get(&broker.http, "/metrics", &[("Host", host)]).await.status, 200, "{host}");
    }
    let evil = format!("evil.example:{port}");
    for headers in [&[("Host", &*evil)][..], &[("Host", "localhost.evil.example")], &[]] {
        let refused = get(&broker.http, "/metrics", headers).await;
        assert_eq!(refused.status, 421, "{headers:?}");
        assert!(refused.body.contains("--http-host"), "{refused:?}");
        assert!(!refused.body.contains("trunkline_"), "{refused:?}");
    }
    // Probes may use any name.
    assert_eq!(get(&broker.http, "/readyz", &[("Host", &*evil)]).await.status, 200);
}

#[tokio::test]
async fn a_port_that_is_in_use_is_one_clear_line() {
    let broker = HttpBroker::start(&[]).await;
    let url = broker.calls.database.url.clone();
    let start = ["serve", "--listen", "127.0.0.1:0", "--database-url", &url, "--log", "error"];
    let finished = Trunkline::run(&[&start[..], &["--http", &broker.http]].concat()).await;
    assert_eq!(finished.code(), 1, "{finished:?}");
    let expected = format!("trunkline: listen on {} for HTTP: ", broker.http);
    assert!(finished.stderr.starts_with(&expected), "{finished:?}");
    assert!(finished.stderr.ends_with("give --http another address, or off\n"), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_with_what_is_right() {
    for wrong in ["8080", "localhost", "on", ""] {
        let finished = Trunkline::run(&["serve", "--http", wrong]).await;
        assert_eq!(finished.code(), 2, "{finished:?}");
        let stderr = &finished.stderr;
        assert!(stderr.contains("--http"), "{stderr}");
    }
    let finished = Trunkline::run(&["serve", "--http", "8080"]).await;
    assert!(finished.stderr.contains("such as 127.0.0.1:8080, or off"), "{finished:?}");
    for wrong in ["0", "1000001", "x"] {
        let finished = Trunkline::run(&["serve", "--metrics-max-series", wrong]).await;
        assert_eq!(finished.code(), 2, "{finished:?}");
    }
}

/// A broker that other hosts could ask, with TLS and authentication.
struct SecuredHttp {
    _process: Trunkline,
    endpoint: String,
    http: String,
    root: String,
    authority: Authority,
    folder: TlsFolder,
    database: TestDatabase,
}

impl SecuredHttp {
    async fn start() -> Self {
        let (authority, database) = (Authority::new(), TestDatabase::create().await);
        let folder = TlsFolder::new(&authority);
        let root = server::bootstrap(&database.url).await.unwrap();
        let tls = folder.flags();
        let mut flags = vec!["--listen", "127.0.0.1:0", "--http", "0.0.0.0:0"];
        flags.extend(["--auth", "required", "--database-url", &database.url]);
        flags.extend(tls.iter().map(String::as_str));
        let (mut process, endpoint) = Trunkline::serve(&flags).await;
        let http = http_address(&mut process, "https").await.replace("0.0.0.0", "127.0.0.1");
        let endpoint = endpoint.replace("http://", "https://");
        folder.write("ca.pem", &authority.pem());
        Self { _process: process, endpoint, http, root, authority, folder, database }
    }

    /// Runs a command as the first administrator; returns what it prints.
    async fn run(&self, arguments: &[&str]) -> String {
        let finished = self.try_run(arguments).await;
        assert_eq!(finished.code(), 0, "{finished:?}");
        finished.stdout.trim().to_owned()
    }

    async fn try_run(&self, arguments: &[&str]) -> Finished {
        let mut command = Trunkline::command(arguments);
        command
            .env("TRUNKLINE_ENDPOINT", &self.endpoint)
            .env("TRUNKLINE_TOKEN", &self.root)
            .env("TRUNKLINE_CA_FILE", self.folder.path("ca.pem"));
        Trunkline::finish(command).await
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut roots = RootCertStore::empty();
        let pem = self.authority.pem();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(&self.http).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        get_over(stream, path, &[&[("Host", "any.example")], headers].concat()).await
    }
}

#[tokio::test]
async fn other_hosts_need_a_token_for_the_metrics_that_may_read_all_topics() {
    let broker = SecuredHttp::start().await;
    assert_eq!(broker.get("/livez", &[]).await.status, 200);
    assert_eq!(broker.get("/readyz", &[]).await.status, 200);

    let refused = broker.get("/metrics", &[]).await;
    assert_eq!((refused.status, &*refused.headers["www-authenticate"]), (401, "Bearer"));
    assert!(!refused.body.contains("trunkline_"), "{refused:?}");
    let unknown = broker.get("/metrics", &[("Authorization", "Bearer nonsense")]).await;
    assert_eq!(unknown.status, 401, "{unknown:?}");

    let bearer = |token: &str| format!("Bearer {token}");
    let as_root = [("Authorization", &*bearer(&broker.root))];
    assert_eq!(broker.get("/metrics", &as_root).await.status, 200);

    broker.run(&["grant", "add", "shop", "read", "orders*"]).await;
    broker.run(&["grant", "add", "prometheus", "read", "*"]).await;
    let shop = bearer(&broker.run(&["token", "create", "shop"]).await);
    let prometheus = bearer(&broker.run(&["token", "create", "prometheus"]).await);
    let refused = broker.get("/metrics", &[("Authorization", &*shop)]).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.body.contains("shop") && refused.body.contains('*'), "{refused:?}");
    let allowed = broker.get("/metrics", &[("Authorization", &*prometheus)]).await;
    assert_eq!(allowed.status, 200, "{allowed:?}");
    assert_eq!(Metrics::parse(&allowed.body).value("trunkline_topics"), 0.0);
    let as_prometheus = [("Authorization", prometheus.as_str())];
    // What cannot be written while the database is away is only counted later.
    until("the denied requests are in the audit", async || {
        let audit = broker.run(&["audit", "list", "--output", "json"]).await;
        audit.contains("GET /metrics") && audit.contains("NOT_GRANTED")
    })
    .await;
    broker.database.close().await;
    until("the metrics say that the database is away", async || {
        let answer = broker.get("/metrics", &as_prometheus).await;
        let metrics = Metrics::parse(&answer.body);
        answer.status == 200 && metrics.value("trunkline_database_up") == 0.0
    })
    .await;
    // Also once the copies of tokens and grants are too old for calls.
    until("calls are refused for want of a database", async || {
        broker.try_run(&["whoami"]).await.stderr.contains("DATABASE_UNAVAILABLE")
    })
    .await;
    assert_eq!(broker.get("/metrics", &as_prometheus).await.status, 200);
    broker.database.open().await;
}

#[tokio::test]
async fn plain_connections_and_strange_requests_to_a_port_with_tls_are_closed() {
    let broker = SecuredHttp::start().await;
    let mut stream = TcpStream::connect(&broker.http).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET /livez HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the end", stream.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(broker.get("/livez", &[]).await.status, 200);
}

#[tokio::test]
async fn one_client_cannot_take_all_connections_of_the_port() {
    let broker = HttpBroker::start(&[]).await;
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(TcpStream::connect(&broker.http).await.unwrap());
    }
    let mut refused = TcpStream::connect(&broker.http).await.unwrap();
    let mut byte = [0];
    let read = soon("the end of the last one", refused.read(&mut byte)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    drop(open);
    until("there is room again", async || {
        let mut stream = TcpStream::connect(&broker.http).await.unwrap();
        let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer.starts_with(b"HTTP/1.1 200")
    })
    .await;
}

#[tokio::test]
async fn a_request_head_that_is_too_large_is_refused() {
    let broker = HttpBroker::start(&[]).await;
    let long = "x".repeat(100_000);
    let answer = get(&broker.http, "/livez", &[("Host", "localhost"), ("X-Long", &long)]).await;
    assert_eq!(answer.status, 431);
    assert_eq!(broker.get("/livez").await.status, 200);
}
