//! `produce` without `--on-bad-line`: one long line does not end the shipping of a log for good.

use crate::support::Shipper;

const LIMIT: usize = 1024 * 1024;

fn long_line(number: usize) -> String {
    format!("{number}{}\n", "x".repeat(LIMIT + 1))
}

#[tokio::test]
async fn a_log_with_a_long_line_is_shipped() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", format!("before\n{}after\n", long_line(2)));
    let told = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(told.contains("1 line cut to the limit: 2 of "), "{told}");
    let told = shipper.ship_well(&["--resume", "app.log"]).await;
    assert!(!told.contains("cut"), "{told}");
    let stored = shipper.read("app", &["-f", r"%s|%h\x1e"]).await;
    let cut = "line-bytes=1048578";
    let room = LIMIT - cut.len() + 1;
    assert_eq!(stored, ["6|".to_owned(), format!("{room}|{cut}"), "5|".to_owned()]);
    // With a key as well.
    shipper.write("keyed.log", format!("k:before\nk:{}k:after\n", long_line(2)));
    let keyed = ["--resume", "--key-separator", ":"];
    let told = shipper.ship_well(&[&keyed[..], &["keyed.log"]].concat()).await;
    assert!(told.contains("1 line cut to the limit: 2 of "), "{told}");
    // A line that is bad for another reason ends the run.
    shipper.append("keyed.log", "no key\nk:last\n");
    let told = shipper.ship_badly(&[&keyed[..], &["keyed.log"]].concat()).await;
    assert!(told.contains("line 4 of ") && told.contains("--on-bad-line skip|cut"), "{told}");
}

#[tokio::test]
async fn other_bad_lines_end_the_run_and_the_flag_is_named() {
    let shipper = Shipper::start().await;
    let long = long_line(1);
    let json = format!("{{\"payload\":\"{}\"}}\n", "x".repeat(LIMIT + 1));
    for (words, line) in [
        (&["--json"][..], json.as_str()),
        (&["--payload-field", "payload"], &json),
        (&["--json-payload"], &json),
        (&[], &long),
    ] {
        let told = shipper.ship_input(words, line).await;
        assert_eq!(told.code(), 1, "{told:?}");
        assert!(told.stderr.contains("line 1"), "{told:?}");
        assert!(told.stderr.contains("--on-bad-line skip|cut"), "{told:?}");
    }
    shipper.write("app.log", &json);
    let told = shipper.ship_badly(&["--resume", "--json", "app.log"]).await;
    assert!(told.contains("--on-bad-line skip|cut"), "{told}");
    // Whoever says it knows it.
    let told = shipper.ship_badly(&["--json", "--on-bad-line", "stop", "app.log"]).await;
    assert!(told.contains("line 1") && !told.contains("--on-bad-line"), "{told}");
    assert_eq!(shipper.broker.stored().await, 0);
}

/// What a run cut that was killed is counted off as one that was cut.
#[tokio::test]
async fn the_rule_is_kept_in_the_state() {
    let shipper = Shipper::start().await;
    shipper.write("app.log", format!("before\n{}", long_line(2)));
    let resume = ["--resume", "--state", "state.json"];
    shipper.ship_well(&[&resume[..], &["app.log"]].concat()).await;
    let state = std::fs::read_to_string(shipper.path("state.json")).unwrap();
    let mut state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["files"][0]["rule"]["on_bad_line"], "cut_or_stop");
    // As a kill would have left it, with both messages stored.
    let file = &mut state["files"][0];
    file["head"] = serde_json::Value::Null;
    file["position"] = serde_json::json!({ "offset": 0, "lines": 0, "last_line": null });
    state["next_sequence"] = 0.into();
    state["shipping"] = true.into();
    shipper.write("state.json", state.to_string());
    shipper.append("app.log", "after\n");
    let skip = [&resume[..], &["--on-bad-line", "skip", "app.log"]].concat();
    let told = shipper.ship_well(&skip).await;
    assert!(told.contains("2 lines were published before; 1 messages"), "{told}");
    assert_eq!(shipper.broker.stored().await, 3);
}
