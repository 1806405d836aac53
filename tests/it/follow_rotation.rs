//! `produce --follow`: files that are rotated, in every way that loggers and logrotate have.

use std::{
    fs,
    io::Write as _,
    time::{Duration, SystemTime},
};

use nix::sys::signal::Signal;

use crate::support::Shipper;

#[tokio::test]
async fn a_renamed_log_is_read_to_its_end() {
    let shipper = Shipper::start().await;
    shipper.log("app.log", "app 1\n");
    let run = shipper.follow(&["*.log"]);
    shipper.has_stored(1).await;
    let mut old = shipper.appender("app.log");
    shipper.rename("app.log", "app.log.1");
    shipper.log("app.log", "app 4\n");
    // The program writes to the old file until it opens the new one. Its last line has no end.
    old.write_all(b"app 2\n").unwrap();
    shipper.has_stored(3).await;
    old.write_all(b"app 3").unwrap();
    shipper.has_stored(4).await;
    shipper.log("app.log", "app 5\n");
    shipper.has_stored(5).await;
    run.terminate().await;
    let mut lines = shipper.lines_of("app").await;
    lines.sort();
    assert_eq!(lines, ["1", "2", "3", "4", "5"]);
    shipper.follow_to_end(&["*.log"]).await;
    assert_eq!(shipper.broker.stored().await, 5);
}

#[tokio::test]
async fn rotations_while_no_shipper_runs_lose_nothing() {
    let shipper = Shipper::start().await;
    // An old file that was never shipped stays so.
    shipper.log("app.log.9", "app old\n");
    let long_ago = SystemTime::now() - Duration::from_secs(60);
    shipper.appender("app.log.9").set_modified(long_ago).unwrap();
    shipper.log("app.log", "app 1\n");
    shipper.follow_to_end(&["*.log"]).await;
    let mut number = 2;
    for generations in [1, 3] {
        for _ in 0..generations {
            shipper.log("app.log", format!("app {number}\n"));
            number += 1;
            for index in (1..8).rev() {
                let name = format!("app.log.{index}");
                if shipper.path(&name).exists() {
                    shipper.rename(&name, &format!("app.log.{}", index + 1));
                }
            }
            shipper.rename("app.log", "app.log.1");
            shipper.log("app.log", format!("app {number}\n"));
            number += 1;
        }
        shipper.follow_to_end(&["*.log"]).await;
        let expected: Vec<_> = (1..number).map(|number| number.to_string()).collect();
        assert_eq!(shipper.lines_of("app").await, expected);
    }
    // The last file has been rotated away as well, and there is no new one.
    shipper.rename("app.log", "app.log.old");
    shipper.log("app.log", format!("app {number}\n"));
    shipper.rename("app.log", "app.log.0");
    shipper.follow_to_end(&["*.log"]).await;
    assert_eq!(shipper.lines_of("app").await.last(), Some(&number.to_string()));
}

#[tokio::test]
async fn a_truncated_log_is_shipped_from_its_beginning() {
    let shipper = Shipper::start().await;
    shipper.log("app.log", "app 1\napp 2\n");
    let mut run = shipper.follow(&["*.log"]);
    shipper.has_stored(2).await;
    // Shorter, as long, and longer than before.
    for (content, stored) in [("app 3\n", 3), ("app 4\n", 4), ("app 5\napp 6\n", 6)] {
        shipper.write("app.log", content);
        shipper.has_stored(stored).await;
    }
    run.log_line("was truncated or replaced").await;
    run.terminate().await;
    assert_eq!(shipper.lines_of("app").await, ["1", "2", "3", "4", "5", "6"]);
}

/// Whether the pattern matches the copy or not, and whether a shipper runs meanwhile or not.
#[tokio::test]
async fn the_copy_of_a_truncated_log_is_not_shipped_again_but_its_rest_is() {
    for (pattern, is_running) in [("app.log", true), ("app.log*", true), ("app.log*", false)] {
        let shipper = Shipper::start().await;
        shipper.log("app.log", "app 1\napp 2\n");
        let run = shipper.follow(&[pattern]);
        shipper.has_stored(2).await;
        if is_running {
            shipper.copytruncate("app 3\n");
            shipper.has_stored(3).await;
            shipper.copytruncate("app 4\n");
            shipper.has_stored(4).await;
            run.terminate().await;
        } else {
            run.terminate().await;
            shipper.log("app.log", "app 3\n");
            shipper.copytruncate("app 4\n");
        }
        shipper.follow_to_end(&[pattern]).await;
        let lines = shipper.lines_of("app").await;
        assert_eq!(lines, ["1", "2", "3", "4"], "{pattern} {is_running}");
    }
}

