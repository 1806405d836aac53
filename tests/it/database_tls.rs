//! TLS to PostgreSQL: what is encrypted, whose certificates are trusted, and what errors say.

use std::{fs, sync::Arc, time::Duration};

use trunkline::storage::{self, Storage};

use crate::support::{
    LIMITS, PRODUCER, TestBroker, TestDatabase, Trunkline,
    certificates::{Authority, Certified, self_signed},
    direct_tls::DirectTls,
    tls_postgres::{TlsPostgres, distant_address},
    until,
};

const DRAIN: Duration = Duration::from_secs(5);

/// A server with a certificate for `localhost`, and its authority.
async fn server() -> (TlsPostgres, Authority) {
    let authority = Authority::new("the authority");
    let server = TlsPostgres::start(&authority.issue("localhost"), &authority.pem()).await;
    (server, authority)
}

async fn open(url: &str) -> Storage {
    match Storage::open(url, None, LIMITS).await {
        Ok(storage) => storage,
        Err(error) => panic!("{url}: {error}"),
    }
}

async fn refusal(url: &str) -> storage::Error {
    match Storage::open(url, None, LIMITS).await {
        Ok(_) => panic!("{url}: a refusal expected"),
        Err(error) => error,
    }
}

/// Checks that a URL is refused for good, and that the error says some words.
async fn assert_refused(url: &str, words: &[&str]) {
    let error = refusal(url).await;
    assert!(!error.is_transient(), "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{url}: {error}");
    }
}

/// The authority's certificate in a file, as a parameter.
fn trusting(server: &TlsPostgres, authority: &Authority) -> String {
    format!("sslrootcert={}", server.client_file("ca.pem", &authority.pem()))
}

#[tokio::test]
async fn brokers_work_with_every_session_encrypted() {
    let (server, authority) = server().await;
    let url = server.url(
        "localhost",
        &format!("sslmode=verify-full {} channel_binding=prefer", trusting(&server, &authority)),
    );
    let database = Arc::new(server.database());
    let broker = TestBroker::start_with(database.clone(), &url, None, DRAIN).await;
    let other = TestBroker::start_with(database, &url, None, DRAIN).await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut first = other.consume_manually("orders", "billing").await;
    first.attaches().await;
    // The other broker learns of the message by a notification, and of the take-over.
    broker.publish("orders", ["a", "b"]).await;
    first.payloads(2).await;
    let mut second = broker.take_over("orders", "billing", "ann").await;
    second.attaches().await;
    assert_eq!(second.payloads(2).await, ["a", "b"]);
    assert_eq!(second.commit(2).await.unwrap(), 2);
    let (all, encrypted) = server.encrypted_sessions().await;
    assert!(all >= 8 && all == encrypted, "{encrypted} of {all}");
    drop((first, second));
    broker.stop().await;
    other.stop().await;
}

/// Both URLs have parameters of their own.
#[tokio::test]
async fn sessions_beside_those_of_a_pooler_are_encrypted_too() {
    let (server, authority) = server().await;
    let direct = format!("sslmode=verify-full {}", trusting(&server, &authority));
    let (url, direct) =
        (server.url("127.0.0.1", "sslmode=require"), server.url("localhost", &direct));
    let database = Arc::new(server.database());
    let broker = TestBroker::start_with(database, &url, Some(&direct), DRAIN).await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a"]).await;
    assert_eq!(broker.consume("orders", "billing").await.payloads(1).await, ["a"]);
    let (all, encrypted) = server.encrypted_sessions().await;
    assert!(all >= 3 && all == encrypted, "{encrypted} of {all}");
    broker.stop().await;
}

