//! Traces: a message is followed from its producer through the broker to its consumer, by the spans that
//! a collector receives.

use std::time::Duration;

use opentelemetry::{
    Context,
    trace::{FutureExt as _, TraceContextExt as _, Tracer as _},
};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use prost::Message as _;
use trunkline::{
    client::{Commit, Event, Start, Stop, trace::process_span},
    proto::{self, NewMessage},
};

use crate::support::{
    RawClient,
    collector::{TracedProgram, attribute},
    soon,
    traced::{PARENT, TRACE, TracedBroker, bytes, links_to, name_of},
};

#[tokio::test]
async fn a_message_is_followed_from_its_producer_to_its_consumer() {
    let broker = TracedBroker::start(&["--trace-sampling", "0"]).await;
    let collector = &broker.collector;
    let (program, _alone) = TracedProgram::start(collector).await;
    broker.client.ensure_topic("orders").await.unwrap();
    let producer = broker.client.producer("orders", "shop").register().open().await.unwrap();
    let checkout = Context::new().with_span(program.tracer.start("checkout"));
    let published = async {
        let first = producer.publish(NewMessage::new("a").with_header("unit", "piece")).await;
        let request = proto::PublishRequest {
            topic: "orders".to_owned(),
            producer_id: "shop".to_owned(),
            producer_epoch: producer.registration().epoch,
            messages: vec![NewMessage::new("b")],
            ..Default::default()
        };
        (first, broker.client.producers().publish(request).await)
    };
    let (first, second) = published.with_context(checkout.clone()).await;
    assert_eq!(first.unwrap(), 0);
    second.unwrap();
    checkout.span().end();
    producer.close().await.unwrap();

    let mut consumer = broker
        .client
        .consumer("orders", "billing", Commit::Manual)
        .register_at(Start::Earliest)
        .stop(Stop::CaughtUp)
        .open()
        .await
        .unwrap();
    let mut messages = Vec::new();
    while let Some(event) = soon("an event", consumer.next_event()).await {
        if let Event::Messages(some) = event.unwrap() {
            messages.extend(some);
        }
    }
    process_span("orders", "billing", &messages).span().end();
    program.flush().await;

    let trace = checkout.span().span_context().trace_id().to_bytes();
    let checkout = collector.named("checkout", &trace).await;
    // What the producer sent.
    let send = collector.named("send orders", &trace).await;
    assert_eq!((&send.parent_span_id, send.kind()), (&checkout.span_id, SpanKind::Producer));
    assert_eq!(name_of(&send, "messaging.system"), "trunkline");
    assert_eq!(name_of(&send, "messaging.destination.name"), "orders");
    assert_eq!(name_of(&send, "messaging.operation.type"), "send");
    assert_eq!(name_of(&send, "messaging.message.id"), "0");
    // What the broker did with it: with a request of a stream, and with a call of its own.
    let publish = collector.named("publish orders", &trace).await;
    assert_eq!((&publish.parent_span_id, publish.kind()), (&send.span_id, SpanKind::Server));
    assert_eq!(name_of(&publish, "messaging.batch.message_count"), "1");
    let call = collector.named("trunkline.v1.ProducerService/Publish", &trace).await;
    assert_eq!((&call.parent_span_id, call.kind()), (&checkout.span_id, SpanKind::Server));
    assert_eq!(name_of(&call, "messaging.destination.name"), "orders");
    for stored in [&publish, &call] {
        let is_flush = |span: &Span| span.name == "flush" && links_to(span, stored);
        let flush = collector.span("the flush", is_flush).await;
        assert!(flush.parent_span_id.is_empty() && flush.trace_id != trace);
        assert!(links_to(stored, &flush), "{stored:?}");
        assert_eq!(name_of(&flush, "trunkline.flush.messages"), "1");
        assert_eq!(name_of(&flush, "trunkline.flush.topics"), "1");
        let within = stored.start_time_unix_nano <= flush.start_time_unix_nano
            && flush.start_time_unix_nano <= stored.end_time_unix_nano;
        assert!(within, "{stored:?} {flush:?}");
    }
    // What the consumer did with both messages, of which only one carries a context.
    let is_process = |span: &Span| span.name == "process orders";
    let process = collector.span("the consumer's span", is_process).await;
    assert!(links_to(&process, &send) && process.links.len() == 1, "{process:?}");
    assert_eq!((process.kind(), process.trace_id == trace), (SpanKind::Consumer, false));
    assert_eq!(name_of(&process, "messaging.batch.message_count"), "2");
    assert_eq!(name_of(&process, "messaging.consumer.group.name"), "billing");
    // The message keeps its own headers.
    assert_eq!(messages[0].headers["unit"], "piece");
    let sent = trunkline::client::trace::extract(&messages[0].headers).unwrap();
    assert_eq!(sent.span_id().to_bytes().to_vec(), send.span_id);
    assert!(messages[1].headers.is_empty());
    let services: Vec<_> = collector
        .resources()
        .iter()
        .filter_map(|resource| attribute(&resource.attributes, "service.name"))
        .collect();
    assert!(services.contains(&"trunkline".to_owned()), "{services:?}");
}

