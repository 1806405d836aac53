//! The console: what its pages show to whom, and what they change. `tests/console` uses them in a
//! browser.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};
use trunkline::{proto::Operation, server};

use crate::support::{
    RawClient, TestDatabase, Trunkline,
    http::{Answer, HttpBroker, get, http_address, post},
    secured::As,
    soon, until,
    worker::{TestWorker, at_once, publish, reject},
};

const HOST: (&str, &str) = ("Host", "localhost");
const ORIGIN: (&str, &str) = ("Origin", "http://localhost");

/// What forms of a page send along.
#[track_caller]
fn csrf(page: &Answer) -> String {
    let (_, rest) = page.body.split_once("name=\"csrf\" value=\"").expect("a form");
    rest.split('"').next().unwrap().to_owned()
}

impl HttpBroker {
    /// Sends the form of a page.
    async fn submit(&self, page: &str, action: &str, fields: &[(&str, &str)]) -> Answer {
        let csrf = csrf(&self.get(page).await);
        let fields = [&[("csrf", csrf.as_str())], fields].concat();
        post(&self.http, action, &[HOST, ORIGIN], &fields).await
    }
}

#[tokio::test]
async fn pages_show_what_there_is_and_markup_is_only_text() {
    let broker = HttpBroker::start(&[]).await;
    broker.calls.topic("orders").await;
    broker.calls.consumer("orders", "billing").await;
    broker.calls.publish("orders", ["<script>alert(1)</script>"]).await;
    for (path, shown) in [
        ("/", "Consumers that are behind"),
        ("/topics", "href=\"/topics/orders\""),
        ("/topics/new", "Retention"),
        ("/topics/orders", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("/topics/orders/messages/0", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("/topics/orders/messages/0?as=hex", "3c 73 63 72 69 70 74"),
        ("/topics/orders/messages/0?as=json", "The payload is not JSON."),
        ("/topics/orders/tail", "Waiting for messages"),
        ("/topics/orders/consumers", "billing"),
        ("/topics/orders/producers", "<th class=\"cut\" scope=\"row\">producer</th>"),
        ("/topics/orders/publish", "Payload"),
        ("/topics/orders/settings", "Delete the topic"),
        ("/topics/orders/consumers/billing", "Lag in time"),
        ("/topics/orders/consumers/billing/preview?to=earliest", "&lt;script&gt;"),
    ] {
        let page = broker.get(path).await;
        assert_eq!(page.status, 200, "{path}: {page:?}");
        assert!(page.body.contains(shown), "{path}: {page:?}");
        assert!(!page.body.contains("<script>alert"), "{path}");
        let policy = &page.headers["content-security-policy"];
        assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(page.headers["x-content-type-options"], "nosniff");
        assert_eq!(page.headers["cache-control"], "no-store");
    }
    let raw = broker.get("/topics/orders/messages/0/raw").await;
    assert_eq!(raw.body, "<script>alert(1)</script>");
    assert_eq!(raw.headers["content-type"], "application/octet-stream");
    assert!(raw.headers["content-disposition"].starts_with("attachment"));
    assert!(broker.get("/assets/style.css").await.headers["cache-control"].contains("immutable"));
}

#[tokio::test]
async fn what_is_wrong_is_said_where_it_is() {
    let broker = HttpBroker::start(&[]).await;
    broker.calls.topic("orders").await;
    broker.calls.publish("orders", ["one"]).await;
    for (path, status, said) in [
        ("/nothing", 404, "There is no such page"),
        ("/topics/nothing", 404, "Topic nothing does not exist"),
        ("/topics/orders/consumers/nobody", 404, "nobody"),
        ("/topics/orders/messages/7", 404, "There is no message at this offset"),
        ("/topics/orders/messages/x", 400, "Not a valid address"),
        ("/topics?page=x", 400, "Not a valid address"),
        ("/topics/orders/delete", 405, "Nothing to see here"),
        ("/topics/orders?from=offset&offset=x", 200, "Must be an offset"),
        ("/topics/orders?from=offset&offset=9", 200, "offset-error"),
        ("/topics/orders?from=time&time=soon", 200, "Must be a time"),
        ("/topics/orders?from=consumer&consumer=nobody", 200, "consumer-error"),
        ("/topics/orders?n=501", 200, "from 1 to 500"),
    ] {
        let page = broker.get(path).await;
        assert_eq!(page.status, status, "{path}: {page:?}");
        assert!(page.body.contains(said), "{path}: {page:?}");
    }
}

#[tokio::test]
async fn forms_are_accepted_only_from_pages_of_this_broker() {
    let broker = HttpBroker::start(&[]).await;
    let csrf = csrf(&broker.get("/topics/new").await);
    let (right, wrong) = (("csrf", csrf.as_str()), ("csrf", "wrong"));
    let topic = ("topic", "orders");
    for (headers, fields) in [
        (&[HOST][..], &[right, topic][..]),
        (&[HOST, ("Origin", "http://evil.example")], &[right, topic]),
        (&[HOST, ("Origin", "null")], &[right, topic]),
        (&[HOST, ORIGIN], &[wrong, topic]),
        (&[HOST, ORIGIN], &[topic]),
    ] {
        let refused = post(&broker.http, "/topics/new", headers, fields).await;
        assert_eq!(refused.status, 403, "{headers:?} {fields:?}");
    }
    let evil = [("Host", "evil.example"), ("Origin", "http://evil.example")];
    assert_eq!(post(&broker.http, "/topics/new", &evil, &[right, topic]).await.status, 421);
    assert_eq!(get(&broker.http, "/", &evil[..1]).await.status, 421);
    let created = post(&broker.http, "/topics/new", &[HOST, ORIGIN], &[right, topic]).await;
    assert_eq!((created.status, &*created.headers["location"]), (303, "/topics/orders"));
    broker.calls.get_topic("orders").await;
}

#[tokio::test]
async fn a_topic_is_created_configured_trimmed_and_deleted() {
    let broker = HttpBroker::start(&[]).await;
    let fields = [
        ("topic", "orders"),
        ("description", "of the shop"),
        ("labels", "team=shop\nenv=test"),
        ("retention_age", "7d"),
    ];
    assert_eq!(broker.submit("/topics/new", "/topics/new", &fields).await.status, 303);
    let topic = broker.calls.get_topic("orders").await;
    assert_eq!(
        (topic.description.as_str(), topic.labels["team"].as_str()),
        ("of the shop", "shop")
    );
    assert_eq!(topic.retention.unwrap().max_age.unwrap().seconds, 7 * 86_400);
    let again = broker.submit("/topics/new", "/topics/new", &fields).await;
    assert_eq!(again.status, 409);
    assert!(again.body.contains("value=\"of the shop\""), "what was entered stays: {again:?}");

    let settings = "/topics/orders/settings";
    for (field, value) in
        [("retention_bytes", "many"), ("labels", "team"), ("retention_age", "soon")]
    {
        let refused = broker.submit(settings, settings, &[(field, value)]).await;
        assert_eq!(refused.status, 400, "{field}");
        assert!(refused.body.contains(&format!("id=\"{field}-error\"")), "{field}: {refused:?}");
    }
    let fields = [("retention_bytes", "10GiB"), ("keep_unread", "yes")];
    assert_eq!(broker.submit(settings, settings, &fields).await.status, 303);
    let retention = broker.calls.get_topic("orders").await.retention.unwrap();
    assert_eq!(
        (retention.max_bytes, retention.keep_unread, retention.max_age),
        (10 << 30, true, None)
    );

    broker.calls.producer("orders", "producer").await;
    broker.calls.publish("orders", ["one", "two"]).await;
    let trim = "/topics/orders/trim";
    let refused =
        broker.submit(settings, trim, &[("before", "1"), ("trim-confirm", "order")]).await;
    assert_eq!(refused.status, 400);
    assert_eq!(broker.calls.get_topic("orders").await.first_offset, 0);
    let trimmed =
        broker.submit(settings, trim, &[("before", "1"), ("trim-confirm", "orders")]).await;
    assert_eq!(trimmed.status, 303, "{trimmed:?}");
    assert_eq!(broker.calls.get_topic("orders").await.first_offset, 1);

    let delete = "/topics/orders/delete";
    let refused = broker.submit(settings, delete, &[("delete-confirm", "")]).await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("delete-confirm-error"), "{refused:?}");
    let deleted = broker.submit(settings, delete, &[("delete-confirm", "orders")]).await;
    assert_eq!((deleted.status, &*deleted.headers["location"]), (303, "/topics"));
    assert_eq!(broker.get("/topics/orders").await.status, 404);
}

#[tokio::test]
async fn a_message_is_published_and_a_consumer_sought() {
    let broker = HttpBroker::start(&[]).await;
    broker.calls.topic("orders").await;
    broker.calls.consumer("orders", "billing").await;
    let page = "/topics/orders/publish";
    let fields = [("producer_id", "till"), ("payload", "hello")];
    let refused = broker.submit(page, page, &fields).await;
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("producer_id-error"), "{refused:?}");
    let fields = [
        ("producer_id", "till"),
        ("register", "yes"),
        ("key", "table 7"),
        ("headers", "from=console"),
        ("payload", "one\r\ntwo"),
    ];
    let published = broker.submit(page, page, &fields).await;
    let done = "/topics/orders/publish?published=0&producer_id=till";
    assert_eq!((published.status, &*published.headers["location"]), (303, done));
    let page = broker.get(done).await;
    assert!(page.body.contains("/topics/orders/messages/0"), "{page:?}");
    assert!(page.body.contains("value=\"till\""), "{page:?}");
    let lie = broker.get("/topics/orders/publish?published=7").await;
    assert!(!lie.body.contains("Published at"), "{lie:?}");
    assert_eq!(broker.calls.read_payloads("orders").await, ["one\ntwo"]);
    let message = broker.get("/topics/orders/messages/0").await;
    assert!(
        message.body.contains("table 7") && message.body.contains("Header from"),
        "{message:?}"
    );

    let (consumer, seek) =
        ("/topics/orders/consumers/billing", "/topics/orders/consumers/billing/seek");
    let sought = broker.submit(consumer, seek, &[("to", "latest")]).await;
    assert_eq!(sought.status, 303, "{sought:?}");
    assert_eq!(broker.calls.position("orders", "billing").await, 1);
    let sought = broker.submit(consumer, seek, &[("to", "by"), ("by", "-1")]).await;
    assert_eq!(sought.status, 303, "{sought:?}");
    assert_eq!(broker.calls.position("orders", "billing").await, 0);
    let refused = broker.submit(consumer, seek, &[("to", "offset"), ("offset", "9")]).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.body.contains("value=\"9\""), "what was entered stays: {refused:?}");
}

