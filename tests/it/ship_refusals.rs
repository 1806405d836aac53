//! `produce` with flags that cannot be: refused before anything is sent, registered or shut out.

use std::{fs, os::unix::fs::symlink};

use crate::support::{Finished, Shipper, Trunkline};

#[track_caller]
fn assert_usage(told: &Finished, named: &str) {
    assert_eq!(told.code(), 2, "{told:?}");
    assert!(told.stderr.contains(named), "{named}: {told:?}");
}

#[tokio::test]
async fn bad_lines_are_not_written_to_what_is_read() {
    let shipper = Shipper::start().await;
    shipper.write("self.log", "no JSON\n");
    symlink(shipper.path("self.log"), shipper.path("link.log")).unwrap();
    fs::hard_link(shipper.path("self.log"), shipper.path("hard.log")).unwrap();
    shipper.write("other.log", "");
    let skip = ["--json", "--on-bad-line", "skip", "--bad-lines-file"];
    for file in ["self.log", "link.log", "hard.log"] {
        for words in [&["self.log"][..], &["--resume", "other.log", "self.log"]] {
            let told = shipper.ship(&[&skip[..], &[file], words].concat()).await;
            assert_usage(&told, "--bad-lines-file");
            assert!(told.stderr.contains("self.log itself"), "{told:?}");
        }
    }
    // Standard input is a file, too.
    let arguments = shipper.arguments(&[&skip[..], &["self.log"]].concat());
    let mut command = Trunkline::command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    command.stdin(fs::File::open(shipper.path("self.log")).unwrap());
    let output = crate::support::soon("the end", command.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    // The state file, also before it is there.
    symlink("state.json", shipper.path("state.link")).unwrap();
    for file in ["state.json", "state.link"] {
        let state = ["--resume", "--state", "state.json", "self.log"];
        let told = shipper.ship(&[&skip[..], &[file], &state].concat()).await;
        assert_usage(&told, "--bad-lines-file names the state file");
    }
    let told = shipper.ship(&["--resume", "--state", "self.log", "self.log"]).await;
    assert_usage(&told, "--state names the input");
    assert_eq!(fs::read_to_string(shipper.path("self.log")).unwrap(), "no JSON\n");
    assert!(!shipper.path("state.json").exists());
    let topics = ["--endpoint", &shipper.broker.endpoint, "topic", "list", "-o", "json"];
    assert_eq!(Trunkline::run(&topics).await.stdout.trim(), "[]", "no topic was made");
    // A device is written to and read without any harm.
    let null = ["--json", "--on-bad-line", "skip", "--bad-lines-file", "/dev/null", "/dev/null"];
    shipper.ship_well(&null).await;
}

/// The epoch counts who has been shut out, and the topics tell what was made.
async fn broker_state(shipper: &Shipper) -> String {
    let endpoint = ["--endpoint", &shipper.broker.endpoint];
    let topics = Trunkline::run(&[&endpoint[..], &["topic", "list"]].concat()).await;
    let list = ["producer", "list", "--topic", "app", "-o", "json"];
    let producers = Trunkline::run(&[&endpoint[..], &list].concat()).await;
    assert_eq!((topics.code(), producers.code()), (0, 0), "{producers:?}");
    topics.stdout + &producers.stdout
}

#[tokio::test]
async fn a_run_that_is_refused_shuts_nobody_out() {
    let shipper = Shipper::start().await;
    shipper.write("live.log", "one\ntwo\n");
    shipper.ship_well(&["live.log"]).await;
    shipper.write("other.log", "1\n2\n3\n");
    shipper.write("short.log", "one\n");
    let before = broker_state(&shipper).await;
    let skip = ["--on-bad-line", "skip"];
    for (words, code, named) in [
        (&["--resume", "live.log", "live.log"][..], 2, "is given twice"),
        (&["--resume", "live.log", "-"], 2, "have no position"),
        (&["--batch", "0", "live.log"], 2, "--batch must be"),
        (&["--batch", "10001", "live.log"], 2, "--batch must be"),
        (&["--linger", "11m", "live.log"], 2, "--linger must be"),
        (&["--bad-lines-file", "no-folder/x.txt", "live.log"], 1, "no-folder/x.txt"),
        (&["--bad-lines-topic", "no topic", "live.log"], 1, "topic"),
        (&["--resume", "other.log"], 1, "is not the last message"),
        (&["--resume", "short.log"], 1, "there are 1 lines"),
    ] {
        let told = shipper.ship(&[&skip[..], words].concat()).await;
        assert_eq!(told.code(), code, "{words:?}: {told:?}");
        assert!(told.stderr.contains(named), "{words:?}: {told:?}");
        assert_eq!(broker_state(&shipper).await, before, "{words:?}");
    }
    // Without --register, the topic for bad lines must be there.
    let words = [&skip[..], &["--bad-lines-topic", "nosuchtopic", "live.log"]].concat();
    let arguments = shipper.arguments(&words);
    let arguments: Vec<_> =
        arguments.iter().map(String::as_str).filter(|word| *word != "--register").collect();
    let told = Trunkline::run(&arguments).await;
    assert_eq!(told.code(), 1, "{told:?}");
    assert!(told.stderr.contains("nosuchtopic"), "{told:?}");
    assert_eq!(broker_state(&shipper).await, before);
    // What is not refused goes on behind what is stored, and shuts out.
    shipper.write("live.log", "one\ntwo\nthree\n");
    shipper.ship_well(&["--resume", "live.log"]).await;
    assert_eq!(shipper.stored().await, ["one", "two", "three"]);
    assert_ne!(broker_state(&shipper).await, before);
}

/// As a kill leaves it: more is stored than is written down, and bad lines lie in between.
#[tokio::test]
async fn bad_lines_of_a_killed_run_are_kept_where_it_kept_them() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", "k:1\nbad\nk:2\n");
    let resume = ["--resume", "--state", "state.json", "--key-separator", ":"];
    let skip = ["--on-bad-line", "skip", "--bad-lines-file", "kept.txt"];
    shipper.ship_well(&[&resume[..], &skip, &["app.log"]].concat()).await;
    let state = fs::read_to_string(shipper.path("state.json")).unwrap();
    let mut state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let file = &mut state["files"][0];
    file["position"] = serde_json::json!({ "offset": 0, "lines": 0, "last_line": null });
    file["head"] = serde_json::Value::Null;
    state["next_sequence"] = 0.into();
    state["shipping"] = true.into();
    shipper.write("state.json", state.to_string());
    shipper.write("kept.txt", "");
    let before = broker_state(&shipper).await;
    for flags in [&[][..], &["--on-bad-line", "skip"]] {
        let told = shipper.ship(&[&resume[..], flags, &["app.log"]].concat()).await;
        assert_usage(&told, "give --on-bad-line skip and --bad-lines-file /");
        assert!(told.stderr.contains("kept.txt"), "{told:?}");
    }
    assert_eq!(broker_state(&shipper).await, before);
    let told = shipper.ship_well(&[&resume[..], &skip, &["app.log"]].concat()).await;
    assert!(told.contains("1 line skipped: 2 of "), "{told}");
    assert_eq!(fs::read_to_string(shipper.path("kept.txt")).unwrap(), "bad\n");
    assert_eq!(shipper.broker.stored().await, 2);
}

#[tokio::test]
async fn a_name_has_one_value() {
    let shipper = Shipper::start().await;
    let told = shipper.ship_input(&["--header", "a=b", "--header", "a=c"], "x\n").await;
    assert_usage(&told, "--header gives \"a\" twice");
    let value = format!("a={}", "x".repeat(20_000));
    for skip in [&[][..], &["--on-bad-line", "skip"]] {
        let told = shipper.ship_input(&[&["--header", value.as_str()], skip].concat(), "x\n").await;
        assert_usage(&told, "--header");
        assert!(told.stderr.contains("over the limit of 16384"), "{told:?}");
    }
    for command in ["create", "update"] {
        let topic = ["--endpoint", &shipper.broker.endpoint, "topic", command, "app"];
        let labels = ["--label", "a=b", "--label", "a=c"];
        let told = Trunkline::run(&[&topic[..], &labels].concat()).await;
        assert_usage(&told, "--label gives \"a\" twice");
    }
}