#[tokio::test]
async fn messages_of_one_request_that_are_of_several_traces_are_all_linked() {
    let broker = TracedBroker::start(&["--trace-sampling", "0"]).await;
    let (program, _alone) = TracedProgram::start(&broker.collector).await;
    broker.client.ensure_topic("orders").await.unwrap();
    let producer = broker
        .client
        .producer("orders", "shop")
        .register()
        .linger(Duration::from_secs(5))
        .open()
        .await
        .unwrap();
    // The first one goes at once, and the others gather behind it.
    let mut sent = Vec::new();
    for number in 0..20 {
        let context = Context::new().with_span(program.tracer.start(format!("order {number}")));
        sent.push(producer.send("x").with_context(context).await.unwrap());
    }
    producer.flush().await.unwrap();
    program.flush().await;
    let mut linked = 0;
    for number in 0..20 {
        let is_order = |span: &Span| span.name == format!("order {number}");
        let order = broker.collector.span("an order", is_order).await;
        let send = broker.collector.named("send orders", &order.trace_id).await;
        let is_publish = |span: &Span| {
            span.name == "publish orders"
                && (span.parent_span_id == send.span_id || links_to(span, &send))
        };
        let publish = broker.collector.span("the publish", is_publish).await;
        linked += usize::from(links_to(&publish, &send));
    }
    assert!(linked > 0, "no request had several messages");
}

#[tokio::test]
async fn nothing_is_traced_and_nothing_written_for_what_is_not_sampled() {
    let broker = TracedBroker::start(&["--trace-sampling", "0"]).await;
    broker.client.ensure_topic("orders").await.unwrap();
    let producer = broker.client.producer("orders", "shop").register().open().await.unwrap();
    let unsampled = opentelemetry_sdk::trace::SdkTracerProvider::builder()
        .with_sampler(opentelemetry_sdk::trace::Sampler::AlwaysOff)
        .build();
    let tracer = opentelemetry::trace::TracerProvider::tracer(&unsampled, "the program");
    let context = Context::new().with_span(tracer.start("checkout"));
    assert!(!context.span().span_context().is_sampled());
    producer.publish("a").with_context(context).await.unwrap();
    producer.publish("b").await.unwrap();
    // Its call ends here.
    producer.close().await.unwrap();
    let read = proto::ReadMessagesRequest { topic: "orders".to_owned(), ..Default::default() };
    let read = broker.client.topics().read_messages(read).await.unwrap().into_inner();
    assert_eq!(read.messages.len(), 2);
    assert!(read.messages.iter().all(|message| message.headers.is_empty()), "{read:?}");

    let get = proto::GetTopicRequest { topic: "orders".to_owned() }.encode_to_vec();
    let get_topic = "trunkline.v1.TopicService/GetTopic";
    broker.call(1, "00", get_topic, &get).await;
    let trace = broker.call(2, "01", get_topic, &get).await;
    broker.collector.named(get_topic, &trace).await;
    // Spans are exported in the order in which they end.
    assert_eq!(broker.collector.spans().len(), 1, "{:?}", broker.collector.spans());
}

#[tokio::test]
async fn a_share_of_the_calls_is_traced_whose_clients_do_not_say() {
    let broker = TracedBroker::start(&["--trace-sampling", "1"]).await;
    broker.client.ensure_topic("orders").await.unwrap();
    let is_create = |span: &Span| span.name == "trunkline.v1.TopicService/CreateTopic";
    let span = broker.collector.span("a call", is_create).await;
    assert!(span.parent_span_id.is_empty());
    // A client that says no is obeyed, and probes are not worth a trace.
    let get = proto::GetTopicRequest { topic: "orders".to_owned() }.encode_to_vec();
    let refused = broker.call(1, "00", "trunkline.v1.TopicService/GetTopic", &get).await;
    let health = RawClient::connect(&broker.endpoint).await;
    soon("a probe", health.call("grpc.health.v1.Health/Check", &[], &[b""])).await;
    let last = broker.call(2, "01", "trunkline.v1.TopicService/GetTopic", &get).await;
    broker.collector.named("trunkline.v1.TopicService/GetTopic", &last).await;
    let spans = broker.collector.spans();
    let unwanted = |span: &Span| span.trace_id == refused || span.name.contains("Health");
    assert!(!spans.iter().any(unwanted), "{spans:?}");
}

