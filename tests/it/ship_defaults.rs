//! `produce` without `--on-bad-line`: long lines are cut, and other bad lines end the run.

use crate::support::Shipper;

const LIMIT: usize = 1024 * 1024;

fn long_line(number: usize) -> String {
    format!("{number}{}\n", "x".repeat(LIMIT + 1))
}

#[tokio::test]
async fn a_long_line_is_cut_by_default() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", format!("before\n{}after\n", long_line(2)));
    let stderr = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(stderr.contains("1 line cut to the limit: 2 of "), "{stderr}");
    let stderr = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(!stderr.contains("cut"), "{stderr}");
    let stored = shipper.read("app", &["-f", r"%s|%h\x1e"]).await;
    let cut = "line-bytes=1048578";
    let room = LIMIT - cut.len() + 1;
    assert_eq!(stored, ["6|".to_owned(), format!("{room}|{cut}"), "5|".to_owned()]);
    // The same holds with keys.
    shipper.write("keyed.log", format!("k:before\nk:{}k:after\n", long_line(2)));
    let keyed = ["--resume", "--key-separator", ":"];
    let stderr = shipper.ship_well(&[&keyed[..], &["keyed.log"]].concat()).await;
    assert!(stderr.contains("1 line cut to the limit: 2 of "), "{stderr}");
    // A line that is bad for another reason ends the run.
    shipper.append("keyed.log", "no key\nk:last\n");
    let stderr = shipper.ship_in_vain(&[&keyed[..], &["keyed.log"]].concat()).await;
    assert!(stderr.contains("line 4 of ") && stderr.contains("--on-bad-line skip|cut"), "{stderr}");
}

#[tokio::test]
async fn other_bad_lines_end_the_run_with_advice() {
    let shipper = Shipper::start().await;
    let long = long_line(1);
    let json = format!("{{\"payload\":\"{}\"}}\n", "x".repeat(LIMIT + 1));
    for (words, line) in [
        (&["--json"][..], json.as_str()),
        (&["--payload-field", "payload"], &json),
        (&["--json-payload"], &json),
        (&[], &long),
    ] {
        let ended = shipper.ship_input(words, line).await;
        assert_eq!(ended.code(), 1, "{ended:?}");
        assert!(ended.stderr.contains("line 1"), "{ended:?}");
        assert!(ended.stderr.contains("--on-bad-line skip|cut"), "{ended:?}");
    }
    shipper.write("app.log", &json);
    let stderr = shipper.ship_in_vain(&["--resume", "--json", "app.log"]).await;
    assert!(stderr.contains("--on-bad-line skip|cut"), "{stderr}");
    // The advice is omitted if the option is given.
    let stderr = shipper.ship_in_vain(&["--json", "--on-bad-line", "stop", "app.log"]).await;
    assert!(stderr.contains("line 1") && !stderr.contains("--on-bad-line"), "{stderr}");
    assert_eq!(shipper.broker.stored().await, 0);
}

/// After a kill, the rest of its lines is counted by the rule of the run that stored them.
#[tokio::test]
async fn the_rule_for_bad_lines_is_kept_in_the_state() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", format!("before\n{}", long_line(2)));
    let resume = ["--resume", "--state", "state.json"];
    shipper.ship_well(&[&resume[..], &["app.log"]].concat()).await;
    let state = std::fs::read_to_string(shipper.path("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["files"][0]["rule"]["on_bad_line"], "cut_or_stop");
    shipper.rewind_state("state.json");
    shipper.append("app.log", "after\n");
    let skip = [&resume[..], &["--on-bad-line", "skip", "app.log"]].concat();
    let stderr = shipper.ship_well(&skip).await;
    assert!(stderr.contains("2 lines published before; 1 message"), "{stderr}");
    assert_eq!(shipper.broker.stored().await, 3);
}
