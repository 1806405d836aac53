//! TLS to clients: who can connect, and what happens when certificates change.

use std::{os::unix::fs::symlink, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};
use trunkline::{
    client::{Client, ConnectError},
    proto,
};

use crate::support::{Authority, TestDatabase, TlsFolder, Trunkline, message, soon, until};

/// A broker that uses TLS, and its database.
struct TlsBroker {
    process: Trunkline,
    endpoint: String,
    _database: TestDatabase,
}

impl TlsBroker {
    async fn start(folder: &TlsFolder, flags: &[&str]) -> Self {
        let database = TestDatabase::create().await;
        let tls = folder.flags();
        let mut arguments = vec!["--listen", "127.0.0.1:0", "--database-url", &database.url];
        arguments.extend(tls.iter().map(String::as_str));
        arguments.extend(flags);
        let (process, endpoint) = Trunkline::serve_with_log("info", &arguments).await;
        let endpoint = endpoint.replace("http://", "https://");
        Self { process, endpoint, _database: database }
    }

    async fn connect(&self, authority: &Authority) -> Result<Client, ConnectError> {
        Client::builder(&self.endpoint).ca_certificate(authority.pem()).connect().await
    }

    fn address(&self) -> &str {
        self.endpoint.strip_prefix("https://").unwrap()
    }
}

async fn create_topic(client: &Client, topic: &str) -> Result<(), tonic::Status> {
    let request = proto::CreateTopicRequest { topic: topic.to_owned(), ..Default::default() };
    client.topics().create_topic(request).await.map(drop)
}

async fn publish(client: &Client, topic: &str, payload: &'static str) {
    let request = proto::RegisterProducerRequest {
        topic: topic.to_owned(),
        producer_id: "shop".to_owned(),
        ..Default::default()
    };
    client.producers().register_producer(request).await.unwrap();
    let request = proto::PublishRequest {
        topic: topic.to_owned(),
        producer_id: "shop".to_owned(),
        messages: vec![message(payload)],
        ..Default::default()
    };
    client.producers().publish(request).await.unwrap();
}

