//! A PostgreSQL server of a test's own that speaks TLS, on loopback and on another address of this
//! machine if it has one.

use std::{
    fs::{self, Permissions},
    net::{IpAddr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use trunkline::embedded::{Account, Binaries};

use super::{TestDatabase, certificates::Certified, connect, until};

const USER: &str = "trunkline";
const DATABASE: &str = "postgres";

/// A running server; stopped and removed when dropped.
pub struct TlsPostgres {
    child: Child,
    account: Account,
    dir: TempDir,
    pub port: u16,
}

impl TlsPostgres {
    /// Starts a server with a certificate. Clients that show one must have it from the authority in
    /// `clients`.
    pub async fn start(server: &Certified, clients: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("trunkline-tls-").tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let account = Account::for_server(dir.path()).unwrap();
        account.give(dir.path()).unwrap();
        let pgdata = dir.path().join("data");
        let chosen = std::env::var_os("TRUNKLINE_POSTGRES_BIN").map(PathBuf::from);
        let binaries = Binaries::find(chosen.as_deref(), &pgdata).unwrap();
        let mut make = account.command(&binaries.initdb());
        make.args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .args(["--username", USER, "-D"])
            .arg(&pgdata);
        let made = make.current_dir("/").stdin(Stdio::null()).output().await.unwrap();
        assert!(made.status.success(), "{made:?}");

        let port = free_port();
        write(&account, &pgdata.join("clients.pem"), clients);
        write_certificate(&account, &pgdata, server);
        write(
            &account,
            &pgdata.join("pg_hba.conf"),
            "local all all trust\n\
             hostssl all certified all cert\n\
             host all secret all scram-sha-256\n\
             host all all all trust\n",
        );
        let addresses: String = distant_address().map(|ip| format!(",{ip}")).unwrap_or_default();
        let settings = format!(
            "listen_addresses = '127.0.0.1{addresses}'\n\
             unix_socket_directories = '{}'\n\
             port = {port}\n\
             fsync = off\n\
             password_encryption = 'scram-sha-256'\n\
             ssl_cert_file = 'server.pem'\n\
             ssl_key_file = 'server.key'\n\
             ssl_ca_file = 'clients.pem'\n\
             include 'ssl.conf'\n",
            dir.path().display()
        );
        write(&account, &pgdata.join("ssl.conf"), "ssl = on\n");
        write(&account, &pgdata.join("postgresql.conf"), &settings);
        let log = fs::File::create(dir.path().join("postgres.log")).unwrap();
        let mut command: Command = account.command(&binaries.postgres());
        let child = command
            .arg("-D")
            .arg(&pgdata)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let server = Self { child, account, dir, port };
        until("the server answers", async || server.responds().await).await;
        server
    }

    async fn responds(&self) -> bool {
        match tokio_postgres::connect(&self.socket_url(), tokio_postgres::NoTls).await {
            Ok((_, connection)) => {
                drop(connection);
                true
            }
            Err(_) => false,
        }
    }

    /// The server's URL at a host, with parameters.
    pub fn url(&self, host: &str, parameters: &str) -> String {
        self.url_as(USER, host, parameters)
    }

    /// As [`Self::url`], for another role.
    pub fn url_as(&self, role: &str, host: &str, parameters: &str) -> String {
        format!("host={host} port={} user={role} dbname={DATABASE} {parameters}", self.port)
    }

    fn socket_url(&self) -> String {
        self.url(&self.dir.path().display().to_string(), "")
    }

    /// The database, for a test's own sessions.
    pub fn database(&self) -> TestDatabase {
        TestDatabase {
            name: DATABASE.to_owned(),
            url: self.socket_url(),
            socket_dir: self.dir.path().to_owned(),
            user: USER.to_owned(),
        }
    }

    pub async fn sql(&self) -> tokio_postgres::Client {
        connect(&self.socket_url()).await
    }

    /// Writes a file for clients; returns its path.
    pub fn client_file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Gives the server another certificate.
    pub async fn change_certificate(&self, server: &Certified) {
        write_certificate(&self.account, &self.dir.path().join("data"), server);
        self.reload().await;
    }

    /// Turns TLS on or off.
    pub async fn set_ssl(&self, on: bool) {
        let setting = format!("ssl = {}\n", if on { "on" } else { "off" });
        write(&self.account, &self.dir.path().join("data/ssl.conf"), &setting);
        self.reload().await;
        let sql = self.sql().await;
        until("the server has read its settings", async || {
            // A session of its own, as each reads the settings when it begins.
            let shown = self.sql().await.query_one("show ssl", &[]).await.unwrap();
            shown.get::<_, &str>(0) == if on { "on" } else { "off" }
        })
        .await;
        drop(sql);
    }

    async fn reload(&self) {
        let sql = self.sql().await;
        let loaded_at = "select pg_conf_load_time()::text";
        let before: String = sql.query_one(loaded_at, &[]).await.unwrap().get(0);
        sql.batch_execute("select pg_reload_conf()").await.unwrap();
        until("the server reloads", async || {
            // A new session has the time from the postmaster, which also reloads certificates.
            let row = self.sql().await.query_one(loaded_at, &[]).await.unwrap();
            row.get::<_, String>(0) != before
        })
        .await;
    }

    /// How many sessions of brokers there are, and how many of them are encrypted.
    pub async fn encrypted_sessions(&self) -> (i64, i64) {
        let statement = "select count(*), count(*) filter (where ssl)
            from pg_stat_activity join pg_stat_ssl using (pid)
            where application_name like 'trunkline %'";
        let row = self.sql().await.query_one(statement, &[]).await.unwrap();
        (row.get(0), row.get(1))
    }
}

impl Drop for TlsPostgres {
    fn drop(&mut self) {
        if let Some(id) = self.child.id() {
            let id = Pid::from_raw(id as i32);
            let _ = kill(id, Signal::SIGQUIT);
            // The files are removed next, so the server must have ended.
            let _ = waitid(Id::Pid(id), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        }
    }
}

/// An address of this machine that is not loopback, if it has one.
pub fn distant_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Sends nothing; only chooses the address that a packet would be sent from.
    socket.connect("198.51.100.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn write_certificate(account: &Account, pgdata: &Path, server: &Certified) {
    write(account, &pgdata.join("server.pem"), &server.certificate);
    write(account, &pgdata.join("server.key"), &server.key);
}

/// Writes a file that only the server can read, as it asks of its key.
fn write(account: &Account, path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    account.give(path).unwrap();
}
