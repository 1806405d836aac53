//! The embedded PostgreSQL.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use nix::sys::signal::Signal;
use trunkline::{
    embedded::{DATABASE, EmbeddedPostgres, Error},
    storage::{Limits, Storage},
};

use crate::support::{Trunkline, connect, until};

/// A data folder whose server is stopped when the test ends, however it ends.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The server may run as another user, which must be able to enter.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("data")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(self.path().join("postgres/postmaster.pid")) {
            let pid = pid.lines().next().unwrap_or_default();
            let _ = Command::new("kill").args(["-QUIT", pid]).status();
        }
    }
}

/// Counts the calls of this function since the server was created.
async fn count_calls(postgres: &EmbeddedPostgres) -> i64 {
    let sql = connect(&postgres.url(DATABASE)).await;
    sql.batch_execute("create table if not exists kept (n int); insert into kept values (1)")
        .await
        .unwrap();
    sql.query_one("select count(*) from kept", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn the_embedded_postgres_keeps_its_data_between_runs() {
    let folder = Folder::new();
    for run in 1..=2 {
        let postgres = EmbeddedPostgres::start(&folder.path()).await.unwrap();
        assert_eq!(count_calls(&postgres).await, run);
        postgres.stop().await.unwrap();
    }
    assert!(!folder.path().join("postgres/postmaster.pid").exists());
}

#[tokio::test]
async fn the_embedded_postgres_listens_only_on_a_private_socket() {
    let folder = Folder::new();
    let postgres = EmbeddedPostgres::start(&folder.path()).await.unwrap();
    let sql = connect(&postgres.url(DATABASE)).await;
    let show = async |name: &str| -> String {
        sql.query_one(&format!("show {name}"), &[]).await.unwrap().get(0)
    };
    assert_eq!(show("listen_addresses").await, "");
    assert_eq!(show("fsync").await, "on");
    assert_eq!(show("data_checksums").await, "on");
    let mode = fs::metadata(postgres.socket_dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_was_left_running_is_reused() {
    let folder = Folder::new();
    let left = EmbeddedPostgres::start(&folder.path()).await.unwrap();
    let started = "select pg_postmaster_start_time()";
    let sql = connect(&left.url(DATABASE)).await;
    let before: std::time::SystemTime = sql.query_one(started, &[]).await.unwrap().get(0);
    // As after a broker was killed: the server runs, and the folder's lock is free.
    drop(left);
    let reused = EmbeddedPostgres::start(&folder.path()).await.unwrap();
    let sql = connect(&reused.url(DATABASE)).await;
    let after: std::time::SystemTime = sql.query_one(started, &[]).await.unwrap().get(0);
    assert_eq!(before, after, "it is the same server");
    reused.stop().await.unwrap();
    assert!(!folder.path().join("postgres/postmaster.pid").exists());
}

#[tokio::test]
async fn a_folder_that_another_broker_uses_is_refused() {
    let folder = Folder::new();
    let postgres = EmbeddedPostgres::start(&folder.path()).await.unwrap();
    let error = EmbeddedPostgres::start(&folder.path()).await.unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    assert!(error.to_string().contains("another broker uses it"), "{error}");
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_folder_of_another_major_version_is_refused() {
    let folder = Folder::new();
    EmbeddedPostgres::start(&folder.path()).await.unwrap().stop().await.unwrap();
    fs::write(folder.path().join("postgres/PG_VERSION"), "9\n").unwrap();
    let error = EmbeddedPostgres::start(&folder.path()).await.unwrap_err();
    assert!(matches!(&error, Error::OtherMajor { found, .. } if found == "9"), "{error}");
    assert!(error.to_string().contains("created by PostgreSQL 9"), "{error}");
}

#[tokio::test]
async fn a_binaries_folder_without_postgres_is_refused() {
    let folder = Folder::new();
    let empty = tempfile::tempdir().unwrap();
    let error = EmbeddedPostgres::start_with(&folder.path(), Some(empty.path())).await.unwrap_err();
    assert!(matches!(error, Error::NotInChosenDir { .. }), "{error}");
    assert!(error.to_string().contains("TRUNKLINE_POSTGRES_BIN"), "{error}");
    let advice = Error::NoBinaries.to_string();
    assert!(advice.contains("apt-get install postgresql"), "{advice}");
}

#[tokio::test]
async fn an_interrupted_creation_is_repeated() {
    let folder = Folder::new();
    let unfinished = folder.path().join("postgres.new");
    fs::create_dir_all(unfinished.join("base")).unwrap();
    fs::write(unfinished.join("PG_VERSION"), "15\n").unwrap();
    let postgres = EmbeddedPostgres::start(&folder.path()).await.unwrap();
    assert_eq!(count_calls(&postgres).await, 1);
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn long_paths_and_odd_names_work() {
    let folder = Folder::new();
    for name in ["with space, comma & it's odd", &"long-name-".repeat(12)] {
        let data_dir = folder.0.path().join(name);
        let postgres = EmbeddedPostgres::start(&data_dir).await.unwrap();
        assert_eq!(count_calls(&postgres).await, 1);
        postgres.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_folder_with_other_contents_is_left_untouched() {
    let folder = Folder::new();
    fs::create_dir(folder.path()).unwrap();
    fs::write(folder.path().join("letter"), "dear").unwrap();
    let before = fs::metadata(folder.path()).unwrap();
    let error = EmbeddedPostgres::start(&folder.path()).await.unwrap_err();
    assert!(matches!(error, Error::OtherUse { .. }), "{error}");
    let after = fs::metadata(folder.path()).unwrap();
    assert_eq!((before.mode(), before.uid()), (after.mode(), after.uid()));
}

#[tokio::test]
async fn a_path_with_special_characters_of_a_shell_is_refused() {
    let folder = Folder::new();
    for bad in ["a\"b", "$HOME", "`id`", "back\\slash"] {
        let error = EmbeddedPostgres::start(&folder.0.path().join(bad)).await.unwrap_err();
        assert!(matches!(error, Error::OddPath { .. }), "{error}");
    }
}

#[tokio::test]
#[cfg_attr(not(is_root), ignore = "the server runs as another user only if the test runs as root")]
async fn root_is_told_which_folder_the_postgres_user_cannot_enter() {
    let folder = Folder::new();
    let closed = folder.0.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let error = EmbeddedPostgres::start(&closed.join("data")).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { blocked, .. } if *blocked == closed), "{error}");
    assert!(error.to_string().contains("--data-dir"), "{error}");
}

#[tokio::test]
async fn a_socket_folder_that_is_a_symbolic_link_is_refused() {
    let folder = Folder::new();
    let data_dir = folder.path();
    EmbeddedPostgres::start(&data_dir).await.unwrap().stop().await.unwrap();
    fs::remove_dir_all(data_dir.join("run")).unwrap();
    symlink(Path::new("/tmp"), data_dir.join("run")).unwrap();
    let error = EmbeddedPostgres::start(&data_dir).await.unwrap_err();
    assert!(matches!(error, Error::ForeignDir { .. }), "{error}");
}

#[tokio::test]
async fn unsafe_and_insufficient_settings_are_logged_at_the_start() {
    let folder = Folder::new();
    let postgres = EmbeddedPostgres::start(&folder.path()).await.unwrap();
    let url = postgres.url(DATABASE);
    let sql = connect(&url).await;
    sql.batch_execute("alter system set fsync = off").await.unwrap();
    sql.batch_execute("select pg_reload_conf()").await.unwrap();
    until("the server has its new settings", async || {
        let fsync: String = sql.query_one("show fsync", &[]).await.unwrap().get(0);
        fsync == "off"
    })
    .await;

    let listen = ["--listen", "127.0.0.1:0", "--database-url", &url];
    let many = ["--query-connections", "256"];
    let (mut broker, _) = Trunkline::serve(&[&listen[..], &many[..]].concat()).await;
    for warning in ["fsync is off", "max_connections leaves too few sessions"] {
        let line = broker.log_line(warning).await;
        assert!(line.contains("WARN"), "{line}");
    }
    broker.signal(Signal::SIGTERM);
    assert!(broker.wait().await.success());

    let limits = Limits { writers: 1, queries: 1 };
    let storage = Storage::open(&url, None, limits).await.unwrap();
    let settings = storage.server_settings().await.unwrap();
    assert!(!settings.fsync);
    assert_eq!(settings.locks, 256 * 200);
    // Three sessions are reserved for superusers, and some are open.
    assert!((1..197).contains(&settings.free_sessions), "{settings:?}");
    storage.close();
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_folder_of_the_account_nobody_is_refused() {
    let folder = Folder::new();
    fs::create_dir(folder.path()).unwrap();
    // Only root may give a folder away, and only root runs the server as another account.
    if std::os::unix::fs::chown(folder.path(), Some(NOBODY), None).is_err() {
        return;
    }
    match EmbeddedPostgres::start(&folder.path()).await {
        Err(error @ Error::SharedAccount { .. }) => {
            assert!(error.to_string().contains("chown"), "{error}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was started"),
    }
}

/// The number of the account `nobody`.
const NOBODY: u32 = 65_534;