#[tokio::test]
async fn a_subscription_is_shown_and_its_parked_messages_are_replayed_and_discarded() {
    let broker = HttpBroker::start(&[]).await;
    let list = "/topics/jobs/subscriptions";
    broker.calls.topic("jobs").await;
    assert!(broker.get(list).await.body.contains("has no subscriptions"));
    let mut worker = TestWorker::subscribe(&broker.calls, "jobs", "pool", at_once()).await;
    publish(&broker.calls, 5).await;
    let work = worker.receive_all(4).await;
    assert_eq!(worker.settle(&work[..3], reject("no <b>picture</b>")).await, 3);
    let listed = broker.get(list).await;
    assert!(listed.body.contains("href=\"/topics/jobs/subscriptions/pool\""), "{listed:?}");
    let oldest = "data-label=\"Unacknowledged\">2</td>";
    assert!(listed.body.contains(oldest), "{listed:?}");

    let page = "/topics/jobs/subscriptions/pool";
    let shown = broker.get(page).await;
    for part in ["no &lt;b&gt;picture", "name=\"offset-1\"", "How it delivers", "With workers"] {
        assert!(shown.body.contains(part), "{part}: {shown:?}");
    }
    assert_eq!(broker.get(&format!("{page}/now")).await.status, 200);
    let act = "/topics/jobs/subscriptions/pool/parked";
    let refused = broker.submit(page, act, &[("act", "discard")]).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.body.contains("Choose messages first"), "{refused:?}");

    // Nothing is done before it is confirmed.
    let asked = broker.submit(page, act, &[("act", "discard"), ("offset-1", "yes")]).await;
    assert_eq!(asked.status, 200, "{asked:?}");
    assert!(asked.body.contains("name=\"confirmed\"") && asked.body.contains("name=\"offset-1\""));
    assert_eq!(worker.describe().await.parked_messages, 3);
    let fields = [("act", "discard"), ("offset-1", "yes"), ("confirmed", "yes")];
    let done = broker.submit(page, act, &fields).await;
    assert_eq!((done.status, &*done.headers["location"]), (303, page));
    assert_eq!(worker.describe().await.parked_messages, 2);
    let done = broker.submit(page, act, &[("act", "replay-all"), ("confirmed", "yes")]).await;
    assert_eq!(done.status, 303, "{done:?}");
    let described = worker.describe().await;
    assert_eq!((described.parked_messages, described.retried_messages), (0, 2));
    assert!(broker.get(page).await.body.contains("There are none."));
    assert_eq!(broker.get("/topics/jobs/subscriptions/nobody").await.status, 404);
}

