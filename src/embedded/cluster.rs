//! Creates, starts, takes over and stops the cluster with PostgreSQL's own tools.

use std::{
    fs::{self, Permissions},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt as _, process::Command};
use tracing::info;

use super::{
    account::Account,
    binaries::Binaries,
    error::Error,
    postmaster::{Postmaster, SOCKET_FILE, State},
};

/// The database that is created for the broker.
pub const DATABASE: &str = "trunkline";

/// The superuser of the private server.
pub const USER: &str = "trunkline";

/// How long a server may take to become ready, or to stop.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How often to poll a server that was left running until it is ready.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The longest path of a socket's folder: the system limits the path of a socket to 107 bytes.
const MAX_SOCKET_DIR: usize = 107 - "/".len() - SOCKET_FILE.len();

/// Settings for a log on one machine: few checkpoints, locks for some 50,000 streams, and no listening
/// except on the socket.
const SETTINGS: [&str; 8] = [
    "listen_addresses=",
    "port=5432",
    "max_connections=200",
    "max_locks_per_transaction=256",
    "shared_buffers=256MB",
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
    "log_checkpoints=off",
];

/// A cluster whose server is ready.
#[derive(Debug)]
pub(super) struct Cluster {
    binaries: Binaries,
    account: Account,
    pgdata: PathBuf,
    socket_dir: PathBuf,
}

/// The folder of the cluster's files.
pub(super) fn pgdata(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres")
}

impl Cluster {
    /// Starts the server, or takes it over; creates the cluster if there is none.
    pub(super) async fn start(
        data_dir: &Path,
        binaries: Binaries,
        account: Account,
    ) -> Result<Self, Error> {
        let pgdata = pgdata(data_dir);
        if !pgdata.exists() {
            create(data_dir, &pgdata, &binaries, &account).await?;
        }
        if let Some(socket_dir) = take_over(&pgdata).await? {
            info!(pgdata = %pgdata.display(), "took over a running PostgreSQL");
            return Ok(Self { binaries, account, pgdata, socket_dir });
        }
        let socket_dir = socket_dir(data_dir, &account)?;
        let cluster = Self { binaries, account, pgdata, socket_dir };
        cluster.start_server(data_dir).await?;
        Ok(cluster)
    }

    pub(super) fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    pub(super) async fn stop(&self) -> Result<(), Error> {
        let mut stop = self.account.command(&self.binaries.pg_ctl());
        stop.args(["stop", "--mode=fast", "--wait", "--silent"])
            .arg(format!("--timeout={}", TIMEOUT.as_secs()))
            .arg("-D")
            .arg(&self.pgdata);
        run(stop).await
    }

    async fn start_server(&self, data_dir: &Path) -> Result<(), Error> {
        let log = data_dir.join("postgres.log");
        let options: Vec<String> = SETTINGS
            .iter()
            .map(|setting| (*setting).to_owned())
            .chain([format!("unix_socket_directories={}", quote_path_list(&self.socket_dir))])
            .map(|setting| format!("-c {}", quote_for_shell(&setting)))
            .collect();
        let mut start = self.account.command(&self.binaries.pg_ctl());
        // pg_ctl starts the server in a session of its own, so that Ctrl-C in the broker's terminal
        // reaches only the broker, which then stops the server.
        start
            .args(["start", "--wait", "--silent"])
            .arg(format!("--timeout={}", TIMEOUT.as_secs()))
            .arg("-D")
            .arg(&self.pgdata)
            .arg("--log")
            .arg(&log)
            .arg("--options")
            .arg(options.join(" "));
        run(start).await.map_err(|error| with_last_lines(error, &log))
    }
}

/// Creates a cluster under another name first, so that one that was interrupted half-way is created
/// again.
async fn create(
    data_dir: &Path,
    pgdata: &Path,
    binaries: &Binaries,
    account: &Account,
) -> Result<(), Error> {
    info!(pgdata = %pgdata.display(), "creating a private PostgreSQL");
    let unfinished = data_dir.join("postgres.new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(Error::file("remove", &unfinished))?;
    }
    // Needs no password: only the owner can open the socket's folder.
    let mut initdb = account.command(&binaries.initdb());
    initdb
        .args(["--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--locale=C"])
        .args(["--data-checksums", "--no-instructions", "--username", USER, "-D"])
        .arg(&unfinished);
    run(initdb).await?;
    // Uses the single-user mode, because PostgreSQL's client programs may not be installed.
    let mut single = account.command(&binaries.postgres());
    single.arg("--single").arg("-D").arg(&unfinished).arg("template1");
    // Tables that people create must not end up in the schema that has the name of the user.
    let statements =
        format!("create database {DATABASE}\nalter database {DATABASE} set search_path = public\n");
    run_with_input(single, &statements).await?;
    fs::rename(&unfinished, pgdata).map_err(Error::file("rename", &unfinished))
}

