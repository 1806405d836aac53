//! `AccessService`: tokens, grants, quotas, and owners of registrations.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    access::{Access, Caller},
    audit::Audit,
    broker::Broker,
    grpc::{
        audited, caller,
        status::refuse,
        trunkline::{access_requests as requests, missing, page_token},
    },
    model::{Act, AuditEntry, AuditPlace, GrantKey, Page, QuotaKey},
    proto::{self, raw::access_service_server::AccessService},
};

/// `AccessService` over a broker's access layer.
pub struct AccessAdmin {
    pub(crate) broker: Arc<Broker>,
    pub(crate) access: Arc<Access>,
    pub(crate) audit: Arc<Audit>,
}

#[tonic::async_trait]
impl AccessService for AccessAdmin {
    async fn who_am_i(
        &self,
        request: Request<proto::WhoAmIRequest>,
    ) -> Result<Response<proto::WhoAmIResponse>, Status> {
        let caller = self.caller(&request)?;
        let token = self.access.token_of(&caller).await.map_err(refuse)?;
        let grants = self.access.grants_of(&caller).await.map_err(refuse)?;
        Ok(Response::new(proto::WhoAmIResponse {
            principal: caller.name().to_owned(),
            token_id: caller.token_id().unwrap_or_default().to_owned(),
            expire_time: token
                .and_then(|token| token.expires_at)
                .or_else(|| caller.jwt_expires_at())
                .map(Into::into),
            administrator: caller.is_administrator(),
            grants: grants.into_iter().map(requests::encode_grant).collect(),
            authenticated: self.access.is_required(),
        }))
    }

    async fn create_token(
        &self,
        request: Request<proto::CreateTokenRequest>,
    ) -> Result<Response<proto::CreateTokenResponse>, Status> {
        let caller = self.caller(&request)?;
        let entry = audited::entry(Act::CreateToken, &request);
        let new = requests::new_token(request.into_inner()).map_err(refuse)?;
        let (access, audit) = (self.access.clone(), self.audit.clone());
        let created = async move {
            let created = access.create_token(&caller, &new).await;
            let entry = entry.to("principal", &new.principal);
            audited::settle(&audit, entry, created, |(_, token), entry| {
                entry.to("token", &token.id).with("principal", &token.principal)
            })
            .await
        };
        let (secret, token) = self.audit.finish(created).await?;
        let token = Some(requests::encode_token(token));
        Ok(Response::new(proto::CreateTokenResponse { secret, token }))
    }

    async fn list_tokens(
        &self,
        request: Request<proto::ListTokensRequest>,
    ) -> Result<Response<proto::ListTokensResponse>, Status> {
        let caller = self.caller(&request)?;
        let proto::ListTokensRequest { principal, page_size, page_token } = request.get_ref();
        let of = requests::principal_of_list(principal).map_err(refuse)?;
        let list = format!("tokens of {principal:?}");
        let page = page_token::decode(&list, *page_size, page_token).map_err(refuse)?;
        let found = self.access.list_tokens(&caller, of.as_ref(), &page.after, page.size + 1);
        let page = Page::of(found.await.map_err(refuse)?, page.size, None);
        let next_page_token = page_token::encode(&list, &page);
        let tokens = page.entries.into_iter().map(requests::encode_token).collect();
        Ok(Response::new(proto::ListTokensResponse { tokens, next_page_token }))
    }

    async fn revoke_token(
        &self,
        request: Request<proto::RevokeTokenRequest>,
    ) -> Result<Response<proto::RevokeTokenResponse>, Status> {
        let caller = self.caller(&request)?;
        let entry = audited::entry(Act::RevokeToken, &request);
        let proto::RevokeTokenRequest { token_id: id } = request.into_inner();
        let (access, audit) = (self.access.clone(), self.audit.clone());
        let revoked = async move {
            let revoked = access.revoke_token(&caller, &id).await;
            audited::settle(&audit, entry.to("token", &id), revoked, |token, entry| {
                entry.with("principal", &token.principal)
            })
            .await
        };
        let token = self.audit.finish(revoked).await?;
        let token = Some(requests::encode_token(token));
        Ok(Response::new(proto::RevokeTokenResponse { token }))
    }