#[tokio::test]
async fn a_database_that_is_away_is_a_clear_state() {
    let broker = HttpBroker::start(&[]).await;
    broker.calls.topic("orders").await;
    broker.calls.database.close().await;
    until("the overview says so", async || {
        broker.get("/").await.body.contains("The database does not answer")
    })
    .await;
    let page = broker.get("/topics/orders").await;
    assert_eq!(page.status, 503, "{page:?}");
    assert!(page.body.contains("The database does not answer"), "{page:?}");
    assert!(broker.get("/topics").await.body.contains("The database does not answer"));
    broker.calls.database.open().await;
    until("all is well again", async || broker.get("/").await.body.contains("All is well")).await;
    until("the topic is there", async || broker.get("/topics").await.body.contains("orders")).await;
}

/// The events of a tail.
struct Tail(tokio::io::Lines<BufReader<TcpStream>>);

impl Tail {
    async fn open(broker: &HttpBroker, from: i64) -> Self {
        let mut stream = TcpStream::connect(&broker.http).await.unwrap();
        let path = format!("/topics/orders/tail/events?from={from}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Self(BufReader::new(stream).lines())
    }

    /// The data of the next event of a kind.
    async fn next(&mut self, kind: &str) -> String {
        soon(kind, async {
            while self.0.next_line().await.unwrap().unwrap() != format!("event: {kind}") {}
            loop {
                let line = self.0.next_line().await.unwrap().unwrap();
                if let Some(data) = line.strip_prefix("data: ") {
                    return data.to_owned();
                }
            }
        })
        .await
    }
}

#[tokio::test]
async fn a_tail_shows_what_is_published_and_why_it_ends() {
    let broker = HttpBroker::start(&[]).await;
    broker.calls.topic("orders").await;
    let mut tail = Tail::open(&broker, 0).await;
    assert_eq!(tail.next("ready").await, "0");
    broker.calls.publish("orders", ["<b>one</b>"]).await;
    let row = tail.next("message").await;
    assert!(row.contains("id=\"m-0\"") && row.contains("&lt;b&gt;one&lt;/b&gt;"), "{row}");
    let mut deleted = Tail::open(&broker, 1).await;
    deleted.next("ready").await;
    broker.calls.delete_topic("orders").await;
    assert!(deleted.next("end").await.contains("orders does not exist"));

    broker.calls.topic("orders").await;
    let mut tail = Tail::open(&broker, 0).await;
    tail.next("ready").await;
    broker.process.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(tail.next("end").await, "The broker stops.");
}

#[tokio::test]
async fn a_broker_says_until_its_end_that_it_drains() {
    let mut broker = HttpBroker::start(&["--drain-timeout", "15s"]).await;
    broker.calls.topic("orders").await;
    // A call whose request has not arrived to its end.
    let client = RawClient::connect(&broker.calls.endpoint).await;
    let (answer, mut body) = client.begin("trunkline.v1.TopicService/GetTopic", &[]).await;
    body.send_data(Bytes::from_static(&[0]), false).unwrap();
    until("it is open", async || broker.metrics().await.value("trunkline_calls_open") == 1.0).await;
    broker.process.signal(nix::sys::signal::Signal::SIGTERM);
    until("it is not ready", async || broker.get("/readyz").await.status == 503).await;
    let ready = broker.get("/readyz").await;
    assert!(ready.body.contains("[-] drains"), "{ready:?}");
    assert_eq!(broker.metrics().await.value("trunkline_draining"), 1.0);
    drop((answer, body, client));
    assert!(broker.process.wait().await.success());
}

/// A broker that authenticates.
struct Secured {
    process: Trunkline,
    http: String,
    root: As,
    database: Arc<TestDatabase>,
}

impl Secured {
    async fn start() -> Self {
        let database = Arc::new(TestDatabase::create().await);
        let token = server::bootstrap(&database.url).await.unwrap();
        let flags = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--auth", "required"];
        let (mut process, endpoint) =
            Trunkline::serve(&[&flags[..], &["--database-url", &database.url]].concat()).await;
        let http = http_address(&mut process, "http").await;
        let root = As::at(&endpoint, &token).await;
        Self { process, http, root, database }
    }