/// Waits until a running server is ready, and returns its socket's folder; returns `None` if no server
/// runs, or once a stopping one has gone.
async fn take_over(pgdata: &Path) -> Result<Option<PathBuf>, Error> {
    let began = Instant::now();
    while let Some(postmaster) = Postmaster::running(pgdata) {
        // The file of a server that was killed still says ready.
        if postmaster.state == State::Ready && postmaster.accepts_connections() {
            return Ok(Some(postmaster.socket_dir));
        }
        if began.elapsed() > TIMEOUT {
            let seconds = TIMEOUT.as_secs();
            return Err(Error::Stuck { data_dir: pgdata.to_owned(), seconds });
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
    Ok(None)
}

/// Creates a folder for the socket that nobody else can open, with a short enough path.
fn socket_dir(data_dir: &Path, account: &Account) -> Result<PathBuf, Error> {
    let mut dir = data_dir.join("run");
    if dir.as_os_str().len() > MAX_SOCKET_DIR {
        let mut hasher = DefaultHasher::new();
        data_dir.hash(&mut hasher);
        dir = PathBuf::from(format!("/tmp/trunkline-{:016x}", hasher.finish()));
    }
    match fs::create_dir(&dir) {
        Ok(()) => account.give(&dir)?,
        Err(_) => {
            let metadata = fs::symlink_metadata(&dir).map_err(Error::file("create", &dir))?;
            if !metadata.is_dir() || !account.owns(&metadata) {
                return Err(Error::ForeignDir { path: dir });
            }
        }
    }
    fs::set_permissions(&dir, Permissions::from_mode(0o700))
        .map_err(Error::file("restrict the permissions of", &dir))?;
    Ok(dir)
}

/// Quotes a path as an entry of a list in a setting, as it may hold commas or spaces.
fn quote_path_list(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('"', "\"\""))
}

/// Quotes an option, as pg_ctl passes its options to a shell.
fn quote_for_shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

async fn run(command: Command) -> Result<(), Error> {
    run_with_input(command, "").await
}

async fn run_with_input(mut command: Command, input: &str) -> Result<(), Error> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let failed = |problem: String| Error::Command { command: name.clone(), problem };
    // Output goes to a file: the server inherits it from pg_ctl, and would keep pipes open for as long
    // as it runs.
    let output = tempfile::tempfile().map_err(|error| failed(error.to_string()))?;
    let stderr = output.try_clone().map_err(|error| failed(error.to_string()))?;
    let stdout = output.try_clone().map_err(|error| failed(error.to_string()))?;
    let mut child = command
        // The server's account may not be able to enter the broker's working directory.
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Fails if the command has ended, and then its output says why.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let status = child.wait().await.map_err(|error| failed(error.to_string()))?;
    if status.success() {
        return Ok(());
    }
    Err(failed(format!("{status}; {}", read_all(output).trim())))
}

fn read_all(mut file: fs::File) -> String {
    use std::io::{Read as _, Seek as _};
    let mut text = String::new();
    // If it cannot be read, the error still has the command's status.
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    text
}

/// Adds the last lines of the server's log to an error.
fn with_last_lines(error: Error, log: &Path) -> Error {
    let Error::Command { command, problem } = error else { return error };
    let text = fs::read(log).unwrap_or_default();
    let last = last_lines(&String::from_utf8_lossy(&text));
    Error::Command { command, problem: format!("{problem}\n{} ends:\n{last}", log.display()) }
}

/// The last lines of a server's log, without those that may quote a row: they hold payloads.
fn last_lines(log: &str) -> String {
    const QUOTE: [&str; 5] = ["CONTEXT: ", "DETAIL: ", "HINT: ", "QUERY: ", "STATEMENT: "];
    let may_quote =
        |line: &str| line.starts_with('\t') || QUOTE.iter().any(|mark| line.contains(mark));
    let mut last: Vec<&str> = log.lines().rev().filter(|line| !may_quote(line)).take(5).collect();
    last.reverse();
    last.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_log_quote_no_row() {
        let log = "LOG:  one\nLOG:  two\nERROR:  refused\nDETAIL:  Failing row contains (secret).\n\
                   STATEMENT:  insert into\n\tbatch values ('secret')\nLOG:  3\nLOG:  4\nFATAL:  5\n";
        assert_eq!(last_lines(log), "LOG:  two\nERROR:  refused\nLOG:  3\nLOG:  4\nFATAL:  5");
        assert_eq!(last_lines(""), "");
    }

    #[test]
    fn odd_paths_are_quoted_for_the_setting_and_for_the_shell() {
        let list = quote_path_list(Path::new("/a, b/it's"));
        assert_eq!(list, "\"/a, b/it's\"");
        assert_eq!(quote_for_shell(&list), r#"'"/a, b/it'\''s"'"#);
    }
}