    async fn rotate_token(
        &self,
        request: Request<proto::RotateTokenRequest>,
    ) -> Result<Response<proto::RotateTokenResponse>, Status> {
        let caller = self.caller(&request)?;
        let entry = audited::entry(Act::RotateToken, &request);
        let rotate = requests::rotate_token(request.into_inner()).map_err(refuse)?;
        let (access, audit) = (self.access.clone(), self.audit.clone());
        let rotated = async move {
            let rotated = access.rotate_token(&caller, &rotate).await;
            let entry = entry.to("token", &rotate.id);
            audited::settle(&audit, entry, rotated, |(_, token, _), entry| {
                entry.with("new_token", &token.id).with("principal", &token.principal)
            })
            .await
        };
        let (secret, token, replaced) = self.audit.finish(rotated).await?;
        Ok(Response::new(proto::RotateTokenResponse {
            secret,
            token: Some(requests::encode_token(token)),
            replaced: Some(requests::encode_token(replaced)),
        }))
    }

    async fn add_grant(
        &self,
        request: Request<proto::AddGrantRequest>,
    ) -> Result<Response<proto::AddGrantResponse>, Status> {
        let caller = self.caller(&request)?;
        let entry = audited::entry(Act::AddGrant, &request);
        let proto::AddGrantRequest { principal, operation, topics } = request.get_ref();
        let key = requests::grant_key(principal, *operation, topics).map_err(refuse)?;
        let (access, audit) = (self.access.clone(), self.audit.clone());
        let added = async move {
            let added = access.add_grant(&caller, &key).await;
            audited::settle(&audit, of_grant(entry, &key), added, |_, entry| entry).await
        };
        let grant = self.audit.finish(added).await?;
        let grant = Some(requests::encode_grant(grant));
        Ok(Response::new(proto::AddGrantResponse { grant }))
    }

    async fn remove_grant(
        &self,
        request: Request<proto::RemoveGrantRequest>,
    ) -> Result<Response<proto::RemoveGrantResponse>, Status> {
        let caller = self.caller(&request)?;
        let entry = audited::entry(Act::RemoveGrant, &request);
        let proto::RemoveGrantRequest { principal, operation, topics } = request.get_ref();
        let key = requests::grant_key(principal, *operation, topics).map_err(refuse)?;
        let (access, audit) = (self.access.clone(), self.audit.clone());
        let removed = async move {
            let removed = access.remove_grant(&caller, &key).await;
            audited::settle(&audit, of_grant(entry, &key), removed, |_, entry| entry).await
        };
        self.audit.finish(removed).await?;
        Ok(Response::new(proto::RemoveGrantResponse {}))
    }

    async fn list_grants(
        &self,
        request: Request<proto::ListGrantsRequest>,
    ) -> Result<Response<proto::ListGrantsResponse>, Status> {
        let caller = self.caller(&request)?;
        let proto::ListGrantsRequest { principal, page_size, page_token } = request.get_ref();
        let of = requests::principal_of_list(principal).map_err(refuse)?;
        let list = format!("grants of {principal:?}");
        let is_grant = |name: &str| GrantKey::parse(name).is_some();
        let page = page_token::decode_names(&list, *page_size, page_token, is_grant);
        let page = page.map_err(refuse)?;
        let after = GrantKey::parse(&page.after);
        let found =
            self.access.list_grants(&caller, of.as_ref(), after.as_ref(), page.size + 1).await;
        let page = Page::of(found.map_err(refuse)?, page.size, None);
        let next_page_token = page_token::encode(&list, &page);
        let grants = page.entries.into_iter().map(requests::encode_grant).collect();
        Ok(Response::new(proto::ListGrantsResponse { grants, next_page_token }))
    }

    async fn set_quota(
        &self,
        request: Request<proto::SetQuotaRequest>,
    ) -> Result<Response<proto::SetQuotaResponse>, Status> {
        let caller = self.caller(&request)?;
        let entry = audited::entry(Act::SetQuota, &request);
        let proto::SetQuotaRequest { principal, limit, value } = request.get_ref();
        let key = requests::quota_key(principal, *limit).map_err(refuse)?;
        let value = requests::quota_value(*value).map_err(refuse)?;
        let (access, audit) = (self.access.clone(), self.audit.clone());
        let set = async move {
            let set = access.set_quota(&caller, &key, value).await;
            audited::settle(&audit, of_quota(entry, &key), set, |_, entry| {
                entry.with("value", value)
            })
            .await
        };
        let quota = self.audit.finish(set).await?;
        let quota = Some(requests::encode_quota(quota));
        Ok(Response::new(proto::SetQuotaResponse { quota }))
    }

