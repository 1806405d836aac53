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
