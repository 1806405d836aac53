//! Reflection, health checks and the service config.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorProto;
use tokio_stream::{StreamExt as _, once};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::TestBroker;

const SERVICES: [&str; 4] = [
    "trunkline.v1.AccessService",
    "trunkline.v1.ConsumerService",
    "trunkline.v1.ProducerService",
    "trunkline.v1.TopicService",
];

/// Lists the services, or finds the files of a symbol. The two versions of reflection differ only
/// in their package.
macro_rules! reflect {
    ($version:ident, $broker:expr, $request:expr) => {{
        use $version::server_reflection_request::MessageRequest;
        use $version::server_reflection_response::MessageResponse;
        let channel = tonic::transport::Endpoint::from_shared($broker.endpoint.clone());
        let channel = channel.unwrap().connect().await.unwrap();
        let mut client = $version::server_reflection_client::ServerReflectionClient::new(channel);
        let request = $version::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(match $request {
                None => MessageRequest::ListServices(String::new()),
                Some(symbol) => MessageRequest::FileContainingSymbol(String::from(symbol)),
            }),
        };
        let mut answers = client.server_reflection_info(once(request)).await.unwrap().into_inner();
        match answers.next().await.unwrap().unwrap().message_response.unwrap() {
            MessageResponse::ListServicesResponse(list) => {
                (list.service.into_iter().map(|s| s.name).collect::<Vec<_>>(), Vec::new())
            }
            MessageResponse::FileDescriptorResponse(files) => {
                (Vec::new(), files.file_descriptor_proto)
            }
            other => panic!("{other:?}"),
        }
    }};
}

#[tokio::test]
async fn both_versions_of_reflection_list_services_and_describe_fields_with_comments() {
    let broker = TestBroker::start().await;
    let symbol = Some("trunkline.v1.Consumer");
    let lists = [reflect!(v1, broker, None::<&str>).0, reflect!(v1alpha, broker, None::<&str>).0];
    let files = [reflect!(v1, broker, symbol).1, reflect!(v1alpha, broker, symbol).1];
    for list in lists {
        for service in SERVICES.iter().chain(&["grpc.health.v1.Health"]) {
            assert!(list.iter().any(|name| name == service), "{service} in {list:?}");
        }
    }
    for file in files {
        let file = FileDescriptorProto::decode(&file[0][..]).unwrap();
        assert_eq!(file.name(), "trunkline/v1/consumer.proto");
        let comments = file.source_code_info.unwrap().location;
        let comments: Vec<&str> =
            comments.iter().map(|location| location.leading_comments()).collect();
        assert!(comments.contains(&" Who holds the lease now; empty if nobody does.\n"));
    }
}

#[tokio::test]
async fn reflection_describes_error_details() {
    let broker = TestBroker::start().await;
    for symbol in ["google.rpc.ErrorInfo", "google.rpc.BadRequest", "google.rpc.RetryInfo"] {
        let files = reflect!(v1, broker, Some(symbol)).1;
        assert!(!files.is_empty(), "{symbol}");
    }
}

#[tokio::test]
async fn health_reports_the_server_and_each_service() {
    let broker = TestBroker::start().await;
    let mut health = broker.health();
    for service in SERVICES.iter().chain(&[""]) {
        let request = HealthCheckRequest { service: (*service).to_owned() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let unknown = HealthCheckRequest { service: "nope".to_owned() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[test]
fn the_service_config_names_every_unary_call_once_and_retries_only_safe_calls() {
    let set = prost_types::FileDescriptorSet::decode(trunkline::proto::FILE_DESCRIPTOR_SET);
    let mut calls = BTreeSet::new();
    for file in set.unwrap().file {
        for service in &file.service {
            let unary =
                service.method.iter().filter(|m| !m.server_streaming() && !m.client_streaming());
            let service = format!("{}.{}", file.package(), service.name());
            calls.extend(unary.map(|method| (service.clone(), method.name().to_owned())));
        }
    }
    let path = "proto/trunkline/v1/trunkline_grpc_service_config.json";
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut named = BTreeSet::new();
    for method_config in config["methodConfig"].as_array().unwrap() {
        let retried = method_config.get("retryPolicy").is_some();
        for name in method_config["name"].as_array().unwrap() {
            let of = |field: &str| name[field].as_str().unwrap().to_owned();
            let (service, method) = (of("service"), of("method"));
            // Repeating any other call may do something that was not requested.
            let safe_to_retry =
                ["Get", "List", "Read", "Commit"].iter().any(|verb| method.starts_with(verb));
            assert_eq!(retried, safe_to_retry, "{method}");
            assert!(named.insert((service, method.clone())), "{method} is named twice");
        }
    }
    assert_eq!(named, calls);
}
