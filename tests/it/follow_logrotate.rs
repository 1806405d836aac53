//! `produce --follow` beside Debian's logrotate.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{process::Command, sync::Mutex, task::JoinHandle};

use crate::support::{Shipper, until};

const LOGROTATE: &str = "/usr/sbin/logrotate";

/// How often the logs are rotated.
const ROTATIONS: usize = 6;

/// A program that writes to `app.log` all the time.
struct Program {
    log: Mutex<fs::File>,
    written: AtomicUsize,
    stop: AtomicBool,
}

impl Program {
    fn start(log: &Path) -> (Arc<Self>, JoinHandle<()>) {
        let program = Arc::new(Self {
            log: Mutex::new(open(log)),
            written: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let writer = program.clone();
        let writing = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(2));
            while !writer.stop.load(Ordering::Relaxed) {
                tick.tick().await;
                writer.write().await;
            }
        });
        (program, writing)
    }

    async fn write(&self) {
        let mut log = self.log.lock().await;
        for _ in 0..5 {
            let number = self.written.fetch_add(1, Ordering::Relaxed);
            log.write_all(format!("app {number}\n").as_bytes()).unwrap();
        }
    }

    /// Opens the log again, as a signal makes programs do.
    async fn reopen(&self, path: &Path) {
        *self.log.lock().await = open(path);
    }
}

fn open(path: &Path) -> fs::File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

async fn rotate(shipper: &Shipper) {
    let configuration = shipper.path("logrotate.conf");
    let state = shipper.path("logrotate.state");
    let rotated = Command::new(LOGROTATE)
        .arg("--force")
        .arg("--state")
        .arg(state)
        .arg(configuration)
        .output()
        .await
        .unwrap();
    assert!(rotated.status.success(), "{rotated:?}");
}

fn configure(shipper: &Shipper, directives: &str) {
    let log = shipper.path("app.log");
    let text = format!("{} {{\n  rotate 50\n  {directives}\n}}\n", log.display());
    shipper.write("logrotate.conf", text);
    fs::set_permissions(
        shipper.path("logrotate.conf"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
}

/// Rotates under load, and kills the shipper at random moments.
async fn follow_through_rotations(directives: &str, copies: bool) {
    if !Path::new(LOGROTATE).exists() {
        println!("skipped: {LOGROTATE} is not on this machine");
        return;
    }
    let seed = fastrand::u64(..);
    println!("the seed is {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let shipper = Shipper::start().await;
    configure(&shipper, directives);
    let log = shipper.path("app.log");
    let (program, writing) = Program::start(&log);
    let words = ["--batch", "100", "app.log"];
    let mut run = shipper.follow(&words);
    for _ in 0..ROTATIONS {
        let enough = shipper.broker.stored().await + random.i64(1..500);
        until("more is stored", async || shipper.broker.stored().await >= enough).await;
        let is_killed = random.bool();
        if is_killed {
            run.kill().await;
        }
        if copies {
            // What is written between the copy and the truncation is lost to everybody.
            let _paused = program.log.lock().await;
            rotate(&shipper).await;
        } else {
            rotate(&shipper).await;
            // The program goes on to write to the renamed file until it hears of the rotation.
            program.write().await;
            program.reopen(&log).await;
        }
        if is_killed {
            run = shipper.follow(&words);
        }
    }
    program.stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    let written = program.written.load(Ordering::Relaxed);
    until("all is stored", async || shipper.broker.stored().await as usize >= written).await;
    run.terminate().await;
    shipper.follow_to_end(&words).await;
    let stored = shipper.lines_of("app").await;
    let expected: Vec<_> = (0..written).map(|number| number.to_string()).collect();
    let differs = stored.iter().zip(&expected).position(|(one, other)| one != other);
    assert_eq!(differs.map(|at| (at, &stored[at])), None);
    assert_eq!(stored.len(), expected.len());
}

#[tokio::test]
async fn logs_that_logrotate_renames_are_shipped_once() {
    follow_through_rotations("create 0640", false).await;
}

#[tokio::test]
async fn logs_that_logrotate_copies_and_truncates_are_shipped_once() {
    follow_through_rotations("copytruncate", true).await;
}
