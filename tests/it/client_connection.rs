//! How the client library connects: endpoints, tokens, certificates.

use rcgen::{CertificateParams, CertifiedIssuer, Issuer, KeyPair};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use trunkline::client::{Client, Commit, ConnectError};

use crate::support::{ScriptedBroker, soon};

#[tokio::test]
async fn an_invalid_endpoint_is_refused() {
    for bad in ["", "no host", "50051", ":50051", "ftp://a:1", "http://:1", "http://a:1,"] {
        let error = Client::connect(bad).await.unwrap_err();
        assert!(matches!(error, ConnectError::Endpoint { .. }), "{bad}: {error}");
        assert!(error.to_string().contains("http://HOST:PORT"), "{error}");
    }
}

#[tokio::test]
async fn an_endpoint_may_lack_its_scheme() {
    let broker = ScriptedBroker::start().await;
    let address = broker.endpoint.strip_prefix("http://").unwrap();
    let port = address.rsplit_once(':').unwrap().1;
    Client::connect(address).await.unwrap();
    Client::connect(&format!("localhost:{port}")).await.unwrap();
    Client::connect(&format!("127.0.0.1:1,{address}")).await.unwrap();
    // Nothing listens there on the port that is used when none is given.
    let nobody = Client::connect("127.0.0.9").await.unwrap_err();
    assert!(nobody.to_string().contains("http://127.0.0.9:50051"), "{nobody}");
}

#[tokio::test]
async fn https_to_a_port_without_tls_is_named() {
    let broker = ScriptedBroker::start().await;
    let endpoint = broker.endpoint.replace("http://", "https://");
    let error = soon("the error", Client::connect(&endpoint)).await.unwrap_err();
    assert!(error.to_string().contains("does not use TLS"), "{error}");
}

#[tokio::test]
async fn a_client_uses_the_first_broker_that_answers_and_fails_over_to_the_next() {
    let mut first = ScriptedBroker::start().await;
    let mut second = ScriptedBroker::start().await;
    let endpoints = format!("http://127.0.0.1:1, {}, {}", first.endpoint, second.endpoint);
    let client = Client::connect(&endpoints).await.unwrap();
    let _consumer = client.consumer("orders", "billing", Commit::Manual).open().await.unwrap();
    let stream = first.consume().await;
    stream.attach(0, 1).await;
    drop(stream);
    drop(first);
    second.consume().await;

    let nobody = Client::connect("http://127.0.0.1:1,http://127.0.0.1:2").await.unwrap_err();
    let ConnectError::Unreachable { endpoint, reason } = nobody else { panic!("{nobody}") };
    assert_eq!(endpoint, "http://127.0.0.1:1,http://127.0.0.1:2");
    assert!(reason.contains("; http://127.0.0.1:2: "), "{reason}");
}

#[tokio::test]
async fn a_token_is_sent_with_every_call() {
    let broker = ScriptedBroker::start().await;
    let client = Client::builder(&broker.endpoint).token("secret").connect().await.unwrap();
    client.producer("orders", "shop").open().await.unwrap();
    let authorization = broker.state.authorization.lock().unwrap().clone();
    assert_eq!(authorization.as_deref(), Some("Bearer secret"));
    assert!(!format!("{client:?}").contains("secret"), "a token must not reach a log");
    let bad = Client::builder(&broker.endpoint).token("sec\nret").connect().await.unwrap_err();
    assert!(bad.to_string().starts_with("use the token: "), "{bad}");
    assert!(!bad.to_string().contains("ret"), "{bad}");
}

#[tokio::test]
async fn a_token_is_not_sent_unencrypted_over_a_network() {
    let token_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token_file.path(), "secret").unwrap();
    for distant in [
        "http://10.0.0.1:50051",
        "http://broker.example:50051",
        "http://127.0.0.1@broker.example:50051",
        "http://[2001:db8::1]:50051",
        "http://0.0.0.0:50051",
        "http://127.0.0.1:1,http://10.0.0.1:50051",
    ] {
        let builder = || Client::builder(distant);
        for builder in [builder().token("secret"), builder().token_file(token_file.path())] {
            for error in [builder.check().unwrap_err(), builder.connect().await.unwrap_err()] {
                let ConnectError::Credentials { what, reason } = &error else { panic!("{error}") };
                assert_eq!(*what, "token");
                assert!(reason.contains("is not encrypted"), "{reason}");
                assert!(!reason.contains("secret"), "{reason}");
            }
        }
        builder().check().unwrap();
    }
    for near in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "https://a:1"] {
        Client::builder(near).token("secret").check().unwrap();
    }
}

#[tokio::test]
async fn a_token_file_that_holds_no_token_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let refused = || {
        let error = Client::builder("http://127.0.0.1:1").token_file(&path).check().unwrap_err();
        assert!(matches!(error, ConnectError::Credentials { what: "token file", .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        text
    };
    assert!(refused().contains("No such file"));
    for (content, problem) in [
        (&b" \n"[..], "it is empty"),
        (b"sec\nret", "not allowed in a header"),
        (&[b'x'; 10_000], "more than 8192 bytes"),
        (b"\xff", "UTF-8"),
    ] {
        std::fs::write(&path, content).unwrap();
        let text = refused();
        assert!(text.contains(problem), "{text}");
    }
    let empty = Client::builder("http://127.0.0.1:1").token("\n").check().unwrap_err();
    assert_eq!(empty.to_string(), "use the token: it is empty");
}

/// A broker that requires certificates, the CA's certificate, and a client's certificate and key.
async fn encrypted() -> (ScriptedBroker, String, (String, String)) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca: CertifiedIssuer<'_, KeyPair> = CertifiedIssuer::self_signed(ca, ca_key).unwrap();
    let signed = |issuer: &Issuer<'_, KeyPair>, name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
    };
    let (certificate, key) = signed(&ca, "localhost");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(ca.pem()));
    let server = Server::builder().tls_config(tls).unwrap();
    let broker = ScriptedBroker::start_with(server, "https", "localhost").await;
    let client = signed(&ca, "client");
    (broker, ca.pem(), client)
}

#[tokio::test]
async fn an_encrypted_connection_authenticates_both_sides() {
    let (mut broker, ca, (certificate, key)) = encrypted().await;
    let client = Client::builder(&broker.endpoint)
        .ca_certificate(&ca)
        .identity(&certificate, &key)
        .connect()
        .await
        .unwrap();
    client.producer("orders", "shop").open().await.unwrap();
    // A consumer has its own connection, which is encrypted, too.
    let _consumer = client.consumer("orders", "billing", Commit::Manual).open().await.unwrap();
    broker.consume().await;

    let stranger = Client::builder(&broker.endpoint).identity(&certificate, &key).connect().await;
    let error = stranger.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    let plain = Client::builder("http://127.0.0.1:1").ca_certificate(&ca).connect().await;
    let error = plain.unwrap_err();
    assert!(error.to_string().contains("must begin with https://"), "{error}");
    let nonsense = Client::builder(&broker.endpoint).ca_certificate(ca).identity("no", "key");
    let error = soon("the error", nonsense.connect()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Credentials { what: "certificates", .. }), "{error:?}");
}