#[tokio::test]
async fn a_servers_certificate_is_verified_as_sslmode_says() {
    let (server, authority) = server().await;
    let ca = trusting(&server, &authority);
    let stranger = Authority::new("a stranger");
    let other_ca = server.client_file("other.pem", &stranger.pem());
    let at = |host: &str, parameters: &str| server.url(host, parameters);

    open(&at("localhost", &format!("sslmode=verify-full {ca}"))).await.close();
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = at("localhost", &format!("sslmode={mode} sslrootcert={other_ca}"));
        let words = ["issued by none of", &format!("sslrootcert={other_ca}"), "localhost:"];
        assert_refused(&url, &words).await;
    }

    // No authority of the system issued it, or the system has none.
    assert_refused(&at("localhost", "sslrootcert=system"), &["sslrootcert=system"]).await;

    // The certificate is for another name.
    for parameters in ["sslmode=require", &format!("sslmode=require {ca}"), &ca] {
        open(&at("127.0.0.1", parameters)).await.close();
    }
    open(&at("127.0.0.1", &format!("sslmode=verify-ca {ca}"))).await.close();
    let url = at("127.0.0.1", &format!("sslmode=verify-full {ca}"));
    assert_refused(&url, &["certificate for another name", "localhost"]).await;
    // The address is where to connect to, and the host is what to verify.
    open(&at("localhost hostaddr=127.0.0.1", &format!("sslmode=verify-full {ca}"))).await.close();

    server.change_certificate(&authority.issue_expired("localhost")).await;
    open(&at("localhost", "sslmode=require")).await.close();
    let url = at("localhost", &format!("sslmode=verify-ca {ca}"));
    assert_refused(&url, &["expired on 2021-01-01T00:00:00Z", "localhost:"]).await;

    // A certificate may be trusted by itself.
    let own = self_signed("localhost");
    server.change_certificate(&own).await;
    let own_file = server.client_file("own.pem", &own.certificate);
    open(&at("localhost", &format!("sslmode=verify-full sslrootcert={own_file}"))).await.close();
    let url = at("127.0.0.1", &format!("sslmode=verify-full sslrootcert={own_file}"));
    assert_refused(&url, &["certificate for another name"]).await;
    let url = at("localhost", &format!("sslmode=verify-full {ca}"));
    let error = refusal(&url).await;
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(!error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_server_may_require_a_certificate_of_the_brokers() {
    let (server, authority) = server().await;
    let sql = server.sql().await;
    sql.batch_execute("create role certified login superuser").await.unwrap();
    let identity = |name: &str, Certified { certificate, key }: Certified| {
        let certificate = server.client_file(&format!("{name}.pem"), &certificate);
        let key = server.client_file(&format!("{name}.key"), &key);
        format!("sslmode=require sslcert={certificate} sslkey={key}")
    };
    let certified = |parameters: &str| server.url_as("certified", "localhost", parameters);
    open(&certified(&identity("client", authority.issue("certified")))).await.close();
    assert_refused(&certified("sslmode=require"), &["valid client certificate"]).await;
    let other = certified(&identity("other", authority.issue("other")));
    assert_refused(&other, &["certificate authentication failed"]).await;
    let stranger = Authority::new("a stranger").issue("certified");
    let words = ["ended the TLS handshake with sslcert=", "stranger.pem", "UnknownCA"];
    assert_refused(&certified(&identity("stranger", stranger)), &words).await;
}

#[tokio::test]
async fn channel_binding_can_be_required() {
    let (server, _) = server().await;
    let sql = server.sql().await;
    sql.batch_execute("create role secret login superuser password 's3cret'").await.unwrap();
    let with = |role: &str, host: &str, parameters: &str| {
        server.url_as(role, host, &format!("password=s3cret {parameters}"))
    };
    for binding in ["require", "prefer", "disable"] {
        let parameters = format!("sslmode=require channel_binding={binding}");
        open(&with("secret", "localhost", &parameters)).await.close();
    }
    // It implies TLS.
    let storage = open(&with("secret", "localhost", "channel_binding=require")).await;
    storage.read_ends(&[]).await.unwrap();
    let (all, encrypted) = server.encrypted_sessions().await;
    assert!(all > 0 && all == encrypted, "{encrypted} of {all}");
    storage.close();
    let trusted = with("trunkline", "localhost", "channel_binding=require");
    assert_refused(&trusted, &["channel_binding=require", "scram-sha-256"]).await;
}

#[tokio::test]
async fn nothing_is_sent_unencrypted_to_another_machine_unless_the_url_says_so() {
    let (server, _) = server().await;
    let Some(address) = distant_address() else {
        // The decision is also tested by itself, beside the code.
        return;
    };
    let address = address.to_string();
    let encrypted = async |parameters: &str, host: &str| {
        let storage = open(&server.url(host, parameters)).await;
        storage.read_ends(&[]).await.unwrap();
        let (all, encrypted) = server.encrypted_sessions().await;
        assert!(all > 0 && (encrypted == 0 || encrypted == all), "{encrypted} of {all}");
        storage.close();
        until("the sessions end", async || server.encrypted_sessions().await.0 == 0).await;
        encrypted > 0
    };
    for (parameters, here, there) in [
        ("", false, true),
        ("sslmode=allow", true, true),
        ("sslmode=prefer", true, true),
        ("sslmode=require", true, true),
        ("sslmode=disable", false, false),
    ] {
        assert_eq!(encrypted(parameters, "127.0.0.1").await, here, "here, {parameters:?}");
        assert_eq!(encrypted(parameters, &address).await, there, "there, {parameters:?}");
    }

    server.set_ssl(false).await;
    for parameters in ["", "sslmode=allow", "sslmode=prefer", "sslmode=require"] {
        let words = ["does not speak TLS", "sslmode=disable", &address];
        assert_refused(&server.url(&address, parameters), &words).await;
    }
    assert!(!encrypted("sslmode=disable", &address).await);
    for parameters in ["", "sslmode=allow", "sslmode=prefer"] {
        assert!(!encrypted(parameters, "127.0.0.1").await, "{parameters:?}");
    }
    assert_refused(&server.url("127.0.0.1", "sslmode=require"), &["does not speak TLS"]).await;
}

#[tokio::test]
async fn renewed_certificates_need_no_restart() {
    let (server, authority) = server().await;
    let ca = server.client_file("ca.pem", &authority.pem());
    let storage =
        open(&server.url("localhost", &format!("sslmode=verify-full sslrootcert={ca}"))).await;
    let next = Authority::new("the next authority");
    server.change_certificate(&next.issue("localhost")).await;
    storage.retire_sessions();
    let error = storage.read_ends(&[]).await.unwrap_err();
    assert!(error.to_string().contains("issued by none of"), "{error}");
    fs::write(&ca, format!("{}{}", authority.pem(), next.pem())).unwrap();
    storage.read_ends(&[]).await.unwrap();
    // A file that cannot be used leaves what was read last in use.
    fs::write(&ca, "half a certi").unwrap();
    storage.retire_sessions();
    storage.read_ends(&[]).await.unwrap();
    storage.close();
}

#[tokio::test]
async fn a_server_may_speak_tls_from_the_first_byte() {
    let authority = Authority::new("the authority");
    let database = TestDatabase::create().await;
    let server = DirectTls::start(&authority.issue("localhost"), &database).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), authority.pem()).unwrap();
    let url = format!(
        "postgresql://{}@localhost:{}/{}?sslnegotiation=direct&sslmode=verify-full&sslrootcert={}",
        database.user,
        server.port,
        database.name,
        file.path().display(),
    );
    let broker = TestBroker::start_with(Arc::new(database), &url, None, DRAIN).await;
    broker.topic("orders").await;
    let sent = broker.try_publish("orders", PRODUCER, ["a"]).await.unwrap();
    assert_eq!(sent.first_offset, 0);
    broker.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_usage_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let authority = Authority::new("the authority");
    let (one, two) = (authority.issue("one"), authority.issue("two"));
    let (certificate, key) = (file("one.pem", &one.certificate), file("one.key", &one.key));
    let (other_key, empty) = (file("two.key", &two.key), file("empty", "nothing"));
    let broken = file("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for (parameters, problem) in [
        ("sslrootcert=/nonexistent/ca.pem".to_owned(), "sslrootcert=/nonexistent/ca.pem: No such"),
        (format!("sslrootcert={empty}"), "empty: it contains no certificate in PEM"),
        (format!("sslrootcert={broken}"), "broken: "),
        (format!("sslcert={certificate} sslkey=/nonexistent"), "sslkey=/nonexistent: No such"),
        (
            format!("sslcert={certificate} sslkey={empty}"),
            "empty: it contains no private key in PEM",
        ),
        (format!("sslcert={empty} sslkey={key}"), "empty: it contains no certificate in PEM"),
        (format!("sslcert={certificate} sslkey={other_key}"), "it is not the key of sslcert="),
        (format!("sslcert={certificate}"), "it has sslcert without sslkey"),
        ("sslmode=verify-full".to_owned(), "need sslrootcert"),
        ("sslmode=yes".to_owned(), "sslmode is none of"),
    ] {
        let url = format!("host=localhost dbname=d {parameters}");
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--database-url", &url];
        let finished = Trunkline::run(&arguments).await;
        assert_eq!(finished.code(), 2, "{finished:?}");
        let source = "read the database URL of --database-url: ";
        assert!(finished.stderr.contains(source), "{finished:?}");
        assert!(finished.stderr.contains(problem), "{parameters}: {finished:?}");
    }
}
