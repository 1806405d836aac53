use std::fs;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair as CertificateKey};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, rustls::pki_types::PrivateKeyDer};

use super::*;
use crate::access::jwt::{Algorithm, Expectations};

/// A key with an id, and the tokens that it signs.
struct Signer(&'static str, Ed25519KeyPair);

impl Signer {
    fn new(id: &'static str) -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(id, Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    fn key_set(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.1.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": self.0, "x": x}]}).to_string()
    }

    fn token(&self, principal: &str) -> String {
        let header = json!({"alg": "EdDSA", "kid": self.0}).to_string();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let claims = json!({"iss": "i", "aud": "a", "sub": principal, "exp": now + 600});
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let signed =
            format!("{}.{}", encode(header.as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = encode(self.1.sign(signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    }
}

fn verifier() -> Verifier {
    Verifier::new(Expectations {
        issuer: "i".to_owned(),
        audience: "a".to_owned(),
        principal_claim: "sub".to_owned(),
        algorithms: vec![Algorithm::EdDsa],
        leeway: Duration::ZERO,
    })
}

/// An https server that answers each connection with the next of these texts.
async fn serve(answers: Vec<String>) -> (Location, TempDir, JoinHandle<()>) {
    let key = CertificateKey::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = CertifiedIssuer::self_signed(params, key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
    let config = certificates::server()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(certificate.key().serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        for answer in answers {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            // The client may have read enough.
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (format!("https://localhost:{port}/keys").parse().unwrap(), folder, serving)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

async fn start(location: Location, folder: &TempDir) -> Arc<KeySource> {
    let authorities = folder.path().join("ca.pem");
    KeySource::start(location, Some(&authorities), verifier()).await.unwrap()
}

#[tokio::test]
async fn keys_come_from_an_https_url_and_an_unknown_one_causes_one_request() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let (location, folder, serving) = serve(vec![ok(&old.key_set()), ok(&new.key_set())]).await;
    let source = start(location, &folder).await;
    assert_eq!(source.verify(&old.token("billing")).await.unwrap().principal, "billing");
    // So soon after the keys were loaded, a key id that is unknown causes no request.
    assert_eq!(source.verify(&new.token("billing")).await, Err(Refusal::UnknownKey));

    *source.asked.lock().await -= UNKNOWN_KEY_INTERVAL;
    let remembered = old.token("late");
    assert!(source.verify(&remembered).await.is_ok());
    assert_eq!(source.verify(&new.token("billing")).await.unwrap().principal, "billing");
    // Tokens of a key that left the set no longer count, remembered or not.
    assert_eq!(source.verify(&remembered).await, Err(Refusal::UnknownKey));
    serving.await.unwrap();
}

#[tokio::test]
async fn answers_that_are_no_key_set_keep_the_keys_of_before() {
    let signer = Signer::new("only");
    let large = "x".repeat(300 * 1024);
    let moved =
        "HTTP/1.1 302 Found\r\nlocation: https://evil.example/\r\ncontent-length: 0\r\n\r\n";
    let answers = [
        (ok(&signer.key_set()), ""),
        (moved.to_owned(), "redirects are not followed"),
        (ok(&large), "limit of 262144 bytes"),
        (ok("{}"), "not a JSON Web Key Set"),
        ("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_owned(), "answered 500"),
    ];
    let texts = answers.iter().map(|(answer, _)| answer.clone()).collect();
    let (location, folder, _serving) = serve(texts).await;
    let source = start(location, &folder).await;
    for (_, problem) in &answers[1..] {
        let error = source.load().await.unwrap_err();
        assert!(error.contains(problem), "{error}");
        assert!(source.verify(&signer.token("billing")).await.is_ok());
    }
}

#[tokio::test]
async fn a_server_that_the_authorities_do_not_know_is_not_believed() {
    let signer = Signer::new("only");
    let (location, _, _serving) = serve(vec![ok(&signer.key_set()); 2]).await;
    let (_, other, _idle) = serve(Vec::new()).await;
    let source = start(location, &other).await;
    assert_eq!(source.verify(&signer.token("billing")).await, Err(Refusal::NoKeys));
    assert!(source.load().await.unwrap_err().contains("certificate"));
}

#[tokio::test]
async fn a_file_is_read_anew_and_a_broken_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let location = || path.to_str().unwrap().parse::<Location>().unwrap();
    let absent = KeySource::start(location(), None, verifier()).await.err().unwrap();
    assert!(absent.to_string().starts_with(&format!("--jwt-keys {}: ", path.display())));

    let (old, new) = (Signer::new("old"), Signer::new("new"));
    fs::write(&path, old.key_set()).unwrap();
    let source = KeySource::start(location(), None, verifier()).await.unwrap();
    assert!(source.verify(&old.token("billing")).await.is_ok());
    fs::write(&path, "broken").unwrap();
    source.load().await.unwrap_err();
    assert!(source.verify(&old.token("billing")).await.is_ok());
    fs::write(&path, new.key_set()).unwrap();
    source.load().await.unwrap();
    assert!(source.verify(&new.token("billing")).await.is_ok());
    assert_eq!(source.verify(&old.token("billing")).await, Err(Refusal::UnknownKey));
}

#[tokio::test]
async fn an_unreadable_file_of_authorities_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let location: Location = "https://localhost:1/keys".parse().unwrap();
    for content in [None, Some("no certificate")] {
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let start = KeySource::start(location.clone(), Some(&path), verifier()).await;
        let error = start.err().unwrap().to_string();
        assert!(error.starts_with(&format!("--jwt-keys-ca {}: ", path.display())), "{error}");
    }
}
