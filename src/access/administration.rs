//! Changes of tokens, grants and owners, and what they look like.

use std::time::Duration;

use crate::{
    access::{
        caller::{Caller, Known},
        error::Error,
        gate::Access,
        token::{Minted, NoRandom, is_id},
    },
    model::{
        AuditFilter, AuditPlace, AuditRecord, Grant, GrantKey, InvalidInput, Limit, Operation,
        Principal, RegistrationKey, Token,
    },
    storage::{
        self, AccessChange, MAX_GRANTS, MAX_GRANTS_OF_PRINCIPAL, MAX_TOKENS,
        MAX_TOKENS_OF_PRINCIPAL, Rotation,
    },
};

/// A token that is asked for.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Who it stands for.
    pub principal: Principal,
    /// What it is for.
    pub description: String,
    /// How long it is valid; `None` for a token that does not expire.
    pub valid_for: Option<Duration>,
}

/// A token that is to replace another one.
#[derive(Clone, Debug)]
pub struct RotateToken {
    /// The id of the token to replace.
    pub id: String,
    /// How long the new token is valid; `None` for as long as the old one was meant to be.
    pub valid_for: Option<Duration>,
    /// How long the old token stays valid.
    pub overlap: Duration,
}

impl Access {
    /// Creates a token. Returns its text, which is not stored, and what is known of it.
    pub async fn create_token(
        &self,
        caller: &Caller,
        new: &NewToken,
    ) -> Result<(String, Token), Error> {
        permit_administrator(caller)?;
        let NewToken { principal, description, valid_for } = new;
        let minted = mint()?;
        let created =
            self.storage.create_token(principal, description, stored(&minted, *valid_for, caller));
        let created = created.await.map_err(|error| match error {
            storage::Error::Refused(_) => {
                let problem = "holds a character that the database's encoding lacks";
                InvalidInput::new("description", problem).into()
            }
            error => Error::of_write(error),
        })?;
        let token = token_change(created, "", Some(principal))?;
        self.changed().await;
        Ok((minted.text, token))
    }

