//! What a broker is deployed with starts one: the arguments, the variables and the files are those
//! that a broker reads, and its probes and health checks succeed. What lies elsewhere for a test than
//! in a container (the files, the ports) is put in. `scripts/check-deb` does the same with the units
//! for systemd.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use crate::support::{Authority, TestDatabase, Trunkline, http::get_over, root, soon};

#[tokio::test]
async fn the_manifests_for_kubernetes_start_a_broker_that_answers_their_probes() {
    let manifest = read("ops/kubernetes/deployment.yaml");
    let arguments = json_list(after(&manifest, "args: "));
    let mut variables = Variables::new();
    let mut lines = manifest.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("- name: TRUNKLINE_") {
            let value = lines.next().and_then(|line| line.strip_prefix("value: ")).unwrap();
            variables.insert(format!("TRUNKLINE_{name}"), value.to_owned());
        }
    }
    let mut container = Container::start(&arguments, variables).await;
    let console = container.line().await;
    let port = console.strip_prefix("console on https://0.0.0.0:").unwrap();
    let probes: Vec<&str> =
        manifest.lines().filter_map(|line| line.trim().strip_prefix("path: ")).collect();
    assert_eq!(probes, ["/livez", "/livez", "/readyz"]);
    for path in probes {
        assert_eq!(container.get(port, path).await, 200, "{path}");
    }
    assert_eq!(manifest.matches("scheme: HTTPS").count(), 3);
}

#[tokio::test]
async fn the_files_for_compose_start_a_broker_that_is_healthy() {
    let arguments = json_list(after(&read("Dockerfile"), "\nCMD "));
    let of = |file| {
        let text = read(file);
        let named = text.lines().filter_map(|line| line.trim().split_once(": "));
        let ours = named.filter(|(name, _)| name.starts_with("TRUNKLINE_"));
        ours.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
            .collect::<Variables>()
    };
    let plain = of("compose.yaml");
    let mut encrypted = plain.clone();
    encrypted.extend(of("compose.tls.yaml"));
    for variables in [plain, encrypted] {
        Container::start(&arguments, variables).await.assert_healthy().await;
    }
}

type Variables = BTreeMap<String, String>;

/// A broker that runs with what a container gives it.
struct Container {
    _broker: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    address: String,
    variables: Variables,
    authority: Authority,
    _files: TempDir,
    _database: TestDatabase,
}

impl Container {
    /// Starts it, and waits until it is ready.
    async fn start(arguments: &[String], mut variables: Variables) -> Self {
        let (files, database) = (tempfile::tempdir().unwrap(), TestDatabase::create_empty().await);
        let authority = Authority::new();
        let [broker, client] = ["localhost", "health.example"].map(|name| authority.sign(name));
        for value in variables.values_mut().filter(|value| value.starts_with('/')) {
            let text = match file_name(value) {
                "database-url" | "url" => format!("{}\n", database.url),
                "tls.crt" => broker.certificate.clone(),
                "tls.key" => broker.key.clone(),
                "health.crt" => client.certificate.clone(),
                "health.key" => client.key.clone(),
                "clients.crt" | "ca.crt" => authority.pem(),
                other => panic!("nothing mounts {other}"),
            };
            *value = mount(files.path(), value, &text).to_str().unwrap().to_owned();
        }
        for value in variables.values_mut().filter(|value| !value.contains("://")) {
            *value = on_a_free_port(value);
        }
        let arguments: Vec<String> = arguments.iter().map(|it| on_a_free_port(it)).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = with(&variables, &arguments);
        let mut broker = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(broker.stdout.take().unwrap()).lines();
        let mut container = Self {
            _broker: broker,
            stdout,
            address: String::new(),
            variables,
            authority,
            _files: files,
            _database: database,
        };
        let ready = container.line().await;
        let address = ready.strip_prefix("listening on ").unwrap_or_else(|| panic!("{ready}"));
        container.address = address.replace("0.0.0.0", "127.0.0.1");
        container
    }

    async fn line(&mut self) -> String {
        soon("a line", self.stdout.next_line()).await.unwrap().expect("the broker goes on")
    }

    /// Makes the health check of the image, in the same container.
    async fn assert_healthy(self) {
        let (_, port) = self.address.rsplit_once(':').unwrap();
        let mut variables = self.variables.clone();
        let endpoint = variables.entry("TRUNKLINE_ENDPOINT".to_owned());
        let endpoint = endpoint.or_insert_with(|| "http://127.0.0.1:50051".to_owned());
        *endpoint = endpoint.replace(":50051", &format!(":{port}"));
        let finished = Trunkline::finish(with(&variables, &["health"])).await;
        assert_eq!(finished.code(), 0, "{finished:?}");
    }

    /// Asks as the kubelet does, by address; returns the status of the answer.
    async fn get(&self, port: &str, path: &str) -> u16 {
        let mut roots = RootCertStore::empty();
        let pem = self.authority.pem();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        get_over(stream, path, &[("Host", "10.0.0.7:8080")]).await.status
    }
}

/// A command that has the variables of a container, and of this process only those that are none of
/// the broker's.
fn with(variables: &Variables, arguments: &[&str]) -> Command {
    let mut command = Trunkline::command(arguments);
    command.env_remove("TRUNKLINE_HTTP").envs(variables);
    // The image has no home folder.
    command.env_remove("HOME").env_remove("XDG_STATE_HOME").env_remove("XDG_CONFIG_HOME");
    command
}

/// Writes a file that a container mounts into a folder of this machine.
fn mount(folder: &Path, path: &str, text: &str) -> PathBuf {
    let path = folder.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

/// Several brokers run at once.
fn on_a_free_port(value: &str) -> String {
    value.replace(":50051", ":0").replace(":8080", ":0")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// What follows a text on its line.
fn after<'a>(text: &'a str, before: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("there is no {before}"));
    rest.lines().next().unwrap()
}

fn json_list(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}
