//! Poolers in front of PostgreSQL, and servers that lack some of its features.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use trunkline::{
    proto::{self, seek_request::Target},
    storage::{self, Storage},
};

use crate::support::{
    DeafProxy, LIMITS, PRODUCER, Pooler, PublishStream, TestBroker, TestDatabase, Trunkline,
    assert_refused, info, message, until,
};

async fn refusal(url: &str, direct_url: Option<&str>) -> String {
    match Storage::open(url, direct_url, LIMITS).await {
        Ok(_) => panic!("a refusal expected"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
#[cfg_attr(not(has_pgbouncer), ignore = "PgBouncer is not on this machine (package pgbouncer)")]
async fn a_pooler_in_transaction_mode_is_refused_with_advice() {
    let database = TestDatabase::create().await;
    for (sessions, round_robin) in [(4, false), (4, true), (2, true), (1, false)] {
        let pooler = Pooler::start(&database, sessions, round_robin).await;
        let url = pooler.url(&database);
        let advice = refusal(&url, None).await;
        assert!(advice.contains("--direct-database-url"), "{sessions} {round_robin}: {advice}");
        // It does not help to give the pooler's URL as the direct one, too.
        let advice = refusal(&url, Some(&url)).await;
        assert!(advice.contains("--direct-database-url"), "{sessions} {round_robin}: {advice}");
    }
    let pooler = Pooler::start(&database, 4, false).await;
    let url = pooler.url(&database);
    let served =
        Trunkline::run(&["serve", "--listen", "127.0.0.1:0", "--database-url", &url]).await;
    assert_eq!(served.code(), 1, "{served:?}");
    assert!(served.stderr.contains("TRUNKLINE_DIRECT_DATABASE_URL"), "{served:?}");
}

/// A broker behind a pooler that has fewer sessions than the broker has connections.
async fn pooled() -> (TestBroker, Pooler) {
    let database = Arc::new(TestDatabase::create().await);
    let pooler = Pooler::start(&database, 3, true).await;
    let (url, direct_url) = (pooler.url(&database), database.url.clone());
    let drain = Duration::from_secs(5);
    let broker = TestBroker::start_with(database, &url, Some(&direct_url), drain).await;
    (broker, pooler)
}

#[tokio::test]
#[cfg_attr(not(has_pgbouncer), ignore = "PgBouncer is not on this machine (package pgbouncer)")]
async fn behind_a_pooler_publishing_and_consuming_work() {
    let (broker, _pooler) = pooled().await;
    let broker = Arc::new(broker);
    let other = broker.start_another().await;
    for topic in ["orders", "bills"] {
        broker.topic(topic).await;
        broker.consumer(topic, "reader").await;
    }
    // Many publishes at once, with two topics in a flush; one consumer is on a broker without the
    // pooler.
    let mut orders = broker.consume("orders", "reader").await;
    let mut bills = other.consume("bills", "reader").await;
    let mut publishing = JoinSet::new();
    for _ in 0..16 {
        let broker = broker.clone();
        publishing.spawn(async move {
            for _ in 0..20 {
                broker.publish("orders", ["order", "order"]).await;
                broker.publish("bills", ["bill"]).await;
            }
        });
    }
    let offsets = |messages: Vec<proto::Message>| -> Vec<i64> {
        messages.iter().map(|message| message.offset).collect()
    };
    assert_eq!(offsets(orders.messages(640).await), (0..640).collect::<Vec<_>>());
    assert_eq!(offsets(bills.messages(320).await), (0..320).collect::<Vec<_>>());
    while let Some(published) = publishing.join_next().await {
        published.unwrap();
    }
    assert_eq!(broker.position("orders", "reader").await, 640);

    // Publishes are refused as without a pooler.
    let stranger = broker.try_publish("orders", "stranger", ["x"]).await;
    assert_refused(stranger, Code::PermissionDenied, "PRODUCER_NOT_REGISTERED");
    let request = proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: PRODUCER.to_owned(),
        messages: vec![proto::NewMessage {
            key: Some("key".into()),
            headers: [("name".to_owned(), "value".to_owned())].into(),
            ..message("sequenced")
        }],
        sequence: Some(0),
        ..Default::default()
    };
    for duplicate in [false, true] {
        let published = broker.producers().publish(request.clone()).await.unwrap().into_inner();
        assert_eq!((published.first_offset, published.duplicate), (640, duplicate));
    }
    let sequenced = orders.messages(1).await;
    assert_eq!(sequenced[0].key.as_deref(), Some(&b"key"[..]));
    assert_eq!(sequenced[0].headers["name"], "value");
    let late = proto::PublishRequest { expected_head: Some(7), sequence: None, ..request };
    assert_refused(broker.producers().publish(late).await, Code::Aborted, "HEAD_MOVED");
    let mut stream = PublishStream::open(&broker).await;
    for _ in 0..3 {
        let (topic, producer_id) = ("orders".to_owned(), PRODUCER.to_owned());
        let messages = vec![message("streamed")];
        stream
            .send(proto::PublishStreamRequest {
                topic,
                producer_id,
                messages,
                ..Default::default()
            })
            .await;
    }
    assert_eq!(stream.first_offset().await, 641);
}

#[tokio::test]
#[cfg_attr(not(has_pgbouncer), ignore = "PgBouncer is not on this machine (package pgbouncer)")]
async fn behind_a_pooler_leases_positions_and_retention_work() {
    let (broker, _pooler) = pooled().await;
    let other = broker.start_another().await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    broker.publish("orders", ["a", "b", "c", "d"]).await;
    let mut holder = broker.consume_manually("orders", "billing").await;
    assert_eq!(holder.payloads(4).await, ["a", "b", "c", "d"]);
    holder.commit(1).await.unwrap();
    let mut taker = other.take_over("orders", "billing", "taker").await;
    info(&holder.ended().await, Code::Aborted, "LEASE_TAKEN_OVER");
    assert_refused(holder.commit(2).await, Code::Aborted, "LEASE_LOST");
    assert_eq!(taker.payloads(3).await, ["b", "c", "d"]);
    let mut back = broker.take_over("orders", "billing", "back").await;
    info(&taker.ended().await, Code::Aborted, "LEASE_TAKEN_OVER");
    assert_eq!(back.payloads(3).await, ["b", "c", "d"]);
    broker.seek("orders", "billing", Target::Offset(3)).await.unwrap();
    assert_eq!(back.repositioned().await.position, 3);
    assert_eq!(back.payloads(1).await, ["d"]);
    let pulled = broker.pull("orders", "billing", 1).await;
    assert_refused(pulled, Code::FailedPrecondition, "LEASE_HELD");
    drop(back);
    until("the lease is released", async || {
        broker.get_consumer("orders", "billing").await.holder.is_empty()
    })
    .await;
    assert_eq!(broker.pull("orders", "billing", 1).await.unwrap().position, 4);

    assert_eq!(broker.trim("orders", 2).await, 2);
    broker.seek("orders", "billing", Target::Offset(2)).await.unwrap();
    let mut stream = broker.consume("orders", "billing").await;
    assert_eq!(stream.payloads(2).await, ["c", "d"]);
    let sql = broker.sql().await;
    sql.batch_execute("update trunkline.topic set retention_messages = 1").await.unwrap();
    broker.log_starts_at("orders", 3).await;
    broker.delete_topic("orders").await;
    info(&stream.ended().await, Code::NotFound, "TOPIC_NOT_FOUND");
}

#[tokio::test]
#[cfg_attr(not(has_pgbouncer), ignore = "PgBouncer is not on this machine (package pgbouncer)")]
async fn behind_a_pooler_a_publish_waits_for_the_disk_whatever_the_servers_default() {
    let (broker, _pooler) = pooled().await;
    broker.topic("orders").await;
    let sql = broker.sql().await;
    // Records the settings of each publish when it commits, in sessions opened from now on.
    sql.batch_execute(&format!(
        "alter database {} set synchronous_commit = off;
         create table public.recorded (setting text, timeout text);
         create function record_settings() returns trigger language plpgsql as $$
         begin
             insert into public.recorded values
                 (current_setting('synchronous_commit'), current_setting('lock_timeout'));
             return null;
         end $$;
         create constraint trigger record_settings after insert on trunkline.batch
         deferrable initially deferred for each row execute function record_settings();
         select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()",
        broker.database.name
    ))
    .await
    .unwrap();
    until("a publish succeeds", async || {
        broker.try_publish("orders", PRODUCER, ["x"]).await.is_ok()
    })
    .await;
    let rows =
        sql.query("select distinct setting, timeout from public.recorded", &[]).await.unwrap();
    let recorded: Vec<(&str, &str)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(recorded, [("on", "500ms")]);
}

/// PgBouncer uses one code for all its errors, temporary and permanent.
#[tokio::test]
#[cfg_attr(not(has_pgbouncer), ignore = "PgBouncer is not on this machine (package pgbouncer)")]
async fn a_broker_waits_for_a_pooler_that_cannot_reach_its_server() {
    let (database, elsewhere) = (TestDatabase::create().await, TestDatabase::create().await);
    let pooler = Pooler::start_in_mode("session", &database, 20, false).await;
    let url = pooler.url(&database);
    let sql = elsewhere.sql().await;
    let (name, allow) = (&database.name, "with allow_connections");
    sql.batch_execute(&format!("alter database {name} {allow} false")).await.unwrap();
    let Err(error) = Storage::open(&url, None, LIMITS).await else { panic!("an error expected") };
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("(08P01)"), "{error}");
    sql.batch_execute(&format!("alter database {name} {allow} true")).await.unwrap();
    until("the pooler reaches the server again", async || {
        match Storage::open(&url, None, LIMITS).await {
            Ok(storage) => {
                storage.close();
                true
            }
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                false
            }
        }
    })
    .await;
}