#[tokio::test]
async fn calls_are_described_as_the_conventions_say() {
    let mut broker = TracedBroker::start(&["--trace-sampling", "0"]).await;
    broker.client.ensure_topic("orders").await.unwrap();
    let topic = "orders".to_owned();
    let register = proto::RegisterConsumerRequest {
        topic: topic.clone(),
        consumer_id: "billing".to_owned(),
        ..Default::default()
    };
    broker.client.consumers().register_consumer(register).await.unwrap();
    let consume = |stop| proto::ConsumeRequest {
        topic: topic.clone(),
        consumer_id: "billing".to_owned(),
        stop,
        ..Default::default()
    };
    let caught_up = Some(proto::consume_request::Stop::UntilCaughtUp(true));
    let get = |topic: &str| proto::GetTopicRequest { topic: topic.to_owned() }.encode_to_vec();
    let get_topic = "trunkline.v1.TopicService/GetTopic";
    let consume_messages = "trunkline.v1.ConsumerService/Consume";
    for (number, method, body, name, code, reason) in [
        (1, get_topic, get("orders"), get_topic, "OK", None),
        (2, get_topic, get("none"), get_topic, "NOT_FOUND", Some("TOPIC_NOT_FOUND")),
        (3, get_topic, get(""), get_topic, "INVALID_ARGUMENT", Some("INVALID_FIELD")),
        (4, "trunkline.v1.TopicService/Nothing", Vec::new(), "_OTHER", "UNIMPLEMENTED", None),
        (5, consume_messages, consume(caught_up).encode_to_vec(), consume_messages, "OK", None),
    ] {
        let trace = broker.call(number, "01", method, &body).await;
        let span = broker.collector.named(name, &trace).await;
        assert_eq!((span.kind(), span.parent_span_id.clone()), (SpanKind::Server, bytes(PARENT)));
        assert_eq!(name_of(&span, "rpc.system.name"), "grpc");
        assert_eq!(name_of(&span, "rpc.method"), name);
        assert_eq!(name_of(&span, "rpc.response.status_code"), code);
        assert_eq!(name_of(&span, "client.address"), "127.0.0.1");
        assert!(name_of(&span, "client.port").parse::<u16>().is_ok());
        let said = attribute(&span.attributes, "trunkline.refusal.reason");
        if let Some(reason) = reason {
            assert_eq!(said.as_deref(), Some(reason));
        }
        // Only a fault of the server's is an error of its span.
        let is_fault = code == "UNIMPLEMENTED";
        let status = span.status.clone().unwrap_or_default();
        assert_eq!(status.code() == StatusCode::Error, is_fault, "{span:?}");
        assert_eq!(attribute(&span.attributes, "error.type").is_some(), is_fault);
    }
    // A stream that its client cancels.
    let client = RawClient::connect(&broker.endpoint).await;
    let headers = [("traceparent", format!("00-{TRACE}-{PARENT}-01"))];
    let body = consume(None).encode_to_vec();
    let opened = soon("a stream", client.begin(consume_messages, &headers)).await;
    let (answer, mut request) = opened;
    request.send_data(crate::support::frames(&[&body]), true).unwrap();
    drop(soon("the stream's head", answer).await.unwrap());
    drop((request, client));
    let cancelled = broker.collector.named(consume_messages, &bytes(TRACE)).await;
    assert_eq!(name_of(&cancelled, "rpc.response.status_code"), "CANCELLED");

    // What a traced call logs says of which trace it is.
    let create = proto::CreateTopicRequest { topic: "traced".to_owned(), ..Default::default() };
    let create_topic = "trunkline.v1.TopicService/CreateTopic";
    let trace = broker.call(6, "01", create_topic, &create.encode_to_vec()).await;
    let span = broker.collector.named(create_topic, &trace).await;
    let line = broker.process.log_line("topic=\"traced\"").await;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(line.contains(&hex(&span.trace_id)) && line.contains(&hex(&span.span_id)), "{line}");
}

