//! Tokens and grants are created, listed, limited and withdrawn.

use tonic::Code;
use trunkline::proto::{self, Operation};

use crate::support::{
    TestDatabase, assert_field, assert_refused, info,
    secured::{As, SecuredBroker, id_of},
    shop::Shop,
};

#[tokio::test]
async fn principals_see_and_revoke_their_own_tokens_only() {
    let Shop { broker: _broker, root, shop, office } = Shop::open().await;
    let list = async |who: &As, principal: &str| {
        let principal = principal.to_owned();
        let request = proto::ListTokensRequest { principal, ..Default::default() };
        let tokens = who.access().list_tokens(request).await.unwrap().into_inner().tokens;
        tokens.into_iter().map(|token| token.principal).collect::<Vec<_>>()
    };
    assert_eq!(list(&shop, "").await, ["shop"]);
    assert_eq!(list(&shop, "office").await, Vec::<String>::new());
    assert_eq!(list(&root, "office").await, ["office"]);
    assert_eq!(list(&root, "").await.len(), 3);
    let id = office.token_id().await;
    assert_refused(shop.revoke(&id).await, Code::NotFound, "TOKEN_NOT_FOUND");
    assert_refused(root.revoke("aaaaaaaaaaaa").await, Code::NotFound, "TOKEN_NOT_FOUND");
    assert_field(root.revoke("a").await, "token_id", None);
    let revoked = office.revoke(&id).await.unwrap();
    assert!(revoked.revoke_time.is_some());
    let request = proto::CreateTokenRequest { principal: "shop".to_owned(), ..Default::default() };
    let refused = shop.access().create_token(request).await;
    assert_refused(refused, Code::PermissionDenied, "NOT_GRANTED");
    let request = proto::ListGrantsRequest::default();
    let grants = shop.access().list_grants(request).await.unwrap().into_inner().grants;
    assert!(grants.iter().all(|grant| grant.principal == "shop") && grants.len() == 1);
}

#[tokio::test]
async fn a_rotated_token_overlaps_with_its_replacement() {
    let Shop { broker, root, .. } = Shop::open().await;
    let hour = 3_600;
    let request = proto::CreateTokenRequest {
        principal: "shop".to_owned(),
        description: "the web shop".to_owned(),
        valid_for: Some(prost_types::Duration { seconds: hour, nanos: 0 }),
    };
    let old = root.access().create_token(request).await.unwrap().into_inner();
    let old_expires = old.token.unwrap().expire_time.unwrap();
    let shop = broker.with_token(&old.secret).await;
    let rotate = |seconds: Option<i64>| proto::RotateTokenRequest {
        token_id: id_of(&old.secret).to_owned(),
        valid_for: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        overlap: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
    };
    let other = broker.with_token(&root.create_token("shop").await).await;
    let refused = other.access().rotate_token(rotate(None)).await;
    assert_refused(refused, Code::PermissionDenied, "TOKEN_NOT_PRESENTED");
    // The principal's own new token expires no later than the old one would have.
    let rotated = shop.access().rotate_token(rotate(Some(10 * hour))).await.unwrap().into_inner();
    let new = rotated.token.unwrap();
    assert_eq!((new.principal.as_str(), new.description.as_str()), ("shop", "the web shop"));
    assert_eq!(new.expire_time.unwrap(), old_expires);
    assert!(rotated.replaced.unwrap().expire_time.unwrap().seconds < old_expires.seconds - 60);
    shop.who_am_i().await.unwrap();
    broker.with_token(&rotated.secret).await.who_am_i().await.unwrap();
    // An administrator's is valid for as long as was asked for at first.
    let request = proto::RotateTokenRequest {
        token_id: id_of(&rotated.secret).to_owned(),
        valid_for: None,
        overlap: Some(prost_types::Duration { seconds: 0, nanos: 0 }),
    };
    let again = root.access().rotate_token(request).await.unwrap().into_inner();
    assert!(again.token.unwrap().expire_time.unwrap().seconds > old_expires.seconds + 8 * hour);
    // Without an overlap, the old one has expired.
    let status = broker.with_token(&rotated.secret).await.who_am_i().await.unwrap_err();
    info(&status, Code::Unauthenticated, "TOKEN_EXPIRED");
}