    async fn remove_quota(
        &self,
        request: Request<proto::RemoveQuotaRequest>,
    ) -> Result<Response<proto::RemoveQuotaResponse>, Status> {
        let caller = self.caller(&request)?;
        let entry = audited::entry(Act::RemoveQuota, &request);
        let proto::RemoveQuotaRequest { principal, limit } = request.get_ref();
        let key = requests::quota_key(principal, *limit).map_err(refuse)?;
        let (access, audit) = (self.access.clone(), self.audit.clone());
        let removed = async move {
            let removed = access.remove_quota(&caller, &key).await;
            audited::settle(&audit, of_quota(entry, &key), removed, |_, entry| entry).await
        };
        self.audit.finish(removed).await?;
        Ok(Response::new(proto::RemoveQuotaResponse {}))
    }

    async fn list_quotas(
        &self,
        request: Request<proto::ListQuotasRequest>,
    ) -> Result<Response<proto::ListQuotasResponse>, Status> {
        let caller = self.caller(&request)?;
        let proto::ListQuotasRequest { principal, page_size, page_token } = request.get_ref();
        let of = requests::quota_holder_of_list(principal).map_err(refuse)?;
        let list = format!("quotas of {principal:?}");
        let is_quota = |name: &str| QuotaKey::parse(name).is_some();
        let page = page_token::decode_names(&list, *page_size, page_token, is_quota);
        let page = page.map_err(refuse)?;
        let after = QuotaKey::parse(&page.after);
        let found =
            self.access.list_quotas(&caller, of.as_ref(), after.as_ref(), page.size + 1).await;
        let page = Page::of(found.map_err(refuse)?, page.size, None);
        let next_page_token = page_token::encode(&list, &page);
        let quotas = page.entries.into_iter().map(requests::encode_quota).collect();
        Ok(Response::new(proto::ListQuotasResponse { quotas, next_page_token }))
    }

    async fn list_audit(
        &self,
        request: Request<proto::ListAuditRequest>,
    ) -> Result<Response<proto::ListAuditResponse>, Status> {
        let caller = self.caller(&request)?;
        let proto::ListAuditRequest { principal, topic, since, page_size, page_token } =
            request.into_inner();
        let list = format!("audit of {principal:?} {topic:?} {since:?}");
        let filter = requests::audit_filter(&principal, &topic, since).map_err(refuse)?;
        let is_place = |name: &str| AuditPlace::parse(name).is_some();
        let page = page_token::decode_names(&list, page_size, &page_token, is_place);
        let page = page.map_err(refuse)?;
        let before = AuditPlace::parse(&page.after);
        let found = self.access.list_audit(&caller, &filter, before, page.size + 1).await;
        let page = Page::of(found.map_err(refuse)?, page.size, None);
        let next_page_token = page_token::encode(&list, &page);
        let records = page.entries.into_iter().map(requests::encode_record).collect();
        Ok(Response::new(proto::ListAuditResponse { records, next_page_token }))
    }

    async fn assign_owner(
        &self,
        request: Request<proto::AssignOwnerRequest>,
    ) -> Result<Response<proto::AssignOwnerResponse>, Status> {
        let caller = self.caller(&request)?;
        let entry = audited::entry(Act::AssignOwner, &request);
        let proto::AssignOwnerRequest { topic, registration, principal } = request.into_inner();
        let key = requests::registration(&topic, registration).map_err(refuse)?;
        let owner = requests::principal(&principal).map_err(refuse)?;
        let (broker, access, audit) =
            (self.broker.clone(), self.access.clone(), self.audit.clone());
        let assigned = async move {
            let assigned = match access.assign_owner(&caller, &key, &owner).await {
                Ok(()) => Ok(()),
                Err(error) => Err(missing::refusal(&broker, error).await),
            };
            let entry = entry.to_registration(&key).with("owner", &owner);
            audited::settle(&audit, entry, assigned, |(), entry| entry).await
        };
        self.audit.finish(assigned).await?;
        Ok(Response::new(proto::AssignOwnerResponse {}))
    }
}

impl AccessAdmin {
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        caller::of(&self.access, request)
    }
}

/// Says which grant an act is about.
fn of_grant(entry: AuditEntry, GrantKey { principal, operation, topics }: &GrantKey) -> AuditEntry {
    entry.to("principal", principal).with("operation", operation).with("topics", topics)
}

/// Says which quota an act is about.
fn of_quota(entry: AuditEntry, QuotaKey { holder, limit }: &QuotaKey) -> AuditEntry {
    entry.to("principal", holder).with("limit", limit)
}