    /// The tokens that the caller may see, of one principal or of all, after an id.
    pub async fn list_tokens(
        &self,
        caller: &Caller,
        principal: Option<&Principal>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Token>, Error> {
        match visible(caller, principal) {
            Visible::Nothing => Ok(Vec::new()),
            Visible::Of(principal) => {
                self.storage.list_tokens(principal, after, limit).await.map_err(Error::of_read)
            }
        }
    }

    /// Makes a token invalid.
    pub async fn revoke_token(&self, caller: &Caller, id: &str) -> Result<Token, Error> {
        self.permit_token(caller, id).await?;
        let revoked = self.storage.revoke_token(id).await.map_err(Error::of_write)?;
        let revoked = revoked.ok_or_else(|| Error::TokenNotFound { id: id.to_owned() })?;
        self.changed().await;
        Ok(revoked)
    }

    /// Creates a token that replaces another one. Returns its text, and both tokens: the new one, and
    /// the old one as it is now.
    pub async fn rotate_token(
        &self,
        caller: &Caller,
        rotate: &RotateToken,
    ) -> Result<(String, Token, Token), Error> {
        let RotateToken { id, valid_for, overlap } = rotate;
        let of = self.permit_token(caller, id).await?;
        // Whoever has a token could otherwise trade it for another one of its principal that lives
        // longer.
        if !caller.is_administrator() && caller.token_id() != Some(id) {
            return Err(Error::NotPresented { id: id.clone() });
        }
        let minted = mint()?;
        let rotation = Rotation {
            old: id,
            new: stored(&minted, *valid_for, caller),
            overlap_ms: milliseconds(*overlap),
            capped: !caller.is_administrator(),
        };
        let rotated = self.storage.rotate_token(rotation).await.map_err(Error::of_write)?;
        let (created, replaced) = token_change(rotated, id, Some(&of))?;
        self.changed().await;
        Ok((minted.text, created, replaced))
    }

    /// Permits a principal an operation on topics.
    pub async fn add_grant(&self, caller: &Caller, key: &GrantKey) -> Result<Grant, Error> {
        permit_administrator(caller)?;
        let added = self.storage.add_grant(key, caller.name()).await.map_err(Error::of_write)?;
        let grant = grant_change(added, key)?;
        self.changed().await;
        Ok(grant)
    }

    /// Withdraws a grant. While callers must prove who they are, an administrator's last one stays.
    pub async fn remove_grant(&self, caller: &Caller, key: &GrantKey) -> Result<(), Error> {
        permit_administrator(caller)?;
        let removed = self.storage.remove_grant(key, self.is_required()).await;
        grant_change(removed.map_err(Error::of_write)?, key)?;
        self.changed().await;
        Ok(())
    }

    /// The grants that the caller may see, of one principal or of all, after a grant.
    pub async fn list_grants(
        &self,
        caller: &Caller,
        principal: Option<&Principal>,
        after: Option<&GrantKey>,
        limit: usize,
    ) -> Result<Vec<Grant>, Error> {
        match visible(caller, principal) {
            Visible::Nothing => Ok(Vec::new()),
            Visible::Of(principal) => {
                self.storage.list_grants(principal, after, limit).await.map_err(Error::of_read)
            }
        }
    }

    /// The newest `limit` records of the audit, of those before `before`.
    pub async fn list_audit(
        &self,
        caller: &Caller,
        filter: &AuditFilter,
        before: Option<AuditPlace>,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, Error> {
        permit_administrator(caller)?;
        self.storage.list_audit(filter, before, limit).await.map_err(Error::of_read)
    }

    /// What is known of the caller's token, if it presented one.
    pub async fn token_of(&self, caller: &Caller) -> Result<Option<Token>, Error> {
        match caller.token_id() {
            Some(id) => self.storage.find_token(id).await.map_err(Error::of_read),
            None => Ok(None),
        }
    }

    /// The caller's own grants.
    pub async fn grants_of(&self, caller: &Caller) -> Result<Vec<Grant>, Error> {
        let Some(principal) = caller.principal() else { return Ok(Vec::new()) };
        let grants = self.storage.list_grants(Some(principal), None, MAX_GRANTS_OF_PRINCIPAL);
        grants.await.map_err(Error::of_read)
    }

    /// Gives a registration to a principal.
    pub async fn assign_owner(
        &self,
        caller: &Caller,
        key: &RegistrationKey,
        owner: &Principal,
    ) -> Result<(), Error> {
        self.permit_topic(caller, &key.topic)?;
        let what = Limit::of_registration(&key.id);
        // Others could exceed their own quota this way, or use up somebody else's.
        let limit = match caller {
            Caller::Known(known) if !caller.is_administrator() => {
                Some(known.snapshot.allowance(owner).count(what))
            }
            _ => None,
        };
        match (self.storage.assign_owner(key, owner, limit).await, limit) {
            (Ok(true), _) => {
                self.unregistered(key);
                self.changed().await;
                Ok(())
            }
            (Ok(false), _) => Err(Error::NotRegistered(key.clone())),
            (Err(storage::Error::OwnerFull), Some(limit)) => {
                Err(Error::OwnerFull { principal: owner.clone(), what, limit })
            }
            (Err(error), _) => Err(Error::of_write(error)),
        }
    }

    /// Refuses a caller that is neither an administrator nor the principal of a token; returns that
    /// principal. For others there is no such token.
    async fn permit_token(&self, caller: &Caller, id: &str) -> Result<Principal, Error> {
        if !is_id(id) {
            let problem = "must be 12 characters out of a-z 0-9";
            return Err(InvalidInput::new("token_id", problem).into());
        }
        let found = self.storage.find_token(id).await.map_err(Error::of_read)?;
        let token = found.ok_or_else(|| Error::TokenNotFound { id: id.to_owned() })?;
        match caller.is_administrator() || caller.principal() == Some(&token.principal) {
            true => Ok(token.principal),
            false => Err(Error::TokenHidden { id: id.to_owned() }),
        }
    }

    /// Makes a change take effect in this broker.
    pub(super) async fn changed(&self) {
        if let Some(state) = &self.state {
            state.refresh_soon().await;
        }
    }
}

/// Whose entries of a list a caller may see.
enum Visible<'a> {
    Nothing,
    /// Those of a principal, or all.
    Of(Option<&'a Principal>),
}

fn visible<'a>(caller: &'a Caller, asked: Option<&'a Principal>) -> Visible<'a> {
    match caller {
        _ if caller.is_administrator() => Visible::Of(asked),
        Caller::Known(Known { principal, .. }) if asked.is_none_or(|it| it == principal) => {
            Visible::Of(Some(principal))
        }
        _ => Visible::Nothing,
    }
}

pub(super) fn permit_administrator(caller: &Caller) -> Result<(), Error> {
    match caller {
        Caller::Known(known) if !known.rights().are_of_administrator() => Err(Error::NotGranted {
            principal: known.principal.clone(),
            operation: Operation::Admin,
            topic: "*".to_owned(),
        }),
        _ => Ok(()),
    }
}

fn mint() -> Result<Minted, Error> {
    Minted::new().map_err(|NoRandom(error)| {
        Error::of_read(storage::Error::Unexpected(format!("no random numbers: {error}")))
    })
}

fn stored<'a>(
    minted: &'a Minted,
    valid_for: Option<Duration>,
    caller: &'a Caller,
) -> storage::NewToken<'a> {
    storage::NewToken {
        id: &minted.id,
        hash: &minted.hash,
        valid_for_ms: valid_for.map(milliseconds),
        created_by: caller.name(),
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn token_change<T>(
    change: AccessChange<T>,
    id: &str,
    principal: Option<&Principal>,
) -> Result<T, Error> {
    match change {
        AccessChange::Done(done) => Ok(done),
        AccessChange::Full { of_principal } => Err(Error::TooManyTokens {
            principal: principal.filter(|_| of_principal).cloned(),
            limit: if of_principal { MAX_TOKENS_OF_PRINCIPAL } else { MAX_TOKENS },
        }),
        AccessChange::NotFound | AccessChange::LastAdministrator => {
            Err(Error::TokenNotFound { id: id.to_owned() })
        }
    }
}

fn grant_change<T>(change: AccessChange<T>, key: &GrantKey) -> Result<T, Error> {
    let GrantKey { principal, operation, topics } = key;
    match change {
        AccessChange::Done(done) => Ok(done),
        AccessChange::Full { of_principal } => Err(Error::TooManyGrants {
            principal: of_principal.then(|| principal.clone()),
            limit: if of_principal { MAX_GRANTS_OF_PRINCIPAL } else { MAX_GRANTS },
        }),
        AccessChange::LastAdministrator => Err(Error::LastAdministrator),
        AccessChange::NotFound => Err(Error::GrantNotFound {
            principal: principal.clone(),
            operation: *operation,
            topics: topics.as_str().to_owned(),
        }),
    }
}
