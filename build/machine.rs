//! Finds what this machine offers to tests that need more than Rust and PostgreSQL.
//!
//! A running test cannot report that it was skipped: libtest would print `ok`. So the build finds
//! out what is there, and a test that lacks something is ignored, which libtest prints with the
//! reason: `#[cfg_attr(not(has_pgbouncer), ignore = "…")]`. A test that was built as runnable, and
//! then cannot run, fails.
//!
//! Only folders that exist are watched for changes: if a watched path did not exist, every Cargo
//! command would run this and build the crate again.

use std::{env, fs, path::PathBuf, process::Command};

/// Capabilities by their numbers, as in capabilities(7).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];

/// Sets a `cfg` for each thing that is there.
pub fn inspect() {
    // Another user may have other capabilities.
    for variable in ["PATH", "USER", "HOME"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let nft = program("nft");
    let partitions = nft.as_ref().is_some_and(|nft| {
        let listed = Command::new(nft).args(["list", "tables"]).output();
        has_capability(CAP_NET_ADMIN) && listed.is_ok_and(|listed| listed.status.success())
    });
    let faketime = FAKETIME.iter().map(PathBuf::from).find(|path| path.exists());
    let pgbouncer = program("pgbouncer");
    let (script, promtool) = (program("script"), program("promtool"));
    let prometheus = program("prometheus");
    let found =
        [&nft, &faketime, &pgbouncer, &script, &promtool, &prometheus].into_iter().flatten();
    found.for_each(|path| println!("cargo:rerun-if-changed={}", path.display()));
    if [&nft, &pgbouncer].iter().any(|program| program.is_none()) {
        // Packages install them here.
        watch("/usr/sbin");
    }
    if script.is_none() || promtool.is_none() || prometheus.is_none() {
        watch("/usr/bin");
    }
    if faketime.is_none() {
        watch("/usr/lib/x86_64-linux-gnu/faketime");
        // Changes whenever a package with a program is installed, as when the folder above is made.
        watch("/usr/bin");
    }
    set_cfg("has_pgbouncer", pgbouncer.is_some());
    set_cfg("has_script", script.is_some());
    set_cfg("has_promtool", promtool.is_some());
    set_cfg("has_prometheus", prometheus.is_some());
    set_cfg("has_faketime", faketime.is_some());
    set_cfg("has_basebackup", has_basebackup());
    let dumps = ["psql", "pg_dump", "pg_restore"].iter().all(|name| program(name).is_some());
    set_cfg("has_pg_dump", dumps);
    set_cfg("can_partition", partitions);
    set_cfg("can_mount", has_capability(CAP_SYS_ADMIN) && program("mount").is_some());
    set_cfg(
        "is_root",
        status("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0")),
    );
}

fn set_cfg(name: &str, there: bool) {
    println!("cargo:rustc-check-cfg=cfg({name})");
    if there {
        println!("cargo:rustc-cfg={name}");
    }
}

fn watch(folder: &str) {
    if fs::exists(folder).unwrap_or(false) {
        println!("cargo:rerun-if-changed={folder}");
    }
}

/// A program on the path, or in Debian's folder for the administrator's programs.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Whether `pg_basebackup` is there: PostgreSQL's server programs may be installed without the client
/// programs.
fn has_basebackup() -> bool {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = installed.map(|version| version.path().join("bin"));
    let beside = program("pg_basebackup");
    folders
        .chain(beside.and_then(|path| Some(path.parent()?.to_owned())))
        .any(|folder| folder.join("pg_basebackup").is_file())
}

/// Whether this process, and so the tests after it, has a capability.
fn has_capability(capability: u32) -> bool {
    let effective = status("CapEff:").and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|effective| effective & (1 << capability) != 0)
}

/// A field of this process's status in the kernel.
fn status(field: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(field)).map(str::to_owned)
}