#[tokio::test]
async fn the_last_administrators_grant_stays() {
    let broker = SecuredBroker::start().await;
    let root = broker.root().await;
    let last = root.try_withdraw("admin", Operation::Admin, "*").await;
    assert_refused(last, Code::FailedPrecondition, "LAST_ADMINISTRATOR");
    let ann = broker.principal("ann", [(Operation::Admin, "*")]).await;
    root.try_withdraw("admin", Operation::Admin, "*").await.unwrap();
    assert!(!root.who_am_i().await.unwrap().administrator);
    let last = ann.try_withdraw("ann", Operation::Admin, "*").await;
    assert_refused(last, Code::FailedPrecondition, "LAST_ADMINISTRATOR");
    // Twice, as the first may have had an administrator without a token.
    let again = trunkline::server::bootstrap(&broker.database.url).await.unwrap_err();
    assert!(again.to_string().contains("there is one with a valid token already"), "{again}");
}

#[tokio::test]
async fn a_first_administrator_without_a_token_is_not_created() {
    let database = TestDatabase::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "insert into trunkline.access_token (id, principal, hash)
         select 'token' || n, 'shop', decode(lpad(to_hex(n), 64, '0'), 'hex')
         from generate_series(1, 10000) n",
    )
    .await
    .unwrap();
    let refused = trunkline::server::bootstrap(&database.url).await.unwrap_err();
    assert!(refused.to_string().contains("limit"), "{refused}");
    let count = "select (select count(*) from trunkline.access_grant)
                      + (select count(*) from trunkline.audit)";
    assert_eq!(sql.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 0);
    sql.batch_execute("delete from trunkline.access_token").await.unwrap();
    trunkline::server::bootstrap(&database.url).await.unwrap();
}

#[tokio::test]
async fn tokens_and_grants_are_limited() {
    let broker = SecuredBroker::start().await;
    let root = broker.root().await;
    let sql = broker.sql().await;
    sql.batch_execute(
        "insert into trunkline.access_token (id, principal, hash)
         select 'token' || n, 'shop', decode(lpad(to_hex(n), 64, '0'), 'hex')
         from generate_series(1, 64) n;
         insert into trunkline.access_grant (principal, operation, topics)
         select 'shop', 'read', 'topic' || n from generate_series(1, 1000) n",
    )
    .await
    .unwrap();
    let create = |principal: &str| proto::CreateTokenRequest {
        principal: principal.to_owned(),
        ..Default::default()
    };
    let refused = root.access().create_token(create("shop")).await;
    let metadata = assert_refused(refused, Code::ResourceExhausted, "TOO_MANY_TOKENS");
    assert_eq!((metadata["limit"].as_str(), metadata["principal"].as_str()), ("64", "shop"));
    let grant = |principal: &str, topics: &str| proto::AddGrantRequest {
        principal: principal.to_owned(),
        operation: Operation::Read.into(),
        topics: topics.to_owned(),
    };
    let refused = root.access().add_grant(grant("shop", "more")).await;
    let metadata = assert_refused(refused, Code::ResourceExhausted, "TOO_MANY_GRANTS");
    assert_eq!(metadata["limit"], "1000");
    // One that exists is no new one.
    root.access().add_grant(grant("shop", "topic7")).await.unwrap();
    // Tokens that are no longer valid do not count.
    sql.batch_execute("update trunkline.access_token set revoked_at = now() where id = 'token1'")
        .await
        .unwrap();
    root.access().create_token(create("shop")).await.unwrap();
    // Of those, the last 1,000 of a principal are kept.
    sql.batch_execute(
        "insert into trunkline.access_token (id, principal, hash, revoked_at)
         select 'ended' || n, 'ann', decode(lpad(to_hex(n), 60, '0') || 'eeee', 'hex'),
                now() - n * interval '1 second'
         from generate_series(1, 1010) n",
    )
    .await
    .unwrap();
    root.access().create_token(create("ann")).await.unwrap();
    let kept = "select count(*), max(substr(id, 6)::integer) from trunkline.access_token
        where principal = 'ann' and revoked_at is not null";
    let kept = sql.query_one(kept, &[]).await.unwrap();
    assert_eq!((kept.get::<_, i64>(0), kept.get::<_, i32>(1)), (1_000, 1_000));
    sql.batch_execute(
        "insert into trunkline.access_token (id, principal, hash)
         select 'many' || n, 'p' || n, decode(lpad(to_hex(n), 60, '0') || 'ffff', 'hex')
         from generate_series(1, 10000 - 66) n",
    )
    .await
    .unwrap();
    let refused = root.access().create_token(create("ann")).await;
    let metadata = assert_refused(refused, Code::ResourceExhausted, "TOO_MANY_TOKENS");
    assert_eq!((metadata["limit"].as_str(), metadata.get("principal")), ("10000", None));
}