/// A TLS connection of which the test chooses the details.
async fn raw_tls(
    broker: &TlsBroker,
    authority: &Authority,
    versions: &[&'static rustls::SupportedProtocolVersion],
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(broker.address()).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    soon("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

#[tokio::test]
async fn only_clients_that_use_tls_and_trust_the_authority_connect() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let folder = TlsFolder::new(&authority);
    let mut broker = TlsBroker::start(&folder, &[]).await;
    let client = broker.connect(&authority).await.unwrap();
    create_topic(&client, "orders").await.unwrap();
    publish(&client, "orders", "first").await;

    let error = broker.connect(&stranger).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let line = broker.process.log_line("refuse TLS connections").await;
    assert!(line.contains("received fatal alert"), "{line}");
    let plain = broker.endpoint.replace("https://", "http://");
    assert!(is_refused(Client::connect(&plain).await).await);
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_and_only_for_http2() {
    use rustls::version::{TLS12, TLS13};
    let authority = Authority::new();
    let folder = TlsFolder::new(&authority);
    let broker = TlsBroker::start(&folder, &[]).await;
    for version in [&TLS12, &TLS13] {
        let stream = raw_tls(&broker, &authority, &[version], &["http/1.1", "h2"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        assert!(raw_tls(&broker, &authority, &[version], &["http/1.1"]).await.is_err());
    }
    // Without a protocol the handshake succeeds, and the broker then closes the connection.
    let mut stream = raw_tls(&broker, &authority, &[&TLS13], &[]).await.unwrap();
    let mut rest = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
    let _ = soon("the end of the connection", reading).await;
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn changed_certificates_serve_new_clients_while_open_streams_go_on() {
    let (old, new) = (Authority::new(), Authority::new());
    // As in Kubernetes: the files are links into a folder that a link names, which is replaced.
    let folder = TlsFolder::new(&old);
    let (first, second) = (TlsFolder::new(&old), TlsFolder::new(&new));
    symlink(first.path("."), folder.path("..data")).unwrap();
    for name in ["cert.pem", "key.pem"] {
        std::fs::remove_file(folder.path(name)).unwrap();
        symlink(format!("..data/{name}"), folder.path(name)).unwrap();
    }
    let broker = TlsBroker::start(&folder, &[]).await;
    let client = broker.connect(&old).await.unwrap();
    create_topic(&client, "orders").await.unwrap();
    let consumer_id = "billing".to_owned();
    let request = proto::RegisterConsumerRequest {
        topic: "orders".to_owned(),
        consumer_id: consumer_id.clone(),
        ..Default::default()
    };
    client.consumers().register_consumer(request).await.unwrap();
    let request =
        proto::ConsumeRequest { topic: "orders".to_owned(), consumer_id, ..Default::default() };
    let mut stream = client.consumers().consume(request).await.unwrap().into_inner();

    symlink(second.path("."), folder.path("..new")).unwrap();
    std::fs::rename(folder.path("..new"), folder.path("..data")).unwrap();
    until("new clients get the new certificate", async || broker.connect(&new).await.is_ok()).await;
    assert!(broker.connect(&old).await.is_err());
    publish(&broker.connect(&new).await.unwrap(), "orders", "after the change").await;
    soon("a message on the old stream", async {
        loop {
            let frame = stream.message().await.unwrap().expect("the stream goes on");
            if format!("{frame:?}").contains("after the change") {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_broken_new_certificate_is_named_and_leaves_the_one_in_use() {
    let authority = Authority::new();
    let folder = TlsFolder::new(&authority);
    let mut broker = TlsBroker::start(&folder, &[]).await;
    folder.write("cert.pem", "no certificate");
    let line = broker.process.log_line("keep the TLS certificates in use").await;
    assert!(line.contains("--tls-cert") && line.contains("cert.pem"), "{line}");
    broker.connect(&authority).await.unwrap();
    folder.write("cert.pem", &authority.sign("127.0.0.1").certificate);
    let line = broker.process.log_line("keep the TLS certificates in use").await;
    assert!(line.contains("--tls-key") && line.contains("it is not the key of"), "{line}");
    broker.connect(&authority).await.unwrap();
    folder.write_identity(&authority.sign("127.0.0.1"));
    broker.process.log_line("loaded the TLS certificates again").await;
    broker.connect(&authority).await.unwrap();
}

#[tokio::test]
async fn certificates_that_cannot_be_used_end_the_start() {
    let authority = Authority::new();
    let folder = TlsFolder::new(&authority);
    folder.write("other-key.pem", &authority.sign("127.0.0.1").key);
    folder.write("empty.pem", "");
    folder.write("cut.pem", &folder_text(&folder, "cert.pem")[..100]);
    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    for (cert, key, ca, option, file, problem) in [
        (&cert, &path("missing.pem"), None, "--tls-key", "missing.pem", "No such file"),
        (&path("missing.pem"), &key, None, "--tls-cert", "missing.pem", "No such file"),
        (&cert, &path("other-key.pem"), None, "--tls-key", "other-key.pem", "not the key of"),
        (&cert, &path("cert.pem"), None, "--tls-key", "cert.pem", "no private key in PEM"),
        (&path("empty.pem"), &key, None, "--tls-cert", "empty.pem", "no certificate in PEM"),
        (&path("cut.pem"), &key, None, "--tls-cert", "cut.pem", ""),
        (&path("."), &key, None, "--tls-cert", "", "it is not a file"),
        (&cert, &key, Some("empty.pem"), "--tls-client-ca", "empty.pem", "no certificate in PEM"),
    ] {
        let mut arguments = vec!["serve", "--tls-cert", cert, "--tls-key", key];
        let ca = ca.map(path);
        arguments.extend(ca.iter().flat_map(|ca| ["--tls-client-ca", ca]));
        let finished = Trunkline::run(&arguments).await;
        assert_eq!(finished.code(), 1, "{finished:?}");
        let error = finished.stderr.lines().last().unwrap();
        let expected = format!("trunkline: load {option} ");
        assert!(error.starts_with(&expected), "{error}");
        assert!(error.contains(file) && error.contains(problem), "{error}");
    }
}

fn folder_text(folder: &TlsFolder, name: &str) -> String {
    std::fs::read_to_string(folder.path(name)).unwrap()
}

#[tokio::test]
async fn tls_options_that_belong_together_are_asked_for() {
    for (given, missing) in [
        (&["--tls-cert", "cert.pem"][..], "--tls-key"),
        (&["--tls-key", "key.pem"], "--tls-cert"),
        (&["--tls-client-ca", "ca.pem"], "--tls-cert"),
        (&["--tls-client-auth", "optional"], "--tls-client-ca"),
    ] {
        let finished = Trunkline::run(&[&["serve"], given].concat()).await;
        assert_eq!(finished.code(), 2, "{finished:?}");
        assert!(finished.stderr.contains(missing), "{finished:?}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_warned_of() {
    let authority = Authority::new();
    let folder = TlsFolder::new(&authority);
    folder.write_identity(&authority.sign_expired("127.0.0.1"));
    let mut broker = TlsBroker::start(&folder, &[]).await;
    let line = broker.process.log_line("expired").await;
    assert!(line.contains("WARN") && line.contains("cert.pem"), "{line}");
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_client_authority_connect() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let folder = TlsFolder::new(&servers);
    folder.write("clients.pem", &clients.pem());
    let ca = folder.path("clients.pem");
    let mut broker = TlsBroker::start(&folder, &["--tls-client-ca", ca.to_str().unwrap()]).await;
    let endpoint = broker.endpoint.clone();
    let as_client = async |authority: &Authority| {
        let identity = authority.sign("billing.example");
        let builder = Client::builder(&endpoint).ca_certificate(servers.pem());
        builder.identity(identity.certificate, identity.key).connect().await
    };
    assert!(is_refused(broker.connect(&servers).await).await);
    assert!(is_refused(as_client(&servers).await).await);
    let client = as_client(&clients).await.unwrap();
    create_topic(&client, "orders").await.unwrap();
    // The broker knows who it is.
    broker.process.log_line(r#""certificate":"billing.example""#).await;

    // Another authority takes the place of the first one, for new connections.
    let others = Authority::new();
    folder.write("clients.pem", &others.pem());
    until("the new authority counts", async || !is_refused(as_client(&others).await).await).await;
    assert!(is_refused(as_client(&clients).await).await);
    // The connection that was open before is still.
    create_topic(&client, "payments").await.unwrap();
}

/// Whether a client cannot use the broker. With TLS 1.3, it may learn so only when it calls.
async fn is_refused(client: Result<Client, ConnectError>) -> bool {
    let Ok(client) = client else { return true };
    let request = proto::ListTopicsRequest::default();
    soon("an answer", client.topics().list_topics(request)).await.is_err()
}

#[tokio::test]
async fn with_optional_certificates_a_client_needs_none_but_a_wrong_one_is_refused() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let folder = TlsFolder::new(&servers);
    folder.write("clients.pem", &clients.pem());
    let ca = folder.path("clients.pem");
    let flags = ["--tls-client-ca", ca.to_str().unwrap(), "--tls-client-auth", "optional"];
    let broker = TlsBroker::start(&folder, &flags).await;
    assert!(!is_refused(broker.connect(&servers).await).await);
    for (authority, refused) in [(&clients, false), (&servers, true)] {
        let identity = authority.sign("billing.example");
        let builder = Client::builder(&broker.endpoint).ca_certificate(servers.pem());
        let client = builder.identity(identity.certificate, identity.key).connect().await;
        assert_eq!(is_refused(client).await, refused);
    }
}

#[tokio::test]
async fn the_command_says_that_a_port_expects_tls() {
    let folder = TlsFolder::new(&Authority::new());
    let broker = TlsBroker::start(&folder, &[]).await;
    for command in [&["topic", "list"][..], &["health"]] {
        let arguments = [&["--endpoint", broker.address()], command].concat();
        let failed = Trunkline::run(&arguments).await;
        assert_eq!((failed.code(), failed.stderr.lines().count()), (69, 1), "{failed:?}");
        assert!(failed.stderr.contains("begin the endpoint with https://"), "{failed:?}");
    }
}
