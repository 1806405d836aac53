//! `produce` to a database whose encoding lacks characters: the broker refuses lines.

use std::{collections::BTreeSet, fs};

use crate::support::Shipper;

const LINES: usize = 12_000;

/// A log file in JSON, some lines of which the broker or the command refuses.
struct Log {
    content: String,
    /// The payloads of the good lines.
    kept: Vec<String>,
}

/// Lines of which these have a header that LATIN1 cannot store, and some others are not JSON.
fn log_with_refused(refused: &BTreeSet<usize>) -> Log {
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
    Log { content: lines, kept }
}

#[tokio::test]
async fn lines_that_the_broker_refuses_are_skipped() {
    let shipper = Shipper::start_encoded("LATIN1").await;
    let refused = BTreeSet::from([1, 2, 4_500, 4_501, 9_000, LINES]);
    let Log { content, kept } = log_with_refused(&refused);
    shipper.write("app.log", &content);
    let skip = ["--json", "--on-bad-line", "skip", "--bad-lines-file", "bad.txt", "--batch", "500"];
    for resume in [&["--resume", "--state", "state.json"][..], &[]] {
        let before = usize::try_from(shipper.broker.stored().await).unwrap();
        let stderr = shipper.ship_well(&[&skip[..], resume, &["app.log"]].concat()).await;
        assert!(stderr.contains("18 lines skipped: "), "{stderr}");
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
    // Skipped lines are not reported again.
    shipper.append("app.log", "{\"payload\":\"last\"}\n");
    let words =
        [&skip[..], &["--resume", "--state", "state.json", "--restart", "app.log"]].concat();
    assert!(shipper.ship_well(&words).await.contains("18 lines skipped"));
    let words = [&skip[..], &["--resume", "--state", "state.json", "app.log"]].concat();
    assert!(!shipper.ship_well(&words).await.contains("skipped"));
    assert_eq!(shipper.stored().await.len(), 3 * kept.len() + 1);
}

#[tokio::test]
async fn a_run_that_stops_names_the_line_and_stores_earlier_lines() {
    let shipper = Shipper::start_encoded("LATIN1").await;
    let good = "{\"payload\":\"good\"}\n";
    let bad = "{\"payload\":\"x\",\"headers\":{\"price\":\"3 \u{20ac}\"}}\n";
    shipper.write("app.log", format!("{good}{good}{bad}{good}"));
    let stderr = shipper.ship_in_vain(&["--json", "app.log"]).await;
    assert!(stderr.contains("line 3 of ") && stderr.contains("headers"), "{stderr}");
    assert!(stderr.contains("2 messages acknowledged"), "{stderr}");
    assert_eq!(shipper.stored().await, ["good", "good"]);
    let stderr = shipper.ship_in_vain(&["--json", "--resume", "app.log"]).await;
    assert!(stderr.contains("line 3 of ") && stderr.contains("--on-bad-line skip|cut"), "{stderr}");
    shipper.ship_well(&["--json", "--resume", "--on-bad-line", "skip", "app.log"]).await;
    assert_eq!(shipper.stored().await, ["good", "good", "good"]);
    // A bad header of the command line is not the fault of any line.
    let flag = ["--header", "price=\u{20ac}", "--on-bad-line", "skip"];
    let refused = shipper.ship_input(&flag, "a\nb\n").await;
    assert_eq!(refused.code(), 2, "{refused:?}");
    assert!(refused.stderr.contains("--header: headers"), "{refused:?}");
    // Standard input cannot be read again, so the lines that were not stored are reported.
    let skip = ["--json", "--on-bad-line", "skip"];
    let refused = shipper.ship_input(&skip, format!("{good}{bad}{good}")).await;
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(refused.stderr.contains("line 2 of -"), "{refused:?}");
    assert!(refused.stderr.contains("no line is stored from line "), "{refused:?}");
}

#[tokio::test]
async fn bad_lines_can_be_kept_in_a_topic_whatever_the_encoding() {
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

/// Counting lines after a kill must never cross a line that the broker refused.
#[tokio::test]
async fn runs_that_are_killed_among_refused_lines_store_each_line_once() {
    let shipper = Shipper::start_encoded("LATIN1").await;
    let refused: BTreeSet<usize> = (0..24).map(|number| 250 + 487 * number).collect();
    let Log { content, kept } = log_with_refused(&refused);
    shipper.write("app.log", &content);
    let words = ["--json", "--on-bad-line", "skip", "--resume", "--batch", "50", "app.log"];
    shipper.ship_and_kill_at_each_tenth(&words, kept.len()).await;
    shipper.ship_well(&words).await;
    assert!(shipper.stored().await == kept, "the lines are stored once, in order");
}