    async fn get(&self, path: &str, cookie: &str) -> Answer {
        get(&self.http, path, &[HOST, ("Cookie", cookie)]).await
    }

    /// Logs in; returns the cookie.
    async fn log_in(&self, token: &str) -> String {
        let answer =
            post(&self.http, "/login", &[HOST, ORIGIN], &[("token", token), ("next", "/topics")])
                .await;
        assert_eq!((answer.status, &*answer.headers["location"]), (303, "/topics"), "{answer:?}");
        let cookie = &answer.headers["set-cookie"];
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        cookie.split(';').next().unwrap().to_owned()
    }
}

#[tokio::test]
async fn visitors_log_in_with_a_token_and_may_do_what_it_may_do() {
    let broker = Secured::start().await;
    broker.root.create_topic("shop.orders").await.unwrap();
    broker.root.create_topic("bank.bills").await.unwrap();
    broker.root.grant("shop", Operation::Read, "shop.*").await;
    let token = broker.root.create_token("shop").await;

    let asked = broker.get("/topics?q=a", "").await;
    assert_eq!((asked.status, &*asked.headers["location"]), (303, "/login?next=%2Ftopics%3Fq%3Da"));
    for wrong in ["", "nonsense", "tlk_aaaaaaaaaaaa_x", "a b\u{1}"] {
        let refused = post(&broker.http, "/login", &[HOST, ORIGIN], &[("token", wrong)]).await;
        assert_eq!(refused.status, 401, "{wrong:?}");
        assert!(!refused.headers.contains_key("set-cookie"));
    }
    let foreign = [HOST, ("Origin", "http://evil.example")];
    let refused = post(&broker.http, "/login", &foreign, &[("token", &token)]).await;
    assert_eq!(refused.status, 403);

    let cookie = broker.log_in(&token).await;
    until("the topics are listed", async || {
        broker.get("/topics", &cookie).await.body.contains("shop.orders")
    })
    .await;
    for path in ["/topics", "/"] {
        let page = broker.get(path, &cookie).await;
        assert_eq!(page.status, 200);
        assert!(page.body.contains("Logged in as") && !page.body.contains("bank"), "{page:?}");
    }
    // As if it did not exist.
    let hidden = broker.get("/topics/bank.bills", &cookie).await;
    assert_eq!(hidden.status, 404);
    assert!(hidden.body.contains("Topic bank.bills does not exist"), "{hidden:?}");

    let csrf = csrf(&broker.get("/topics/new", &cookie).await);
    let headers = [HOST, ORIGIN, ("Cookie", cookie.as_str())];
    let fields = [("csrf", csrf.as_str()), ("delete-confirm", "shop.orders")];
    let refused = post(&broker.http, "/topics/shop.orders/delete", &headers, &fields).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    let sql = broker.database.sql().await;
    until("that was denied is in the audit", async || {
        let denied = "select from trunkline.audit where act = 'denied_call' and principal = 'shop'
             and method like '%DeleteTopic'";
        !sql.query(denied, &[]).await.unwrap().is_empty()
    })
    .await;

    broker.root.revoke(crate::support::secured::id_of(&token)).await.unwrap();
    until("the session has ended", async || broker.get("/topics", &cookie).await.status == 303)
        .await;
    let of_page = ("HX-Current-URL", "http://localhost/topics?q=a");
    let part = get(&broker.http, "/overview", &[HOST, ("HX-Request", "true"), of_page]).await;
    assert_eq!(part.status, 401);
    assert_eq!(part.headers["hx-redirect"], "/login?next=%2Ftopics%3Fq%3Da");
    let events = [HOST, ("Accept", "text/event-stream")];
    let tail = get(&broker.http, "/topics/shop.orders/tail/events?from=0", &events).await;
    assert_eq!((tail.status, tail.body.contains("event: end")), (200, true), "{tail:?}");
}

#[tokio::test]
async fn what_an_administrator_does_is_in_the_audit_until_it_logs_out() {
    let broker = Secured::start().await;
    let token = broker.root.create_token("admin").await;
    let cookie = broker.log_in(&token).await;
    let csrf = csrf(&broker.get("/topics/new", &cookie).await);
    let headers = [HOST, ORIGIN, ("Cookie", cookie.as_str())];
    let fields = [("csrf", csrf.as_str()), ("topic", "orders")];
    let created = post(&broker.http, "/topics/new", &headers, &fields).await;
    assert_eq!(created.status, 303, "{created:?}");
    let sql = broker.database.sql().await;
    let row = "select principal, address from trunkline.audit where act = 'create_topic'";
    let row = sql.query_one(row, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "admin");
    assert!(row.get::<_, &str>(1).starts_with("127.0.0.1:"), "{row:?}");

    let refused = post(&broker.http, "/logout", &headers, &[("csrf", "wrong")]).await;
    assert_eq!(refused.status, 403);
    let out = post(&broker.http, "/logout", &headers, &[("csrf", csrf.as_str())]).await;
    assert_eq!((out.status, &*out.headers["location"]), (303, "/login"));
    assert!(out.headers["set-cookie"].contains("Max-Age=0"), "{out:?}");
    assert_eq!(broker.get("/", &cookie).await.status, 303);
    drop(broker.process);
}

#[tokio::test]
async fn consumers_of_others_are_not_shown_to_somebody_who_only_publishes() {
    let broker = Secured::start().await;
    broker.root.create_topic("orders").await.unwrap();
    broker.root.grant("bank", Operation::Consume, "orders").await;
    broker.root.register_consumer("orders", "secret-reader").await.unwrap();
    broker.root.grant("till", Operation::Publish, "orders").await;
    broker.root.grant("auditor", Operation::Read, "orders").await;
    let (till, auditor) =
        (broker.root.create_token("till").await, broker.root.create_token("auditor").await);
    let (till, auditor) = (broker.log_in(&till).await, broker.log_in(&auditor).await);
    until("who may see it does", async || {
        broker.get("/topics/orders/consumers", &auditor).await.body.contains("secret-reader")
    })
    .await;
    for path in ["/", "/topics", "/topics/orders/consumers"] {
        let page = broker.get(path, &till).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(!page.body.contains("secret-reader"), "{path}: {page:?}");
    }
    assert_eq!(broker.get("/topics/orders/consumers/secret-reader", &till).await.status, 404);
    // Looking at pages is nothing that is denied.
    assert_eq!(broker.get("/topics/orders/consumers/secret-reader", &auditor).await.status, 200);
    let denied =
        "select method from trunkline.audit where principal = 'auditor' and act = 'denied_call'";
    assert!(broker.database.sql().await.query(denied, &[]).await.unwrap().is_empty());
}