#[tokio::test]
async fn packed_copies_are_not_shipped_again() {
    let shipper = Shipper::start().await;
    shipper.log("app.log", "app 1\n");
    let run = shipper.follow(&["--gzip", "app.log*"]);
    shipper.has_stored(1).await;
    shipper.rename("app.log", "app.log.1");
    shipper.log("app.log", "app 2\n");
    shipper.has_stored(2).await;
    let packed = std::process::Command::new("gzip").arg(shipper.path("app.log.1")).status();
    assert!(packed.unwrap().success());
    shipper.log("app.log", "app 3\n");
    shipper.has_stored(3).await;
    run.terminate().await;
    shipper.follow_to_end(&["--gzip", "app.log*"]).await;
    assert_eq!(shipper.lines_of("app").await, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_file_that_begins_like_another_is_a_file_of_its_own() {
    let shipper = Shipper::start().await;
    shipper.log("app.log", "start\n");
    let run = shipper.follow(&["*.log"]);
    shipper.has_stored(1).await;
    shipper.log("app2.log", "start\n");
    shipper.has_stored(2).await;
    shipper.log("app2.log", "more\n");
    shipper.log("app.log", "else\n");
    shipper.has_stored(4).await;
    run.terminate().await;
    let mut stored = shipper.stored().await;
    stored.sort();
    assert_eq!(stored, ["else", "more", "start", "start"]);
}

#[tokio::test]
async fn a_replaced_file_that_has_all_of_the_old_one_is_continued() {
    let shipper = Shipper::start().await;
    shipper.log("app.log", "app 1\napp 2\n");
    shipper.follow_to_end(&["*.log"]).await;
    // As an editor or a restored backup leaves it: another inode, the same beginning.
    let content = fs::read(shipper.path("app.log")).unwrap();
    shipper.write("new", [&content[..], b"app 3\n"].concat());
    shipper.rename("new", "app.log");
    shipper.follow_to_end(&["*.log"]).await;
    assert_eq!(shipper.lines_of("app").await, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_new_log_that_begins_as_a_deleted_one_is_shipped_whole() {
    let shipper = Shipper::start().await;
    shipper.log("app.log", "app 1\n");
    let run = shipper.follow(&["*.log"]);
    shipper.has_stored(1).await;
    shipper.remove("app.log");
    // The shipper knows that it is gone once it has shipped this.
    shipper.log("first.log", "app 2\n");
    shipper.has_stored(2).await;
    run.terminate().await;
    shipper.follow_to_end(&["*.log"]).await;
    let later = SystemTime::now() + Duration::from_secs(60);
    shipper.log("app2.log", "app 1\napp 3\n");
    shipper.appender("app2.log").set_modified(later).unwrap();
    shipper.follow_to_end(&["*.log"]).await;
    assert_eq!(shipper.lines_of("app").await, ["1", "2", "1", "3"]);
}

#[tokio::test]
async fn a_log_that_begins_as_an_idle_one_is_shipped_while_it_grows() {
    let shipper = Shipper::start().await;
    shipper.log("app.log", "app 1\n");
    let run = shipper.follow_with(("50ms", "1h"), &["*.log"]);
    shipper.has_stored(1).await;
    shipper.log("app2.log", "app 1\napp 2\n");
    shipper.has_stored(3).await;
    run.terminate().await;
    assert_eq!(shipper.lines_of("app").await, ["1", "1", "2"]);
}

/// A program goes on with a file that was rotated away, until it is told to open the log again.
#[tokio::test]
async fn lines_of_a_rotated_file_come_before_those_of_the_new_one() {
    let shipper = Shipper::start().await;
    shipper.log("app.log", "app 1\n");
    let run = shipper.follow(&["*.log"]);
    shipper.has_stored(1).await;
    let mut old = shipper.appender("app.log");
    shipper.rename("app.log", "app.log.1");
    // The end of this line is missing until the file has not grown for a while.
    old.write_all(b"app 2\napp 3").unwrap();
    shipper.log("app.log", "app 4\n");
    shipper.has_stored(4).await;
    run.terminate().await;
    assert_eq!(shipper.lines_of("app").await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn hang_up_leaves_nothing_of_a_moved_file_unread() {
    let shipper = Shipper::start().await;
    let elsewhere = tempfile::tempdir_in(shipper.path(".").parent().unwrap()).unwrap();
    shipper.log("app.log", "app 1\n");
    let run = shipper.follow(&["app.log"]);
    shipper.has_stored(1).await;
    let mut log = shipper.appender("app.log");
    fs::rename(shipper.path("app.log"), elsewhere.path().join("app.log")).unwrap();
    log.write_all(b"app 2\n").unwrap();
    run.signal(Signal::SIGHUP);
    shipper.has_stored(2).await;
    run.terminate().await;
}

/// Whether the pattern matches the rotated files or not.
#[tokio::test]
async fn rotated_files_that_begin_alike_are_shipped_once_and_in_order() {
    for pattern in ["app.log", "app.log*"] {
        let shipper = Shipper::start().await;
        shipper.log("app.log", "app start\n");
        shipper.follow_to_end(&[pattern]).await;
        for number in [1, 2] {
            if shipper.path("app.log.1").exists() {
                shipper.rename("app.log.1", "app.log.2");
            }
            shipper.rename("app.log", "app.log.1");
            shipper.log("app.log", format!("app start\napp {number}\n"));
        }
        shipper.follow_to_end(&[pattern]).await;
        let lines = shipper.lines_of("app").await;
        assert_eq!(lines, ["start", "start", "1", "start", "2"], "{pattern}");
    }
}

#[tokio::test]
async fn a_file_that_only_begins_as_a_truncated_log_is_not_its_copy() {
    let shipper = Shipper::start().await;
    shipper.log("app.log", "app start\n");
    let run = shipper.follow(&["app.log"]);
    shipper.has_stored(1).await;
    shipper.log("app-debug.log", "app start\nsecret\n");
    let later = SystemTime::now() + Duration::from_secs(60);
    shipper.appender("app-debug.log").set_modified(later).unwrap();
    shipper.write("app.log", "app 2\n");
    shipper.has_stored(2).await;
    run.terminate().await;
    assert_eq!(shipper.stored().await, ["app start", "app 2"]);
}

#[tokio::test]
async fn the_unfinished_end_of_a_replaced_file_is_left_to_the_next_run() {
    let shipper = Shipper::start().await;
    shipper.log("app.log", "app 1\n");
    shipper.follow_to_end(&["*.log"]).await;
    shipper.write("new", "app 1\napp 2\napp 3, half");
    shipper.rename("new", "app.log");
    shipper.follow_to_end(&["*.log"]).await;
    shipper.log("app.log", " and half\n");
    shipper.follow_to_end(&["*.log"]).await;
    assert_eq!(shipper.lines_of("app").await, ["1", "2", "3, half and half"]);
}

/// As of a file system that is mounted late.
#[tokio::test]
async fn files_of_a_folder_that_is_away_for_a_moment_are_not_shipped_again() {
    let shipper = Shipper::start().await;
    fs::create_dir(shipper.path("logs")).unwrap();
    for number in 0..300 {
        shipper.log(&format!("logs/{number}.log"), format!("{number}\n"));
    }
    shipper.log("other.log", "app 1\n");
    let words = ["logs/*.log", "other.log"];
    shipper.follow_to_end(&words).await;
    shipper.rename("logs", "away");
    let run = shipper.follow(&words);
    shipper.log("other.log", "app 2\n");
    shipper.has_stored(302).await;
    shipper.log("away/7.log", "app 3\n");
    shipper.rename("away", "logs");
    shipper.has_stored(303).await;
    run.terminate().await;
    assert_eq!(shipper.lines_of("app").await, ["1", "2", "3"]);
}

/// While another log keeps the shipper busy.
#[tokio::test]
async fn a_log_that_is_deleted_and_created_anew_is_followed_at_once() {
    let shipper = Shipper::start().await;
    let run = shipper.follow_with(("50ms", "1h"), &["app*.log"]);
    let (mut written, mut others) = (0_usize, 0_usize);
    for _ in 0..5 {
        for _ in 0..20 {
            shipper.log("app.log", format!("app {written}\n"));
            shipper.log("app1.log", format!("other {others}\n"));
            (written, others) = (written + 1, others + 1);
            // Wait for the loop to take note of each.
            shipper.has_stored_at_least((written + others).saturating_sub(10)).await;
        }
        shipper.has_stored(written + others).await;
        shipper.remove("app.log");
    }
    run.terminate().await;
    let expected: Vec<_> = (0..written).map(|number| number.to_string()).collect();
    assert_eq!(shipper.lines_of("app").await, expected);
}

/// A file system gives the inode of a deleted file to the next one.
#[tokio::test]
async fn a_plain_log_with_the_inode_of_a_packed_one_is_shipped() {
    let shipper = Shipper::start().await;
    shipper.log("app.log", "app 1\n");
    let pack = |name: &str| {
        let packed = std::process::Command::new("gzip").arg(shipper.path(name)).status();
        assert!(packed.unwrap().success());
    };
    pack("app.log");
    shipper.rename("app.log.gz", "app.log.2.gz");
    shipper.log("app.log", "app 2\n");
    let words = ["--gzip", "app.log*"];
    shipper.follow_to_end(&words).await;
    // The file takes the place of the packed one, whatever inodes the file system gives.
    shipper.write("app.log.2.gz", "app 3\n");
    shipper.rename("app.log", "app.log.1");
    shipper.rename("app.log.2.gz", "app.log");
    shipper.follow_to_end(&words).await;
    let mut lines = shipper.lines_of("app").await;
    lines.sort();
    assert_eq!(lines, ["1", "2", "3"]);
}

/// While the shipper stands still, so that it sees only the outcome.
#[tokio::test]
async fn copies_of_several_truncations_are_shipped_in_order() {
    for pattern in ["app.log", "app.log*"] {
        let shipper = Shipper::start().await;
        shipper.log("app.log", "app 1\n");
        let run = shipper.follow(&[pattern]);
        shipper.has_stored(1).await;
        run.signal(Signal::SIGSTOP);
        shipper.log("app.log", "app 2\n");
        for number in [3, 4] {
            if shipper.path("app.log.1").exists() {
                shipper.rename("app.log.1", "app.log.2");
            }
            shipper.copytruncate(&format!("app {number}\n"));
        }
        run.signal(Signal::SIGCONT);
        shipper.has_stored(4).await;
        run.terminate().await;
        assert_eq!(shipper.lines_of("app").await, ["1", "2", "3", "4"], "{pattern}");
    }
}
