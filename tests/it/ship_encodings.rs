//! `produce` on a database that lacks characters: only the broker can tell that a line is bad.

use std::{collections::BTreeSet, fs};

use crate::support::{Shipper, Trunkline, until};

const LINES: usize = 12_000;

/// Lines of which some have a header with the euro, and the payloads of the others.
fn lines(refused: &BTreeSet<usize>) -> (String, Vec<String>) {
    let (mut lines, mut kept) = (String::new(), Vec::new());
    for number in 1..=LINES {
        let line = match refused.contains(&number) {
            true => format!(r#"{{"payload":"{number}","headers":{{"price":"3 €"}}}}"#),
            false if number % 1_000 == 7 => "no JSON".to_owned(),
            false => {
                kept.push(number.to_string());
                format!(r#"{{"payload":"{number}","headers":{{"price":"3 ü"}}}}"#)
            }
        };
        lines.push_str(&line);
        lines.push('\n');
    }
    (lines, kept)
}

#[tokio::test]
async fn lines_that_the_broker_refuses_are_passed_over() {
    let shipper = Shipper::start_encoded("LATIN1").await;
    let refused = BTreeSet::from([1, 2, 4_500, 4_501, 9_000, LINES]);
    let (content, kept) = lines(&refused);
    shipper.write("app.log", &content);
    let skip = ["--json", "--on-bad-line", "skip", "--bad-lines-file", "bad.txt", "--batch", "500"];
    for resume in [&["--resume", "--state", "state.json"][..], &[]] {
        let before = usize::try_from(shipper.broker.stored().await).unwrap();
        let told = shipper.ship_well(&[&skip[..], resume, &["app.log"]].concat()).await;
        assert!(told.contains("18 lines skipped: "), "{told}");
        assert!(shipper.stored().await[before..] == kept, "all others are stored once, in order");
        let mut bad: Vec<_> = fs::read_to_string(shipper.path("bad.txt"))
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        let mut expected: Vec<_> = content
            .lines()
            .filter(|line| line.contains('\u{20ac}') || *line == "no JSON")
            .map(str::to_owned)
            .collect();
        bad.sort();
        expected.sort();
        assert!(bad == expected, "{} lines are kept", bad.len());
        shipper.write("bad.txt", "");
    }
    // They are not met again.
    shipper.append("app.log", "{\"payload\":\"last\"}\n");
    let words =
        [&skip[..], &["--resume", "--state", "state.json", "--restart", "app.log"]].concat();
    assert!(shipper.ship_well(&words).await.contains("18 lines skipped"));
    let words = [&skip[..], &["--resume", "--state", "state.json", "app.log"]].concat();
    assert!(!shipper.ship_well(&words).await.contains("skipped"));
    assert_eq!(shipper.stored().await.len(), 3 * kept.len() + 1);
}

#[tokio::test]
async fn a_run_that_stops_names_the_line_and_stores_what_came_before() {
    let shipper = Shipper::start_encoded("LATIN1").await;
    let good = "{\"payload\":\"good\"}\n";
    let bad = "{\"payload\":\"x\",\"headers\":{\"price\":\"3 \u{20ac}\"}}\n";
    shipper.write("app.log", format!("{good}{good}{bad}{good}"));
    let told = shipper.ship_badly(&["--json", "app.log"]).await;
    assert!(told.contains("line 3 of ") && told.contains("headers"), "{told}");
    assert!(told.contains("2 messages acknowledged"), "{told}");
    assert_eq!(shipper.stored().await, ["good", "good"]);
    let told = shipper.ship_badly(&["--json", "--resume", "app.log"]).await;
    assert!(told.contains("line 3 of ") && told.contains("--on-bad-line skip|cut"), "{told}");
    shipper.ship_well(&["--json", "--resume", "--on-bad-line", "skip", "app.log"]).await;
    assert_eq!(shipper.stored().await, ["good", "good", "good"]);
    // All messages have it: it is no line's fault.
    let flag = ["--header", "price=\u{20ac}", "--on-bad-line", "skip"];
    let told = shipper.ship_input(&flag, "a\nb\n").await;
    assert_eq!(told.code(), 2, "{told:?}");
    assert!(told.stderr.contains("--header: headers"), "{told:?}");
    // What cannot be read again is named, at least.
    let skip = ["--json", "--on-bad-line", "skip"];
    let told = shipper.ship_input(&skip, format!("{good}{bad}{good}")).await;
    assert_eq!(told.code(), 1, "{told:?}");
    assert!(told.stderr.contains("line 2 of -"), "{told:?}");
    assert!(told.stderr.contains("no line is stored from line "), "{told:?}");
}

#[tokio::test]
async fn bad_lines_go_to_a_topic_of_any_database() {
    let shipper = Shipper::start_encoded("LATIN1").await;
    shipper.write("3 \u{20ac}.log", "{\"\u{20ac}\":1}\n{\"payload\":\"good\"}\n");
    let words = ["--json", "--on-bad-line", "skip", "--bad-lines-topic", "bad", "3 \u{20ac}.log"];
    shipper.ship_well(&words).await;
    let kept = shipper.read("bad", &["-f", r"%h\x1e"]).await;
    assert_eq!(kept.len(), 1);
    assert!(kept[0].contains(r"/3 \u{20ac}.log,line=1,"), "{}", kept[0]);
    assert!(kept[0].contains(r"unknown field `\u{20ac}`"), "{}", kept[0]);
    assert_eq!(shipper.stored().await, ["good"]);
}

/// What is counted off after a kill never reaches across a line that the broker refused.
#[tokio::test]
async fn a_run_that_is_killed_among_refused_lines_stores_each_line_once() {
    let shipper = Shipper::start_encoded("LATIN1").await;
    let refused: BTreeSet<usize> = (0..24).map(|number| 250 + 487 * number).collect();
    let (content, kept) = lines(&refused);
    shipper.write("app.log", &content);
    let words = ["--json", "--on-bad-line", "skip", "--resume", "--batch", "50", "app.log"];
    let arguments = shipper.arguments(&words);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    for part in 1..10 {
        let mut run = Trunkline::spawn(&arguments);
        let enough = kept.len() * part / 10;
        until("enough is stored", async || {
            usize::try_from(shipper.broker.stored().await).unwrap() > enough
        })
        .await;
        run.kill().await;
    }
    shipper.ship_well(&words).await;
    assert!(shipper.stored().await == kept, "the lines are stored once, in order");
}
