//! `produce --json`, and JSON of other tools: no field is dropped unless requested.

use crate::support::Shipper;

#[tokio::test]
async fn objects_of_another_form_are_refused() {
    let shipper = Shipper::start().await;
    for (line, problem) in [
        (
            r#"{"log":"user 42 paid\n","stream":"stdout"}"#,
            "column 6, of -: read JSON: unknown field",
        ),
        (r#"{"value":"x","key":"k1"}"#, "unknown field `value`"),
        (r#"{"Payload":"x"}"#, "--payload-field"),
        (r#"{"key":"k"}"#, "missing field `payload`"),
        (r#"{"payload":"x","headers":{"a":"1","a":"2"}}"#, "duplicate header `a`"),
        (r#"{"payload":"x","payload":"y"}"#, "duplicate field `payload`"),
        (r#"{"payload":null}"#, "invalid type: null"),
        (r#"["a","k",{"h":"1"},1,null,null]"#, "sequence, expected an object"),
    ] {
        let input = format!("{{\"payload\":\"good\"}}\n{line}\n{{\"payload\":\"after\"}}\n");
        let before = usize::try_from(shipper.broker.stored().await).unwrap();
        let refused = shipper.ship_input(&["--json"], input).await;
        // The first run also says that it creates the topic.
        let problems = refused.stderr.lines().filter(|line| !line.contains(" topic app"));
        assert_eq!((refused.code(), problems.count()), (1, 1), "{refused:?}");
        assert!(refused.stderr.contains("line 2, column "), "{refused:?}");
        assert!(refused.stderr.contains(problem), "{refused:?}");
        assert!(refused.stderr.contains("1 message acknowledged"), "{refused:?}");
        let stored = shipper.stored().await;
        assert_eq!(stored[before..], ["good"]);
    }
}

#[tokio::test]
async fn printed_json_can_be_shipped_again() {
    let shipper = Shipper::start().await;
    let lines = concat!(
        r#"{"payload":{"base64":"/wD+"},"key":{"base64":""},"headers":{"ä":"\u0007"}}"#,
        "\n",
        r#"{"payload":"","key":null,"headers":null}"#,
        "\r\n",
    );
    shipper.ship_input(&["--json"], lines).await.assert().success();
    let first = shipper.read("app", &["-f", r"%k|%h|%s|%p\x1e"]).await;
    let printed = shipper.broker.run(&["topic", "read", "app", "--json"]).await.stdout;
    assert_eq!(printed.lines().count(), 2);
    shipper.ship_input(&["--json"], printed).await.assert().success();
    let all = shipper.read("app", &["-f", r"%k|%h|%s|%p\x1e"]).await;
    assert_eq!(all, [first.clone(), first].concat());
}

#[tokio::test]
async fn json_of_other_tools_is_shipped_by_field_or_as_a_whole() {
    let shipper = Shipper::start().await;
    let lines = "{\"log\":\"paid\\n\",\"id\":7}\n{\"log\":{\"a\": 1.0},\"id\":\"k\"}\n";
    let field = ["--payload-field", "log", "--key-field", "id"];
    shipper.ship_input(&field, lines).await.assert().success();
    shipper.ship_input(&["--json-payload"], lines).await.assert().success();
    shipper.ship_input(&["--json-payload", "--key-field", "id"], lines).await.assert().success();
    let (first, second) = lines.trim_end().split_once('\n').unwrap();
    let expected = [
        "7|paid\n".to_owned(),
        "k|{\"a\": 1.0}".to_owned(),
        format!("|{first}"),
        format!("|{second}"),
        format!("7|{first}"),
        format!("k|{second}"),
    ];
    assert_eq!(shipper.read("app", &["-f", r"%k|%p\x1e"]).await, expected);
    for (words, line, problem) in [
        (&["--payload-field", "log"][..], "{\"msg\":1}", "its field \"log\" is missing or null"),
        (&["--json-payload"], "{\"log\":", "read JSON: EOF"),
        (&["--json-payload", "--key-field", "id"], "{}", "missing field `id`"),
    ] {
        let refused = shipper.ship_input(words, line).await;
        assert_eq!(refused.code(), 1, "{refused:?}");
        assert!(
            refused.stderr.contains("line 1") && refused.stderr.contains(problem),
            "{refused:?}"
        );
    }
    for words in [
        &["--key-field", "id"][..],
        &["--payload-field", "a", "--json-payload"],
        &["--payload-field", "a", "--key-separator", ":"],
    ] {
        let refused = shipper.ship_input(words, "{}\n").await;
        assert_eq!(refused.code(), 2, "{refused:?}");
    }
    assert_eq!(shipper.broker.stored().await, 6);
}