/// Even though it accepts no settings in the startup packet.
#[tokio::test]
#[cfg_attr(not(has_pgbouncer), ignore = "PgBouncer is not on this machine (package pgbouncer)")]
async fn behind_a_pooler_in_session_mode_no_direct_url_is_needed() {
    let database = Arc::new(TestDatabase::create().await);
    let pooler = Pooler::start_in_mode("session", &database, 20, false).await;
    let drain = Duration::from_secs(5);
    // Several hosts, as only the error of the last one is reported.
    let url = pooler.url(&database).replace(" port=6432", ",/nowhere port=6432,6432");
    let broker = TestBroker::start_with(database, &url, None, drain).await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut stream = broker.consume("orders", "billing").await;
    stream.read_to_end().await;
    broker.publish("orders", ["a"]).await;
    assert_eq!(stream.payloads(1).await, ["a"]);
}

/// Otherwise a broker that vanishes before its first statement leaves a session behind for hours.
#[tokio::test]
async fn keepalives_are_set_in_the_startup_packet() {
    let first = TestBroker::start().await;
    let proxy = DeafProxy::start(&first.database).await;
    let drain = Duration::from_secs(5);
    // The options in the user's URL are kept.
    let url = format!("{}?options=-c%20work_mem%3D5MB", proxy.url);
    let broker = TestBroker::start_with(first.database.clone(), &url, None, drain).await;
    broker.topic("orders").await;
    broker.consumer("orders", "billing").await;
    let mut stream = broker.consume("orders", "billing").await;
    stream.read_to_end().await;
    broker.publish("orders", ["a"]).await;
    stream.messages(1).await;
    let mut kinds = BTreeSet::new();
    for request in proxy.requests.lock().unwrap().iter() {
        let values: Vec<&str> = request.split('\0').collect();
        let value = |name| values.iter().position(|it| *it == name).map(|at| values[at + 1]);
        let kind = value("application_name").unwrap_or_default();
        let options = value("options").unwrap_or_default();
        for setting in ["work_mem=5MB", "tcp_keepalives_idle=5", "tcp_user_timeout=14s"] {
            assert!(options.contains(setting), "{kind}: {options}");
        }
        kinds.insert(kind.to_owned());
    }
    for kind in ["lease", "listen", "query", "writer", "position"] {
        assert!(kinds.contains(&format!("trunkline {kind}")), "{kind}: {kinds:?}");
    }
}

