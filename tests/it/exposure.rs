//! A broker serves other hosts only with encryption and authentication, or when told to.

use crate::support::{Authority, TestDatabase, TlsFolder, Trunkline};

#[tokio::test]
async fn a_broker_that_everyone_could_use_does_not_start() {
    let authority = Authority::new();
    let folder = TlsFolder::new(&authority);
    let tls = folder.flags();
    let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
    for (flags, missing) in
        [(&[][..], "without encryption and authentication"), (&tls, "without authentication")]
    {
        let finished = Trunkline::run(&[&["serve", "--listen", "0.0.0.0:0"], flags].concat()).await;
        assert_eq!(finished.code(), 2, "{finished:?}");
        for part in ["listen on 0.0.0.0:0", missing, "--tls-client-ca", "127.0.0.1", "--insecure"] {
            assert!(finished.stderr.contains(part), "{finished:?}");
        }
    }
}

#[tokio::test]
async fn a_broker_that_is_told_to_serve_everyone_warns() {
    let database = TestDatabase::create().await;
    let arguments = ["--listen", "0.0.0.0:0", "--insecure", "--database-url", &database.url];
    let (mut broker, _) = Trunkline::serve(&arguments).await;
    let line = broker.log_line("other hosts can use this broker").await;
    assert!(line.contains("WARN") && line.contains("encryption and authentication"), "{line}");
}

#[tokio::test]
async fn a_broker_that_authenticates_its_clients_serves_other_hosts() {
    let authority = Authority::new();
    let folder = TlsFolder::new(&authority);
    folder.write("clients.pem", &authority.pem());
    let (tls, ca) = (folder.flags(), folder.path("clients.pem"));
    let database = TestDatabase::create().await;
    let mut arguments = vec!["--listen", "0.0.0.0:0", "--database-url", &database.url];
    arguments.extend(tls.iter().map(String::as_str));
    arguments.extend(["--tls-client-ca", ca.to_str().unwrap()]);
    // Returns once the broker listens.
    Trunkline::serve(&arguments).await;
}

#[tokio::test]
async fn a_name_for_this_machine_is_an_address_to_listen_on() {
    let database = TestDatabase::create().await;
    let arguments = ["--listen", "localhost:0", "--http", "localhost:0", "--database-url"];
    let arguments = [&arguments[..], &[&database.url]].concat();
    let (_broker, endpoint) = Trunkline::serve(&arguments).await;
    assert!(endpoint.starts_with("http://127.0.0.1:"), "{endpoint}");
    let address = endpoint.strip_prefix("http://").unwrap();
    Trunkline::run(&["--endpoint", address, "topic", "list"]).await.assert().success();
    // Other hosts reach this one.
    let refused =
        Trunkline::run(&["serve", "--listen", ":0", "--database-url", &database.url]).await;
    assert!(refused.stderr.contains("listen on 0.0.0.0:0: other hosts"), "{refused:?}");
}
