//! `produce --follow` is killed at any moment: each line is stored once, in the order of its file.

use std::{
    collections::HashSet,
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use crate::support::{Shipper, until};

/// A program that writes numbered lines to three logs, and renames them from time to time.
struct Writer {
    folder: PathBuf,
    random: fastrand::Rng,
    written: [usize; 3],
    rotations: usize,
    /// When the present file of each log was begun.
    begun: [Instant; 3],
}

/// How long a file lasts before it is rotated away. Files that follow each other within a tick of the
/// system's clock cannot be told apart by their times, and so not be put in order.
const SHORTEST_FILE: Duration = Duration::from_millis(30);

impl Writer {
    /// Writes until it is stopped; then says how many lines each log got.
    async fn start(shipper: &Shipper, seed: u64, stop: Arc<AtomicBool>) -> JoinHandle<[usize; 3]> {
        let random = fastrand::Rng::with_seed(seed);
        let folder = shipper.path("");
        // What was rotated away before a shipper has seen the log is not shipped.
        for log in 0..3 {
            shipper.log(&format!("log{log}.log"), format!("log{log} 0\n"));
        }
        shipper.follow_to_end(&["*.log"]).await;
        let begun = [Instant::now(); 3];
        let mut writer = Self { folder, random, written: [1; 3], rotations: 0, begun };
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(2));
            while !stop.load(Ordering::Relaxed) {
                tick.tick().await;
                writer.write();
            }
            writer.written
        })
    }

    fn write(&mut self) {
        let log = self.random.usize(0..3);
        let path = self.folder.join(format!("log{log}.log"));
        let mut text = String::new();
        for _ in 0..self.random.usize(1..20) {
            text.push_str(&format!("log{log} {}\n", self.written[log]));
            self.written[log] += 1;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        // A line may be written in two parts, the second of which goes to a renamed file.
        let (one, two) = text.split_at(self.random.usize(0..text.len()));
        file.write_all(one.as_bytes()).unwrap();
        if self.random.usize(0..40) == 0 && self.begun[log].elapsed() > SHORTEST_FILE {
            self.rotations += 1;
            self.begun[log] = Instant::now();
            let name = format!("log{log}.log.{}", self.rotations);
            fs::rename(&path, self.folder.join(name)).unwrap();
        }
        file.write_all(two.as_bytes()).unwrap();
    }
}

async fn assert_each_line_once(shipper: &Shipper, written: [usize; 3]) {
    for (log, lines) in written.into_iter().enumerate() {
        let stored = shipper.lines_of(&format!("log{log}")).await;
        let expected: Vec<_> = (0..lines).map(|number| number.to_string()).collect();
        let differs = stored.iter().zip(&expected).position(|(one, other)| one != other);
        let all: HashSet<&String> = stored.iter().collect();
        let missing = expected.iter().filter(|line| !all.contains(line)).count();
        assert_eq!(differs.map(|at| (at, &stored[at])), None, "log{log}, {missing} lines missing");
        assert_eq!(stored.len(), expected.len(), "log{log}");
    }
}