#[tokio::test]
async fn a_publish_that_is_refused_or_fails_says_so() {
    let broker = TracedBroker::start(&["--trace-sampling", "0"]).await;
    broker.client.ensure_topic("orders").await.unwrap();
    let register = proto::RegisterProducerRequest {
        topic: "orders".to_owned(),
        producer_id: "shop".to_owned(),
        ..Default::default()
    };
    broker.client.producers().register_producer(register).await.unwrap();
    let context = |number: u8| format!("00-{}0{number}-{PARENT}-01", &TRACE[..30]);
    let request = |number, expected_head| proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: "shop".to_owned(),
        expected_head,
        messages: vec![NewMessage::new("x").with_header("traceparent", context(number))],
        ..Default::default()
    };
    let trace = |number: u8| bytes(&format!("{}0{number}", &TRACE[..30]));
    broker.client.producers().publish(request(1, Some(7))).await.unwrap_err();
    let refused = broker.collector.named("publish orders", &trace(1)).await;
    assert_eq!(refused.status.clone().unwrap_or_default().code(), StatusCode::Unset);
    let said = name_of(&refused, "trunkline.refusal.message");
    assert!(said.contains("the head of topic orders is 0, not 7"), "{said}");

    // The database fails: a statement of this broker, and then nothing at all.
    let sql = broker.database.sql().await;
    let fail = "create function fail() returns trigger language plpgsql as
                    'begin raise sqlstate ''XX000''; end';
                create trigger fail before insert on trunkline.batch execute function fail()";
    sql.batch_execute(fail).await.unwrap();
    broker.client.producers().publish(request(2, None)).await.unwrap_err();
    let failed = broker.collector.named("publish orders", &trace(2)).await;
    let is_flush = |span: &Span| span.name == "flush" && links_to(span, &failed);
    let flush = broker.collector.span("the flush", is_flush).await;
    for span in [failed, flush] {
        assert_eq!(span.status.clone().unwrap_or_default().code(), StatusCode::Error, "{span:?}");
    }
}

#[tokio::test]
async fn a_message_finds_the_broker_in_its_own_trace_whatever_the_call_belongs_to() {
    let broker = TracedBroker::start(&["--trace-sampling", "1"]).await;
    broker.client.ensure_topic("orders").await.unwrap();
    let producer = broker.client.producer("orders", "shop").register().open().await.unwrap();
    let senders: Vec<_> = (0..200).map(|number| format!("{number:016x}")).collect();
    let message = |sender: &String| {
        NewMessage::new("x").with_header("traceparent", format!("00-{TRACE}-{sender}-01"))
    };
    // The id of the first one is none. The others come twice each.
    let request = proto::PublishRequest {
        topic: "orders".to_owned(),
        producer_id: "shop".to_owned(),
        producer_epoch: producer.registration().epoch,
        messages: senders.iter().chain(&senders).map(message).collect(),
        ..Default::default()
    };
    broker.client.producers().publish(request).await.unwrap();
    let publish = broker.collector.named("publish orders", &bytes(TRACE)).await;
    assert_eq!(publish.parent_span_id, bytes(&senders[1]));
    let linked: std::collections::HashSet<_> =
        publish.links.iter().map(|link| link.span_id.clone()).collect();
    // 125 senders besides the parent, the call, and the flush.
    assert_eq!((linked.len(), publish.links.len(), publish.dropped_links_count), (127, 127, 0));
    let is_call = |span: &Span| {
        span.name.ends_with("/Publish") && links_to(&publish, span) && span.trace_id != bytes(TRACE)
    };
    broker.collector.span("the call", is_call).await;
    let is_flush = |span: &Span| span.name == "flush" && links_to(span, &publish);
    let flush = broker.collector.span("the flush", is_flush).await;
    assert!(links_to(&publish, &flush));
}

#[tokio::test]
async fn a_send_that_fails_or_is_given_up_says_so() {
    let broker = TracedBroker::start(&["--trace-sampling", "0"]).await;
    let (program, _alone) = TracedProgram::start(&broker.collector).await;
    broker.client.ensure_topic("orders").await.unwrap();
    let producer = broker.client.producer("orders", "shop").register().open().await.unwrap();
    let sampled = |name: &'static str| Context::new().with_span(program.tracer.start(name));
    let large = sampled("large");
    let too_large = vec![0; proto::MAX_MESSAGE_BYTES + 1];
    producer.send(too_large).with_context(large.clone()).await.unwrap_err();
    // Another instance fences this one, whose publishes are then refused.
    broker.client.producer("orders", "shop").open().await.unwrap();
    let fenced = sampled("fenced");
    producer.publish("x").with_context(fenced.clone()).await.unwrap_err();
    program.flush().await;
    for (context, kind) in [(large, "INVALID"), (fenced, "PRODUCER_FENCED")] {
        let trace = context.span().span_context().trace_id().to_bytes();
        let send = broker.collector.named("send orders", &trace).await;
        assert_eq!(name_of(&send, "error.type"), kind);
        assert_eq!(send.status.clone().unwrap_or_default().code(), StatusCode::Error);
    }
}
