//! What this machine has for tests that need more than Rust and PostgreSQL.
//!
//! A test cannot say while it runs that it did not run: libtest would print `ok`. So what is there
//! is found when the tests are built, and a test without it is ignored, which libtest prints with
//! the reason: `#[cfg_attr(not(has_pgbouncer), ignore = "…")]`. A test that was built where it can
//! run, and then cannot, fails.
//!
//! Only folders that exist are watched for changes: Cargo would run this, and build the crate, with
//! every command if a path that it is to watch did not exist.

use std::{env, fs, path::PathBuf, process::Command};

/// The numbers of capabilities(7).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];

/// Tells rustc what is there.
pub fn look() {
    // Another user may do other things.
    for variable in ["PATH", "USER", "HOME"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let nft = program("nft");
    let partitions = nft.as_ref().is_some_and(|nft| {
        let listed = Command::new(nft).args(["list", "tables"]).output();
        may(CAP_NET_ADMIN) && listed.is_ok_and(|listed| listed.status.success())
    });
    let faketime = FAKETIME.iter().map(PathBuf::from).find(|path| path.exists());
    let pgbouncer = program("pgbouncer");
    let script = program("script");
    let found = [&nft, &faketime, &pgbouncer, &script].into_iter().flatten();
    found.for_each(|path| println!("cargo:rerun-if-changed={}", path.display()));
    if [&nft, &pgbouncer].iter().any(|program| program.is_none()) {
        // Where packages put them.
        watch("/usr/sbin");
    }
    if script.is_none() {
        watch("/usr/bin");
    }
    if faketime.is_none() {
        watch("/usr/lib/x86_64-linux-gnu/faketime");
        // Changes when the folder above is made, and whenever a program is installed.
        watch("/usr/bin");
    }
    tell("has_pgbouncer", pgbouncer.is_some());
    tell("has_script", script.is_some());
    tell("has_faketime", faketime.is_some());
    tell("has_basebackup", basebackup());
    tell("can_partition", partitions);
    tell("can_mount", may(CAP_SYS_ADMIN) && program("mount").is_some());
    tell("is_root", status("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0")));
}

fn tell(name: &str, there: bool) {
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

/// A program on the path, or where Debian keeps those of the administrator.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Whether a copy of a server can be made: beside the newest PostgreSQL's server programs, those of
/// its clients may be missing.
fn basebackup() -> bool {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = installed.map(|version| version.path().join("bin"));
    let beside = program("pg_basebackup");
    folders
        .chain(beside.and_then(|path| Some(path.parent()?.to_owned())))
        .any(|folder| folder.join("pg_basebackup").is_file())
}

/// Whether this process, and the tests after it, have a capability.
fn may(capability: u32) -> bool {
    let effective = status("CapEff:").and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|effective| effective & (1 << capability) != 0)
}

/// A field of what the kernel says of this process.
fn status(field: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(field)).map(str::to_owned)
}
