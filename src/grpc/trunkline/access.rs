//! `AccessService`: tokens, grants, quotas, and owners of registrations.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use tracing::info;

use crate::{
    access::{Access, Caller},
    broker::Broker,
    grpc::{
        caller, peer,
        status::refuse,
        trunkline::{access_requests as requests, missing, page_token},
    },
    model::{GrantKey, Page, QuotaKey, RegistrationId},
    proto::{self, raw::access_service_server::AccessService},
};

/// `AccessService` over a broker's access layer.
pub struct AccessAdmin {
    pub(crate) broker: Arc<Broker>,
    pub(crate) access: Arc<Access>,
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
        let (caller, client) = (self.caller(&request)?, peer::of(&request));
        let new = requests::new_token(request.into_inner()).map_err(refuse)?;
        let (secret, token) = self.access.create_token(&caller, &new).await.map_err(refuse)?;
        let (id, principal) = (&token.id, &token.principal);
        info!(id, %principal, by = caller.name(), client, "created a token");
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
        let id = &request.get_ref().token_id;
        let token = self.access.revoke_token(&caller, id).await.map_err(refuse)?;
        let client = peer::of(&request);
        info!(id, principal = %token.principal, by = caller.name(), client, "revoked a token");
        let token = Some(requests::encode_token(token));
        Ok(Response::new(proto::RevokeTokenResponse { token }))
    }

    async fn rotate_token(
        &self,
        request: Request<proto::RotateTokenRequest>,
    ) -> Result<Response<proto::RotateTokenResponse>, Status> {
        let (caller, client) = (self.caller(&request)?, peer::of(&request));
        let rotate = requests::rotate_token(request.into_inner()).map_err(refuse)?;
        let rotated = self.access.rotate_token(&caller, &rotate).await.map_err(refuse)?;
        let (secret, token, replaced) = rotated;
        let (id, new, principal) = (&replaced.id, &token.id, &token.principal);
        info!(id, new, %principal, by = caller.name(), client, "rotated a token");
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
        let proto::AddGrantRequest { principal, operation, topics } = request.get_ref();
        let key = requests::grant_key(principal, *operation, topics).map_err(refuse)?;
        let grant = self.access.add_grant(&caller, &key).await.map_err(refuse)?;
        let (operation, client) = (key.operation, peer::of(&request));
        info!(principal, %operation, topics, by = caller.name(), client, "added a grant");
        let grant = Some(requests::encode_grant(grant));
        Ok(Response::new(proto::AddGrantResponse { grant }))
    }

    async fn remove_grant(
        &self,
        request: Request<proto::RemoveGrantRequest>,
    ) -> Result<Response<proto::RemoveGrantResponse>, Status> {
        let caller = self.caller(&request)?;
        let proto::RemoveGrantRequest { principal, operation, topics } = request.get_ref();
        let key = requests::grant_key(principal, *operation, topics).map_err(refuse)?;
        self.access.remove_grant(&caller, &key).await.map_err(refuse)?;
        let (operation, client) = (key.operation, peer::of(&request));
        info!(principal, %operation, topics, by = caller.name(), client, "removed a grant");
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
        let proto::SetQuotaRequest { principal, limit, value } = request.get_ref();
        let key = requests::quota_key(principal, *limit).map_err(refuse)?;
        let value = requests::quota_value(*value).map_err(refuse)?;
        let quota = self.access.set_quota(&caller, &key, value).await.map_err(refuse)?;
        let (limit, client) = (key.limit, peer::of(&request));
        info!(principal, %limit, value, by = caller.name(), client, "set a quota");
        let quota = Some(requests::encode_quota(quota));
        Ok(Response::new(proto::SetQuotaResponse { quota }))
    }

    async fn remove_quota(
        &self,
        request: Request<proto::RemoveQuotaRequest>,
    ) -> Result<Response<proto::RemoveQuotaResponse>, Status> {
        let caller = self.caller(&request)?;
        let proto::RemoveQuotaRequest { principal, limit } = request.get_ref();
        let key = requests::quota_key(principal, *limit).map_err(refuse)?;
        self.access.remove_quota(&caller, &key).await.map_err(refuse)?;
        let (limit, client) = (key.limit, peer::of(&request));
        info!(principal, %limit, by = caller.name(), client, "removed a quota");
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

    async fn assign_owner(
        &self,
        request: Request<proto::AssignOwnerRequest>,
    ) -> Result<Response<proto::AssignOwnerResponse>, Status> {
        let (caller, client) = (self.caller(&request)?, peer::of(&request));
        let proto::AssignOwnerRequest { topic, registration, principal } = request.into_inner();
        let key = requests::registration(&topic, registration).map_err(refuse)?;
        let owner = requests::principal(&principal).map_err(refuse)?;
        if let Err(error) = self.access.assign_owner(&caller, &key, &owner).await {
            return Err(missing::refusal(&self.broker, error).await);
        }
        let (id, by) = (key.id.as_str(), caller.name());
        match key.id {
            RegistrationId::Producer(_) => {
                info!(topic, producer = id, %owner, by, client, "assigned a producer");
            }
            RegistrationId::Consumer(_) => {
                info!(topic, consumer = id, %owner, by, client, "assigned a consumer");
            }
        }
        Ok(Response::new(proto::AssignOwnerResponse {}))
    }
}

impl AccessAdmin {
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        caller::of(&self.access, request)
    }
}
