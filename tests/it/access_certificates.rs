//! Principals that client certificates name. The connection that proves such a certificate is not part
//! of these tests: calls are answered without one.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use tonic::{Code, Status, body::Body, service::Routes};
use trunkline::{
    access::{Access, PeerIdentity},
    broker::{Broker, Overview, Quotas},
    grpc::{Api, Connection, Services, answer},
    proto::{self, Operation},
    storage::Storage,
};

use crate::support::{LIMITS, info, secured::SecuredBroker};

/// Asks who calls, with names in a certificate, and with a token if there is one.
async fn who_am_i(
    api: &Api,
    names: &[&str],
    token: Option<&str>,
) -> Result<proto::WhoAmIResponse, Status> {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    let mut request = http::Request::post("http://broker/trunkline.v1.AccessService/WhoAmI")
        .header("content-type", "application/grpc")
        .extension(Connection::new(None, Some(PeerIdentity(names))));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    // An empty message.
    let body = Body::new(Full::new(Bytes::from_static(&[0; 5])));
    let response = answer(api.clone(), request.body(body).unwrap()).await;
    if let Some(status) = Status::from_header_map(response.headers()) {
        return Err(status);
    }
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Ok(proto::WhoAmIResponse::decode(body.slice(5..)).unwrap())
}

#[tokio::test]
async fn a_certificate_stands_for_the_first_of_its_names_that_has_a_grant() {
    let other = SecuredBroker::start().await;
    let root = other.root().await;
    root.grant("shop", Operation::Publish, "orders").await;
    root.grant("office", Operation::Consume, "orders").await;
    let storage = Storage::open(&other.database.url, None, LIMITS).await.unwrap();
    let broker = Broker::start(storage, LIMITS.writers, Quotas::default()).await.unwrap();
    let access = Arc::new(
        Access::required(broker.storage(), None, broker.quotas().of_principal()).await.unwrap(),
    );
    let overview = Overview::new(broker.storage(), 1, broker.database_up());
    let services = Services::new(broker.clone(), access.clone(), Arc::new(overview));
    let (routes, metrics) = (Routes::new(services.access()).prepare(), services.metrics());
    let api = Api {
        routes,
        access: access.clone(),
        audit: broker.audit(),
        metrics,
        traces: broker.traces().clone(),
    };

    let known = who_am_i(&api, &["www.example", "shop", "office"], None).await.unwrap();
    assert_eq!((known.principal.as_str(), known.token_id.as_str()), ("shop", ""));
    assert_eq!(known.grants.len(), 1);
    for names in [&["www.example"][..], &[]] {
        let status = who_am_i(&api, names, None).await.unwrap_err();
        info(&status, Code::Unauthenticated, "TOKEN_MISSING");
    }
    // A token decides, also if it is not valid.
    let known = who_am_i(&api, &["shop"], Some(&other.root)).await.unwrap();
    assert_eq!(known.principal, "admin");
    let status = who_am_i(&api, &["shop"], Some("nonsense")).await.unwrap_err();
    info(&status, Code::Unauthenticated, "TOKEN_MALFORMED");

    access.stop().await;
    broker.drain();
    broker.stop().await;
}