#[tokio::test]
async fn a_direct_url_to_another_database_is_refused() {
    let (one, another) = (TestDatabase::create().await, TestDatabase::create().await);
    let refused = refusal(&one.url, Some(&another.url)).await;
    assert!(refused.contains("another one"), "{refused}");
    // A direct URL alone is not enough.
    let direct = ["serve", "--listen", "127.0.0.1:0", "--direct-database-url", &one.url];
    let refused = Trunkline::run(&direct).await;
    assert_eq!(refused.code(), 2, "{refused:?}");
    assert!(refused.stderr.contains("--database-url"), "{refused:?}");
}

/// Some servers have the functions of advisory locks, but they do nothing.
#[tokio::test]
async fn a_server_whose_advisory_locks_do_not_exclude_is_refused() {
    let database = TestDatabase::create().await;
    let sql = database.sql().await;
    // In `pg_catalog`, as sessions do not search other schemas.
    sql.batch_execute(
        "alter function pg_catalog.pg_try_advisory_lock(bigint) rename to real_try_advisory_lock;
         create function pg_catalog.pg_try_advisory_lock(bigint) returns boolean
             language sql as 'select true'",
    )
    .await
    .unwrap();
    match Storage::open(&database.url, None, LIMITS).await {
        Err(storage::Error::LocksDoNotExclude) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a refusal expected"),
    }
}

