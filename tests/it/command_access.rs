//! The commands for tokens, grants and owners, and how the command calls with a token.

use std::fs;

use serde_json::Value;

use crate::support::{Finished, TestBroker, TestDatabase, Trunkline};

fn json(finished: &Finished) -> Value {
    assert_eq!(finished.code(), 0, "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

/// The one line that a command printed.
#[track_caller]
fn line(finished: Finished) -> String {
    assert_eq!((finished.code(), finished.stdout.lines().count()), (0, 1), "{finished:?}");
    finished.stdout.trim_end().to_owned()
}

/// Tokens can be prepared before a broker authenticates.
#[tokio::test]
async fn tokens_are_created_listed_rotated_and_revoked() {
    let broker = TestBroker::start().await;
    let create = ["token", "create", "shop", "--description", "the till", "--valid-for", "90d"];
    let created = broker.run(&create).await;
    assert!(created.stderr.contains("not shown again"), "{created:?}");
    let secret = line(created);
    let (id, rest) = secret.strip_prefix("tlk_").unwrap().split_once('_').unwrap();
    assert!(!rest.is_empty());

    let listed = broker.run(&["token", "list"]).await;
    let row = listed.stdout.lines().nth(1).unwrap();
    assert!(row.starts_with(id) && row.ends_with("the till"), "{listed:?}");
    assert!(!listed.stdout.contains(rest), "{listed:?}");
    let token =
        &json(&broker.run(&["token", "list", "--principal", "shop", "-o", "json"]).await)[0];
    assert_eq!((&token["token_id"], &token["principal"]), (&id.into(), &"shop".into()));
    assert_eq!(token["revoke_time"], Value::Null);
    assert!(token["expire_time"].is_string(), "{token}");
    assert_eq!(
        json(&broker.run(&["token", "list", "--principal", "x", "-o", "json"]).await),
        Value::Array(vec![])
    );

    let rotated = broker.run(&["token", "rotate", id, "--overlap", "10m", "-o", "json"]).await;
    assert!(rotated.stderr.contains(id), "{rotated:?}");
    let rotated = json(&rotated);
    let new = rotated["token_id"].as_str().unwrap();
    assert!(rotated["secret"].as_str().unwrap().starts_with(&format!("tlk_{new}_")), "{rotated}");
    assert_eq!(rotated["replaced"]["token_id"], id);
    assert_eq!(rotated["description"], "the till");

    let revoked = broker.run(&["token", "revoke", new]).await;
    assert_eq!(line(revoked), format!("revoked token {new} of shop"));
    let tokens = json(&broker.run(&["token", "list", "-o", "json"]).await);
    let is_revoked = |token: &&Value| token["revoke_time"].is_string();
    let revoked: Vec<_> = tokens.as_array().unwrap().iter().filter(is_revoked).collect();
    assert_eq!(revoked.len(), 1, "{tokens}");
    assert_eq!(revoked[0]["token_id"], new);
}

#[tokio::test]
async fn commands_about_tokens_report_what_is_wrong() {
    let broker = TestBroker::start().await;
    for (arguments, code, problem) in [
        (&["token", "revoke", "nosuchtoken1"][..], 1, "TOKEN_NOT_FOUND"),
        (&["token", "rotate", "nosuchtoken1"], 1, "TOKEN_NOT_FOUND"),
        (&["token", "create", "-shop"], 2, "-s"),
        (&["token", "create", "a shop"], 1, "principal"),
        (&["token", "create", ""], 2, "empty"),
        (&["token", "create", "shop", "--valid-for", "0s"], 1, "valid_for"),
        (&["token", "create", "shop", "--valid-for", "soon"], 2, "--valid-for"),
        (&["token", "create", "shop", "--token", "tlk_x"], 2, "--token"),
        (&["grant", "add", "shop", "own", "orders"], 2, "publish"),
        (&["grant", "add", "shop", "publish", "or*ders"], 1, "topics"),
        (&["grant", "remove", "shop", "publish", "orders"], 1, "GRANT_NOT_FOUND"),
        (&["quota", "set", "shop", "speed", "1"], 2, "messages-per-second"),
        (&["quota", "set", "shop", "streams", "many"], 2, "whole number"),
        (&["quota", "set", "shop", "streams", "1MiB"], 2, "whole number"),
        (&["quota", "set", "shop", "bytes-per-second", "fast"], 2, "fast"),
        (&["quota", "set", "shop", "streams", "0"], 1, "value"),
        (&["quota", "set", "a shop", "streams", "1"], 1, "principal"),
        (&["quota", "set", "shop", "streams"], 2, "VALUE"),
        (&["quota", "unset", "shop", "streams"], 1, "QUOTA_NOT_FOUND"),
        (&["producer", "assign", "--topic", "orders", "till", "shop"], 1, "TOPIC_NOT_FOUND"),
        (&["consumer", "assign", "--topic", "orders", "till", "shop"], 1, "TOPIC_NOT_FOUND"),
    ] {
        let refused = broker.run(arguments).await;
        assert_eq!(refused.code(), code, "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains(problem), "{arguments:?}: {refused:?}");
        assert_eq!(refused.stdout, "", "{arguments:?}");
    }
}

#[tokio::test]
async fn grants_and_owners_are_changed_and_shown() {
    let broker = TestBroker::start().await;
    let grant = ["grant", "add", "shop", "publish", "orders.*"];
    for _ in 0..2 {
        assert_eq!(line(broker.run(&grant).await), "granted publish on orders.* to shop");
    }
    line(broker.run(&["grant", "add", "billing", "consume", "orders.eu"]).await);
    let listed = broker.run(&["grant", "list"]).await.stdout;
    let rows: Vec<Vec<&str>> =
        listed.lines().map(|row| row.split_whitespace().take(3).collect()).collect();
    let expected = [
        ["PRINCIPAL", "OPERATION", "TOPICS"],
        ["billing", "consume", "orders.eu"],
        ["shop", "publish", "orders.*"],
    ];
    assert_eq!(rows, expected, "{listed}");
    let remove = ["grant", "remove", "shop", "publish", "orders.*"];
    line(broker.run(&remove).await);
    let left = json(&broker.run(&["grant", "list", "-o", "json"]).await);
    assert_eq!((left.as_array().unwrap().len(), &left[0]["principal"]), (1, &"billing".into()));

    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    for (kind, id) in [("producer", "producer"), ("consumer", "billing")] {
        let describe = [kind, "describe", "--topic", "orders", id, "-o", "json"];
        assert_eq!(json(&broker.run(&describe).await)["owner"], "");
        let assigned = broker.run(&[kind, "assign", "--topic", "orders", id, "shop"]).await;
        assert_eq!(line(assigned), format!("{kind} {id} on topic orders belongs to shop"));
        assert_eq!(json(&broker.run(&describe).await)["owner"], "shop");
    }
}

#[tokio::test]
async fn quotas_are_set_listed_and_unset() {
    let broker = TestBroker::start().await;
    let set = ["quota", "set", "shop", "bytes-per-second", "1MiB"];
    assert_eq!(line(broker.run(&set).await), "set bytes-per-second of shop to 1MiB");
    line(broker.run(&["quota", "set", "*", "streams", "7"]).await);
    line(broker.run(&["quota", "set", "*", "streams", "8"]).await);
    let listed = broker.run(&["quota", "list"]).await.stdout;
    let rows: Vec<Vec<&str>> =
        listed.lines().map(|row| row.split_whitespace().take(3).collect()).collect();
    let expected = [
        ["PRINCIPAL", "LIMIT", "VALUE"],
        ["*", "streams", "8"],
        ["shop", "bytes-per-second", "1048576"],
    ];
    assert_eq!(rows, expected, "{listed}");
    let of_all = json(&broker.run(&["quota", "list", "--principal", "*", "-o", "json"]).await);
    assert_eq!((&of_all[0]["limit"], &of_all[0]["value"]), (&"streams".into(), &8.into()));
    assert_eq!((of_all.as_array().unwrap().len(), &of_all[0]["changed_by"]), (1, &"".into()));
    let unset = broker.run(&["quota", "unset", "*", "streams"]).await;
    assert_eq!(line(unset), "removed the limit of streams of *");
    let left = json(&broker.run(&["quota", "list", "-o", "json"]).await);
    assert_eq!((left.as_array().unwrap().len(), &left[0]["principal"]), (1, &"shop".into()));
}

#[tokio::test]
async fn a_first_token_that_cannot_be_printed_is_an_error() {
    let database = TestDatabase::create().await;
    let bootstrap = ["token", "bootstrap", "--database-url", &database.url];
    let full = std::path::Path::new("/dev/full");
    assert_eq!(Trunkline::run_into(&bootstrap, full).await.code(), Some(1));
    // As the error says, the token must be revoked first.
    assert_eq!(Trunkline::run(&bootstrap).await.code(), 1);
    let revoke = "update trunkline.access_token set revoked_at = now()";
    database.sql().await.batch_execute(revoke).await.unwrap();
    line(Trunkline::run(&bootstrap).await);
}

#[tokio::test]
async fn the_first_administrator_is_nobody_who_exists_with_less() {
    let database = TestDatabase::create().await;
    let sql = database.sql().await;
    let bootstrap = async |more: &[&str]| {
        let arguments = ["token", "bootstrap", "--database-url", &database.url];
        Trunkline::run(&[&arguments, more].concat()).await
    };
    Trunkline::run(&["migrate", "--database-url", &database.url]).await.assert().success();
    for (give, take, what) in [
        (
            "insert into trunkline.access_token (id, principal, hash) values ('a', 'admin', 'a')",
            "update trunkline.access_token set revoked_at = now()",
            "has valid tokens already",
        ),
        (
            "insert into trunkline.access_grant values ('admin', 'admin', 'orders')",
            "delete from trunkline.access_grant",
            "has grants already",
        ),
        (
            "insert into trunkline.topic (name) values ('orders');
             insert into trunkline.producer_topic (topic_id, producer_id, owner)
             select id, 'web', 'admin' from trunkline.topic",
            "update trunkline.producer_topic set owner = 'shop'",
            "has producers or consumers already",
        ),
    ] {
        sql.batch_execute(give).await.unwrap();
        let refused = bootstrap(&[]).await;
        assert_eq!((refused.code(), refused.stdout.as_str()), (1, ""), "{refused:?}");
        assert!(refused.stderr.contains(&format!("admin {what}")), "{refused:?}");
        assert!(refused.stderr.contains("--principal"), "{refused:?}");
        sql.batch_execute(take).await.unwrap();
    }
    let malformed = bootstrap(&["--principal", "a b"]).await;
    assert_eq!(malformed.code(), 2, "{malformed:?}");
    assert!(malformed.stderr.contains("--principal"), "{malformed:?}");
    assert_eq!(bootstrap(&["--principal", "shop"]).await.code(), 1, "it owns a producer");
    let made = bootstrap(&["--principal", "root"]).await;
    assert!(made.stderr.contains("first administrator, root;"), "{made:?}");
    line(made);
    let is_administrator = "select count(*) from trunkline.access_grant
        where (principal, operation, topics) = ('root', 'admin', '*')";
    let count: i64 = sql.query_one(is_administrator, &[]).await.unwrap().get(0);
    assert_eq!(count, 1);
}

/// Runs a command with variables.
async fn run_with(variables: &[(&str, &str)], arguments: &[&str]) -> Finished {
    let mut command = Trunkline::command(arguments);
    command.envs(variables.iter().copied());
    Trunkline::finish(command).await
}

#[tokio::test]
async fn the_first_administrator_is_made_once_and_makes_the_others() {
    let database = TestDatabase::create().await;
    let bootstrap = ["token", "bootstrap", "--database-url", &database.url];
    let made = Trunkline::run(&bootstrap).await;
    assert!(made.stderr.contains("not shown again"), "{made:?}");
    let admin = line(made);
    let again = Trunkline::run(&bootstrap).await;
    assert_eq!((again.code(), again.stdout.as_str()), (1, ""), "{again:?}");
    assert!(again.stderr.contains("there is one with a valid token already"), "{again:?}");

    let options =
        ["--listen", "127.0.0.1:0", "--database-url", &database.url, "--auth", "required"];
    let (_broker, endpoint) = Trunkline::serve(&options).await;
    let with = |arguments: &[&str]| {
        let at = ["--endpoint".to_owned(), endpoint.clone()];
        at.into_iter().chain(arguments.iter().map(|&it| it.to_owned())).collect::<Vec<_>>()
    };
    let run = async |token: &str, arguments: &[&str]| {
        let arguments = with(arguments);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run_with(&[("TRUNKLINE_TOKEN", token)], &arguments).await
    };
    let me = json(&run(&admin, &["whoami", "-o", "json"]).await);
    assert_eq!((&me["principal"], &me["administrator"]), (&"admin".into(), &true.into()), "{me}");
    assert_eq!(me["authenticated"], true);

    let shop = line(run(&admin, &["token", "create", "shop"]).await);
    line(run(&admin, &["grant", "add", "shop", "publish", "orders"]).await);
    line(run(&admin, &["topic", "create", "orders"]).await);
    line(run(&shop, &["producer", "register", "--topic", "orders", "till"]).await);
    let me = run(&shop, &["whoami"]).await.stdout;
    let expected = ["principal:", "shop", "administrator:", "no", "grant:", "publish orders"];
    for text in expected {
        assert!(me.contains(text), "{me}");
    }
    // --register creates what is missing, which the topic is not.
    line(run(&admin, &["grant", "add", "shop", "consume", "orders"]).await);
    for (topic, code) in [("orders", 0), ("other", 1)] {
        let words = ["consume", topic, "--consumer", "c", "--register", "--until-caught-up"];
        let consumed = run(&shop, &words).await;
        assert_eq!(consumed.code(), code, "{consumed:?}");
        assert_eq!(consumed.stderr.contains("NOT_GRANTED"), code == 1, "{consumed:?}");
    }
    let refused = run(&shop, &["topic", "delete", "orders"]).await;
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(refused.stderr.contains("NOT_GRANTED"), "{refused:?}");
    assert!(refused.stderr.contains("`trunkline whoami`"), "{refused:?}");

    let nobody = Trunkline::run(&["--endpoint", &endpoint, "topic", "list"]).await;
    assert_eq!(nobody.code(), 1, "{nobody:?}");
    assert!(nobody.stderr.contains("TOKEN_MISSING"), "{nobody:?}");
    assert!(nobody.stderr.contains("--token-file"), "{nobody:?}");
    // Health needs no token.
    Trunkline::run(&["--endpoint", &endpoint, "health"]).await.assert().success();
}

#[tokio::test]
async fn a_token_comes_from_a_flag_a_variable_or_a_context() {
    let database = TestDatabase::create().await;
    let bootstrap = ["token", "bootstrap", "--database-url", &database.url];
    let admin = line(Trunkline::run(&bootstrap).await);
    let options =
        ["--listen", "127.0.0.1:0", "--database-url", &database.url, "--auth", "required"];
    let (_broker, endpoint) = Trunkline::serve(&options).await;
    let folder = tempfile::tempdir().unwrap();
    let (good, wrong) = (folder.path().join("good"), folder.path().join("wrong"));
    fs::write(&good, format!("{admin}\n")).unwrap();
    fs::write(&wrong, "tlk_aaaaaaaaaaaa_wrong").unwrap();
    let (good, wrong) = (good.to_str().unwrap(), wrong.to_str().unwrap());
    let config = folder.path().to_str().unwrap();
    let run = async |variables: &[(&str, &str)], arguments: &[&str]| {
        let variables = [&[("XDG_CONFIG_HOME", config)], variables].concat();
        run_with(&variables, arguments).await.code()
    };
    let list = ["--endpoint", &endpoint, "topic", "list"];
    let file = ("TRUNKLINE_TOKEN_FILE", good);
    assert_eq!(run(&[file], &list).await, 0);
    assert_eq!(run(&[("TRUNKLINE_TOKEN_FILE", wrong)], &list).await, 1);
    let with_flag = [&list[..], &["--token-file", good]].concat();
    assert_eq!(run(&[("TRUNKLINE_TOKEN_FILE", wrong)], &with_flag).await, 0);
    assert_eq!(run(&[file, ("TRUNKLINE_TOKEN", &admin)], &list).await, 2, "only one may be set");
    assert_eq!(run(&[("TRUNKLINE_TOKEN", "")], &list).await, 2);

    let add = ["context", "add", "here", &endpoint, "--token-file", good];
    assert_eq!(run(&[], &add).await, 0);
    let stored = fs::read_to_string(folder.path().join("trunkline/config.toml")).unwrap();
    assert!(stored.contains(good) && !stored.contains(&admin), "{stored}");
    assert_eq!(run(&[], &["topic", "list"]).await, 0);
    // A variable takes precedence over the context in use, but not over one that a flag names.
    let variable = [("TRUNKLINE_TOKEN_FILE", wrong)];
    assert_eq!(run(&variable, &["topic", "list"]).await, 1);
    assert_eq!(run(&variable, &["topic", "list", "--context", "here"]).await, 0);
    // An endpoint of its own leaves the context's token out.
    assert_eq!(run(&[], &list).await, 1);
}

#[tokio::test]
async fn credentials_that_cannot_be_used_are_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "tlk_a_b").unwrap();
    let file = file.to_str().unwrap();
    for (variables, arguments, problem) in [
        (&[][..], &["--endpoint", "http://10.0.0.1:1", "--token-file", file][..], "not encrypted"),
        (&[("TRUNKLINE_TOKEN", "tlk_a_b")], &["--endpoint", "http://a.example:1"], "not encrypted"),
        (&[], &["--token-file", "/nonexistent"], "/nonexistent"),
        (&[], &["--endpoint", "https://127.0.0.1:1", "--ca-file", "/nonexistent"], "/nonexistent"),
        (&[], &["--ca-file", file], "must begin with https://"),
        (&[], &["--client-cert", file], "--client-key"),
        (&[("TRUNKLINE_CLIENT_KEY", file)], &[], "TRUNKLINE_CLIENT_CERT"),
        (&[("TRUNKLINE_CA_FILE", " ")], &[], "TRUNKLINE_CA_FILE is set but empty"),
    ] {
        let refused = run_with(variables, &[arguments, &["topic", "list"]].concat()).await;
        assert_eq!(refused.code(), 2, "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains(problem), "{arguments:?}: {refused:?}");
        assert!(!refused.stderr.contains("tlk_"), "{refused:?}");
    }
    let config = folder.path();
    let add = ["context", "add", "far", "http://a.example:1", "--token-file", file];
    let refused = Trunkline::run_configured(config, &add).await;
    assert_eq!(refused.code(), 2, "{refused:?}");
    assert!(refused.stderr.contains("not encrypted"), "{refused:?}");
    assert!(!config.join("trunkline/config.toml").exists());
}
