//! `produce --resume` after runs that were killed: each line is stored once.

use crate::support::Shipper;

/// However often and wherever it is killed: with bad lines in between, and across two files.
#[tokio::test]
async fn runs_that_are_killed_store_each_line_once() {
    const LINES: usize = 60_000;
    let shipper = Shipper::start().await;
    let mut kept = Vec::new();
    for name in ["a.log", "b.log"] {
        let mut content = String::new();
        for number in 0..LINES {
            let key = if number % 7 == 3 { "bad" } else { "k:" };
            content.push_str(&format!("{key}{name} {number}\n"));
            kept.extend((number % 7 != 3).then(|| format!("{name} {number}")));
        }
        shipper.write(name, content);
    }
    let mut words = vec!["--resume", "--key-separator", ":", "--on-bad-line", "skip"];
    words.extend(["--batch", "50", "a.log", "b.log"]);
    shipper.ship_and_kill_at_each_tenth(&words, kept.len()).await;
    shipper.ship_well(&words).await;
    let stored = shipper.stored().await;
    assert_eq!(stored.len(), kept.len());
    assert!(stored == kept, "the lines are stored once, in order");
}

/// Which lines a killed run stored is known even after the log was rotated.
#[tokio::test]
async fn a_log_that_is_rotated_after_a_kill_is_shipped_exactly_once() {
    let shipper = Shipper::start().await;
    let lines = |name: &str| (0..40_000).map(|number| format!("{name} {number}")).collect();
    let (old, new): (Vec<String>, Vec<String>) = (lines("old"), lines("new"));
    shipper.write("app.log", old.join("\n") + "\n");
    let stored = shipper.ship_and_kill(&["--resume", "--batch", "20", "app.log"]).await;
    assert!(stored < old.len(), "the run was killed midway");
    shipper.rename("app.log", "app.log.1");
    shipper.write("app.log", new.join("\n") + "\n");
    let stderr = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(stderr.contains("app.log.1, and up to "), "{stderr}");
    shipper.ship_well(&["--resume", "app.log.1", "app.log"]).await;
    let all = shipper.stored().await;
    assert!(all[..stored] == old[..stored]);
    assert!(all[stored..stored + new.len()] == new);
    assert!(all[stored + new.len()..] == old[stored..]);
}

/// The copy contains what the killed run stored, however little of that the state knows.
#[tokio::test]
async fn a_log_that_is_truncated_after_a_kill_is_shipped_exactly_once() {
    let shipper = Shipper::start().await;
    let old: Vec<_> = (0..40_000).map(|number| format!("old {number}")).collect();
    shipper.write("app.log", old.join("\n") + "\n");
    let stored = shipper.ship_and_kill(&["--resume", "--batch", "20", "app.log"]).await;
    assert!(stored < old.len(), "the run was killed midway");
    shipper.copytruncate("new\n");
    let stderr = shipper.ship_in_vain(&["--resume", "app.log.1"]).await;
    assert!(stderr.contains("--same-file continues after them"), "{stderr}");
    shipper.ship_well(&["--resume", "app.log"]).await;
    shipper.ship_well(&["--resume", "--same-file", "app.log", "app.log.1"]).await;
    let all = shipper.stored().await;
    assert!(all[..stored] == old[..stored]);
    assert_eq!(all[stored], "new");
    assert!(all[stored + 1..] == old[stored..]);
}