#[tokio::test]
async fn grants_are_listed_page_by_page_in_order() {
    let broker = SecuredBroker::start().await;
    let root = broker.root().await;
    for (principal, operation, topics) in [
        ("b", Operation::Read, "x*"),
        ("a/1", Operation::Publish, "*"),
        ("a/1", Operation::Consume, "y"),
        ("a/1", Operation::Consume, "x"),
    ] {
        root.grant(principal, operation, topics).await;
    }
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = proto::ListGrantsRequest { page_size: 2, page_token, ..Default::default() };
        let page = root.access().list_grants(request).await.unwrap().into_inner();
        let grants = page.grants.into_iter();
        found
            .extend(grants.map(|grant| (grant.principal.clone(), grant.operation(), grant.topics)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let expected = [
        ("a/1", Operation::Consume, "x"),
        ("a/1", Operation::Consume, "y"),
        ("a/1", Operation::Publish, "*"),
        ("admin", Operation::Admin, "*"),
        ("b", Operation::Read, "x*"),
    ];
    let expected = expected.map(|(who, what, topics)| (who.to_owned(), what, topics.to_owned()));
    assert_eq!(found, expected);
    let request = proto::ListGrantsRequest { page_token: "x".to_owned(), ..Default::default() };
    assert_field(root.access().list_grants(request).await, "page_token", None);
}

#[tokio::test]
async fn requests_about_access_are_checked() {
    let broker = SecuredBroker::start().await;
    let mut access = broker.root().await.access();
    let grant = |principal: &str, operation: i32, topics: &str| proto::AddGrantRequest {
        principal: principal.to_owned(),
        operation,
        topics: topics.to_owned(),
    };
    let read = Operation::Read as i32;
    for (request, field, limit) in [
        (grant("", read, "*"), "principal", None),
        (grant(&"x".repeat(129), read, "*"), "principal", Some(128)),
        (grant("a", 0, "*"), "operation", None),
        (grant("a", 99, "*"), "operation", None),
        (grant("a", read, "a b"), "topics", None),
        (grant("a", read, ""), "topics", None),
    ] {
        assert_field(access.add_grant(request).await, field, limit);
    }
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let token = |description: &str, valid_for| proto::CreateTokenRequest {
        principal: "a".to_owned(),
        description: description.to_owned(),
        valid_for,
    };
    assert_field(
        access.create_token(token(&"x".repeat(257), None)).await,
        "description",
        Some(256),
    );
    assert_field(access.create_token(token("a\0", None)).await, "description", None);
    for bad in [0, -1, 3_650 * 24 * 3_600 + 1] {
        let refused = access.create_token(token("", seconds(bad))).await;
        let metadata = assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(metadata["field"], "valid_for");
    }
    let rotate = proto::RotateTokenRequest {
        token_id: "aaaaaaaaaaaa".to_owned(),
        valid_for: None,
        overlap: seconds(30 * 24 * 3_600 + 1),
    };
    let metadata =
        assert_refused(access.rotate_token(rotate).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(metadata["field"], "overlap");
    let assign = proto::AssignOwnerRequest {
        topic: "orders".to_owned(),
        registration: None,
        principal: "a".to_owned(),
    };
    assert_field(access.assign_owner(assign).await, "registration", None);
}
