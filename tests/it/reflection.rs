//! Reflection, health checks and the service config.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};
use tokio_stream::{StreamExt as _, once};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::TestBroker;

/// The services of the protos: their names, and their methods.
fn services() -> Vec<(String, Vec<MethodDescriptorProto>)> {
    let set = FileDescriptorSet::decode(trunkline::proto::FILE_DESCRIPTOR_SET).unwrap();
    let services = set.file.into_iter().flat_map(|file| {
        let package = file.package().to_owned();
        let name = move |service: &ServiceDescriptorProto| format!("{package}.{}", service.name());
        file.service.into_iter().map(move |service| (name(&service), service.method))
    });
    services.collect()
}

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
        let services = services().into_iter().map(|(service, _)| service);
        for service in services.chain(["grpc.health.v1.Health".to_owned()]) {
            assert!(list.contains(&service), "{service} in {list:?}");
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
    for service in services().into_iter().map(|(service, _)| service).chain([String::new()]) {
        let request = HealthCheckRequest { service: service.clone() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let unknown = HealthCheckRequest { service: "nope".to_owned() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[test]
fn the_service_config_names_every_unary_call_once_and_retries_only_safe_calls() {
    let mut calls = BTreeSet::new();
    for (service, methods) in services() {
        let unary = methods.iter().filter(|m| !m.server_streaming() && !m.client_streaming());
        calls.extend(unary.map(|method| (service.clone(), method.name().to_owned())));
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
