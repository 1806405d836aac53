//! `produce` with invalid options is refused before it sends, registers or fences anything.

use std::{fs, os::unix::fs::symlink};

use crate::support::{Finished, Shipper, Trunkline, soon};

#[track_caller]
fn assert_usage(refused: &Finished, expected: &str) {
    assert_eq!(refused.code(), 2, "{refused:?}");
    assert!(refused.stderr.contains(expected), "{expected}: {refused:?}");
}

#[tokio::test]
async fn bad_lines_cannot_be_written_to_the_input_or_the_state() {
    let shipper = Shipper::start().await;
    shipper.write("self.log", "no JSON\n");
    symlink(shipper.path("self.log"), shipper.path("link.log")).unwrap();
    fs::hard_link(shipper.path("self.log"), shipper.path("hard.log")).unwrap();
    shipper.write("other.log", "");
    let skip = ["--json", "--on-bad-line", "skip", "--bad-lines-file"];
    for file in ["self.log", "link.log", "hard.log"] {
        for words in [&["self.log"][..], &["--resume", "other.log", "self.log"]] {
            let refused = shipper.ship(&[&skip[..], &[file], words].concat()).await;
            assert_usage(&refused, "--bad-lines-file");
            assert!(refused.stderr.contains("self.log itself"), "{refused:?}");
        }
    }
    // Standard input may be the file, too.
    let arguments = shipper.arguments(&[&skip[..], &["self.log"]].concat());
    let mut command = Trunkline::command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    command.stdin(fs::File::open(shipper.path("self.log")).unwrap());
    let output = soon("the end", command.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    // The state file is refused even before it exists.
    symlink("state.json", shipper.path("state.link")).unwrap();
    for file in ["state.json", "state.link"] {
        let state = ["--resume", "--state", "state.json", "self.log"];
        let refused = shipper.ship(&[&skip[..], &[file], &state].concat()).await;
        assert_usage(&refused, "--bad-lines-file names the state file");
    }
    let refused = shipper.ship(&["--resume", "--state", "self.log", "self.log"]).await;
    assert_usage(&refused, "--state names the input");
    assert_eq!(fs::read_to_string(shipper.path("self.log")).unwrap(), "no JSON\n");
    assert!(!shipper.path("state.json").exists());
    let topics = shipper.broker.run(&["topic", "list", "-o", "json"]).await;
    assert_eq!(topics.stdout.trim(), "[]", "no topic was created");
    // A device may be both read and written.
    let null = ["--json", "--on-bad-line", "skip", "--bad-lines-file", "/dev/null", "/dev/null"];
    shipper.ship_well(&null).await;
}

/// The topics, and the producers with their epochs: shows what was created and fenced.
async fn broker_state(shipper: &Shipper) -> String {
    let topics = shipper.broker.run(&["topic", "list"]).await;
    let list = ["producer", "list", "--topic", "app", "-o", "json"];
    let producers = shipper.broker.run(&list).await;
    assert_eq!((topics.code(), producers.code()), (0, 0), "{producers:?}");
    topics.stdout + &producers.stdout
}

#[tokio::test]
async fn a_refused_run_fences_nothing() {
    let shipper = Shipper::start().await;
    shipper.write("live.log", "one\ntwo\n");
    shipper.ship_well(&["live.log"]).await;
    shipper.write("other.log", "1\n2\n3\n");
    shipper.write("short.log", "one\n");
    let before = broker_state(&shipper).await;
    let skip = ["--on-bad-line", "skip"];
    for (words, code, expected) in [
        (&["--resume", "live.log", "live.log"][..], 2, "is given twice"),
        (&["--resume", "live.log", "-"], 2, "have no position"),
        (&["--batch", "0", "live.log"], 2, "--batch must be"),
        (&["--batch", "10001", "live.log"], 2, "--batch must be"),
        (&["--linger", "11m", "live.log"], 2, "--linger must be"),
        (&["--bad-lines-file", "no-folder/x.txt", "live.log"], 1, "no-folder/x.txt"),
        (&["--bad-lines-topic", "no topic", "live.log"], 1, "topic"),
        (&["--resume", "other.log"], 1, "is not the last message"),
        (&["--resume", "short.log"], 1, "the input has 1 line,"),
    ] {
        let refused = shipper.ship(&[&skip[..], words].concat()).await;
        assert_eq!(refused.code(), code, "{words:?}: {refused:?}");
        assert!(refused.stderr.contains(expected), "{words:?}: {refused:?}");
        assert_eq!(broker_state(&shipper).await, before, "{words:?}");
    }
    // Without --register, the topic for bad lines must exist.
    let words = [&skip[..], &["--bad-lines-topic", "nosuchtopic", "live.log"]].concat();
    let arguments = shipper.arguments(&words);
    let arguments: Vec<_> =
        arguments.iter().map(String::as_str).filter(|word| *word != "--register").collect();
    let refused = Trunkline::run(&arguments).await;
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(refused.stderr.contains("nosuchtopic"), "{refused:?}");
    assert_eq!(broker_state(&shipper).await, before);
    // A run that is not refused continues after the stored lines, and fences.
    shipper.write("live.log", "one\ntwo\nthree\n");
    shipper.ship_well(&["--resume", "live.log"]).await;
    assert_eq!(shipper.stored().await, ["one", "two", "three"]);
    assert_ne!(broker_state(&shipper).await, before);
}

/// After a kill, more is stored than the state knows, and there are bad lines among it.
#[tokio::test]
async fn bad_lines_of_a_killed_run_must_be_kept_where_it_kept_them() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "k:1\nbad\nk:2\n");
    let resume = ["--resume", "--state", "state.json", "--key-separator", ":"];
    let skip = ["--on-bad-line", "skip", "--bad-lines-file", "kept.txt"];
    shipper.ship_well(&[&resume[..], &skip, &["app.log"]].concat()).await;
    shipper.rewind_state("state.json");
    shipper.write("kept.txt", "");
    let before = broker_state(&shipper).await;
    for flags in [&[][..], &["--on-bad-line", "skip"]] {
        let refused = shipper.ship(&[&resume[..], flags, &["app.log"]].concat()).await;
        assert_usage(&refused, "give --on-bad-line skip and --bad-lines-file /");
        assert!(refused.stderr.contains("kept.txt"), "{refused:?}");
    }
    assert_eq!(broker_state(&shipper).await, before);
    let stderr = shipper.ship_well(&[&resume[..], &skip, &["app.log"]].concat()).await;
    assert!(stderr.contains("1 line skipped: 2 of "), "{stderr}");
    assert_eq!(fs::read_to_string(shipper.path("kept.txt")).unwrap(), "bad\n");
    assert_eq!(shipper.broker.stored().await, 2);
}

#[tokio::test]
async fn a_header_or_label_given_twice_is_refused() {
    let shipper = Shipper::start().await;
    let refused = shipper.ship_input(&["--header", "a=b", "--header", "a=c"], "x\n").await;
    assert_usage(&refused, "--header gives \"a\" twice");
    let value = format!("a={}", "x".repeat(20_000));
    for skip in [&[][..], &["--on-bad-line", "skip"]] {
        let refused =
            shipper.ship_input(&[&["--header", value.as_str()], skip].concat(), "x\n").await;
        assert_usage(&refused, "--header");
        assert!(refused.stderr.contains("over the limit of 16384"), "{refused:?}");
    }
    for command in ["create", "update"] {
        let labelled = ["topic", command, "app", "--label", "a=b", "--label", "a=c"];
        let refused = shipper.broker.run(&labelled).await;
        assert_usage(&refused, "--label gives \"a\" twice");
    }
}