#[tokio::test]
async fn shippers_that_are_killed_store_each_line_once() {
    let seed = fastrand::u64(..);
    println!("the seed is {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let shipper = Shipper::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = Writer::start(&shipper, seed.wrapping_add(1), stop.clone()).await;
    let words = ["--batch", "50", "*.log"];
    for _ in 0..10 {
        let before = shipper.broker.stored().await;
        let enough = before + random.i64(1..800);
        let mut run = shipper.follow(&words);
        until("enough is stored", async || shipper.broker.stored().await >= enough).await;
        run.kill().await;
    }
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap();
    shipper.follow_to_end(&words).await;
    assert_each_line_once(&shipper, written).await;
}

/// Sessions that end make the broker refuse requests for a moment, and requests are sent again.
#[tokio::test]
async fn broken_sessions_of_the_broker_repeat_nothing() {
    let shipper = Shipper::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = Writer::start(&shipper, 7, stop.clone()).await;
    let run = shipper.follow(&["--batch", "50", "*.log"]);
    for part in 1..5 {
        until("more is stored", async || shipper.broker.stored().await > part * 300).await;
        let sql = shipper.broker.sql().await;
        let end = "select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid()";
        sql.query(end, &[]).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap();
    let all = written.iter().sum::<usize>();
    until(&format!("all {all} lines are stored"), async || {
        let stored = shipper.broker.stored().await;
        println!("{stored} of {all} lines are stored");
        stored as usize == all
    })
    .await;
    run.terminate().await;
    assert_each_line_once(&shipper, written).await;
}

/// A standby was promoted that did not have the last messages.
#[tokio::test]
async fn messages_that_the_database_loses_are_shipped_again() {
    let shipper = Shipper::start().await;
    shipper.log("app.log", "app 1\napp 2\napp 3\n");
    let mut run = shipper.follow(&["*.log"]);
    shipper.has_stored(3).await;
    let sql = shipper.broker.sql().await;
    sql.batch_execute(
        "update trunkline.producer_topic set last_sequence = 0, last_offset = 0, \
         recent_sequences = '{}', recent_offsets = '{}'",
    )
    .await
    .unwrap();
    shipper.log("app.log", "app 4\n");
    let line = run.log_line("the database has lost").await;
    assert!(line.contains("lost 2 messages"), "{line}");
    // The test has let the messages in the log: only the count was lost.
    shipper.has_stored(6).await;
    run.terminate().await;
    assert_eq!(shipper.lines_of("app").await, ["1", "2", "3", "2", "3", "4"]);
}

#[tokio::test]
async fn a_topic_that_was_created_again_gets_every_line_again() {
    let shipper = Shipper::start().await;
    shipper.log("app.log", "app 1\napp 2\n");
    shipper.follow_to_end(&["*.log"]).await;
    shipper.broker.delete_topic("app").await;
    let stderr = shipper.follow_to_end(&["*.log"]).await;
    assert!(stderr.contains("was registered again on topic app"), "{stderr}");
    assert_eq!(shipper.lines_of("app").await, ["1", "2"]);
}

/// A state that is cut off is refused; it is never taken for an empty one.
#[tokio::test]
async fn a_damaged_state_is_refused() {
    let shipper = Shipper::start().await;
    shipper.log("app.log", "app 1\n");
    shipper.follow_to_end(&["*.log"]).await;
    let state = fs::read(shipper.path("follow.state")).unwrap();
    let words = ["--follow", "--exit-at-end", "--state", "follow.state", "*.log"];
    // Cut short, with another beginning, with another byte in the table of what was shipped, and
    // with bytes that no program has written.
    let head = state.windows(6).position(|bytes| bytes == b"app 1\n").unwrap();
    let changed = |at: usize, bits: u8| {
        let mut changed = state.clone();
        changed[at] ^= bits;
        changed
    };
    let cut = state[..state.len() / 3].to_vec();
    let damages =
        [cut, changed(0, 1), changed(head, 1), changed(4096, 0x55), changed(12_288, 0x55)];
    for (case, damaged) in damages.into_iter().enumerate() {
        shipper.write("follow.state", damaged);
        let stderr = shipper.ship_in_vain(&words).await;
        assert!(stderr.contains("is damaged") && stderr.contains("--restart"), "{case}: {stderr}");
        assert!(!stderr.contains("panicked"), "{case}: {stderr}");
    }
    assert_eq!(shipper.broker.stored().await, 1);
    shipper.write("follow.state", &state);
    shipper.follow_to_end(&["*.log"]).await;
    assert_eq!(shipper.broker.stored().await, 1);
    shipper.write("follow.state", &state[..state.len() / 3]);
    shipper.ship_well(&[&words[..], &["--restart"]].concat()).await;
    assert_eq!(shipper.broker.stored().await, 2);
}