#[tokio::test]
async fn without_notifications_a_broker_polls_and_reports_it() {
    let first = TestBroker::start().await;
    let deaf = DeafProxy::start(&first.database).await;
    let drain = Duration::from_secs(5);
    let polling = TestBroker::start_with(first.database.clone(), &deaf.url, None, drain).await;
    let health = async |broker: &TestBroker, service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        broker.health().check(request).await.unwrap().into_inner().status()
    };
    until("the first broker listens", async || {
        health(&first, "wake-ups").await == ServingStatus::Serving
    })
    .await;
    assert_eq!(health(&polling, "").await, ServingStatus::Serving);
    until("polling is reported", async || {
        health(&polling, "wake-ups").await == ServingStatus::NotServing
    })
    .await;
    let reported = polling.run(&["health"]).await;
    assert_eq!(reported.code(), 0, "{reported:?}");
    assert!(reported.stdout.starts_with("SERVING\npolling mode"), "{reported:?}");

    first.topic("orders").await;
    first.consumer("orders", "billing").await;
    let mut stream = polling.consume("orders", "billing").await;
    stream.read_to_end().await;
    first.publish("orders", ["a"]).await;
    assert_eq!(stream.payloads(1).await, ["a"]);
    // Polling also finds seeks, take-overs and deleted topics.
    first.seek("orders", "billing", Target::Offset(0)).await.unwrap();
    assert_eq!(stream.repositioned().await.position, 0);
    let mut taker = first.take_over("orders", "billing", "taker").await;
    info(&stream.ended().await, Code::Aborted, "LEASE_TAKEN_OVER");
    first.publish("orders", ["b"]).await;
    taker.messages(1).await;
    let mut standby = polling.consume("orders", "billing").await;
    standby.standby().await;
    drop(taker);
    standby.attaches().await;
    first.delete_topic("orders").await;
    info(&standby.ended().await, Code::NotFound, "TOPIC_NOT_FOUND");
}
