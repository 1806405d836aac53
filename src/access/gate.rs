//! Checks callers: first who they are, then what they may do.

use std::{sync::Arc, time::SystemTime};

use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::{
        caller::{Caller, Known, PeerIdentity, Proof},
        error::Error,
        guard::Guard,
        jwt::{KeySource, Refusal, Verified},
        rules::Rule,
        snapshot::Snapshot,
        state::{Patience, State},
        token::Presented,
    },
    model::{
        Allowance, Claimant, Limit, Operation, Principal, RegistrationKey, TopicFilter, TopicName,
    },
    storage::{self, Owned, Storage},
};

/// Checks callers, or lets everyone do everything.
pub struct Access {
    pub(crate) storage: Arc<Storage>,
    /// `None` if the broker does not authenticate.
    pub(crate) state: Option<Arc<State>>,
    /// The keys of the identity provider whose tokens count, if there is one.
    keys: Option<Arc<KeySource>>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// A call of somebody who has not proved who it is.
#[derive(Debug)]
pub struct Unproven {
    /// Why not.
    pub error: Error,
    /// The principal and the id of the token, if the call presents one that was valid until lately.
    pub token: Option<(Principal, Arc<str>)>,
}

impl From<Error> for Unproven {
    fn from(error: Error) -> Self {
        Self { error, token: None }
    }
}

impl Access {
    /// Lets everyone do everything.
    pub fn off(storage: Arc<Storage>) -> Self {
        Self {
            storage,
            state: None,
            keys: None,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Requires callers to prove who they are. Tokens that an identity provider signed with one of
    /// `keys` count as well. `built_in` is how much each principal may have of what no quota limits.
    pub async fn required(
        storage: Arc<Storage>,
        keys: Option<Arc<KeySource>>,
        built_in: Allowance,
    ) -> Result<Self, storage::Error> {
        Self::required_with(storage, keys, built_in, Patience::default()).await
    }

    /// As [`Self::required`], and says how long the database may stay away.
    pub async fn required_with(
        storage: Arc<Storage>,
        keys: Option<Arc<KeySource>>,
        built_in: Allowance,
        patience: Patience,
    ) -> Result<Self, storage::Error> {
        let state = Arc::new(State::load(storage.clone(), built_in, patience).await?);
        let mut access = Self::off(storage);
        access.state = Some(state.clone());
        access.keys = keys;
        let stopping = access.stopping.clone();
        if let Some(keys) = access.keys.clone() {
            access.tasks.spawn(keys.follow(stopping.clone()));
        }
        access.tasks.spawn(async move {
            stopping.run_until_cancelled(state.keep_up_to_date()).await;
            state.store_use().await;
        });
        Ok(access)
    }

    /// Whether callers must prove who they are.
    pub fn is_required(&self) -> bool {
        self.state.is_some()
    }

    /// Refuses a caller without any of the operations on all topics.
    pub fn permit_everywhere(
        &self,
        caller: &Caller,
        operations: &[Operation],
    ) -> Result<(), Error> {
        match caller {
            Caller::Everyone => Ok(()),
            Caller::Known(known) if known.rights().permit_everywhere(operations) => Ok(()),
            Caller::Known(known) => Err(known.not_granted(operations, "*")),
        }
    }

    /// Stops polling. Call this before the storage is closed.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Finds out who calls; `None` for somebody unknown whose call is open to everyone. `rule` is
    /// that of the call, and `authorization` are the values of all headers of this name.
    pub async fn authenticate<'a>(
        &self,
        rule: Rule,
        authorization: impl Iterator<Item = &'a [u8]>,
        peer: Option<&PeerIdentity>,
    ) -> Result<Option<Caller>, Unproven> {
        let Some(state) = &self.state else { return Ok(None) };
        if rule != Rule::Open && !state.is_confirmed() {
            // Before that, what is wrong with the call itself.
            Presented::find(authorization, self.keys.is_some())?;
            return Err(Error::Unconfirmed.into());
        }
        let snapshot = state.snapshot();
        match self.prove(state, &snapshot, rule, authorization, peer).await {
            Ok((principal, proof)) => {
                Ok(Some(Caller::Known(Known { principal, proof, rule, snapshot })))
            }
            // Whoever is known is so only to be charged for it.
            Err(_) if rule == Rule::Open => Ok(None),
            Err(unproven) => Err(unproven),
        }
    }

    /// The principal that a call proves to come from.
    async fn prove<'a>(
        &self,
        state: &State,
        snapshot: &Snapshot,
        rule: Rule,
        authorization: impl Iterator<Item = &'a [u8]>,
        peer: Option<&PeerIdentity>,
    ) -> Result<(Principal, Proof), Unproven> {
        let presented = Presented::find(authorization, self.keys.is_some())?;
        Ok(match (presented, &self.keys) {
            (Some(Presented::Own(presented)), _) => {
                let token = snapshot.recognise(&presented)?;
                token.check().map_err(|error| {
                    let token = Some((token.principal.clone(), token.id.clone()));
                    Unproven { error, token }
                })?;
                let token = token.clone();
                state.record_use(&token);
                (token.principal.clone(), Proof::Token(token))
            }
            // An open call waits for no identity provider.
            (Some(Presented::Jwt(token)), Some(keys)) if rule == Rule::Open => {
                prove_by_jwt(keys.verify_with_known_keys(token))?
            }
            (Some(Presented::Jwt(token)), Some(keys)) => {
                prove_by_jwt(Box::pin(keys.verify(token)).await)?
            }
            (Some(Presented::Jwt(_)), None) => return Err(Error::TokenUnknown.into()),
            (None, _) => {
                let named = peer.and_then(|PeerIdentity(names)| snapshot.first_with_grant(names));
                (named.ok_or(Error::TokenMissing)?, Proof::Certificate)
            }
        })
    }

    /// The caller of a call, as [`Self::authenticate`] found it, with the rights that it has now: a
    /// request may arrive long after its headers. Refuses a call that was not authenticated although
    /// it must be, and a caller whose proof has ended meanwhile.
    pub fn caller(&self, found: Option<&Caller>) -> Result<Caller, Error> {
        match (&self.state, found) {
            (None, _) => Ok(Caller::Everyone),
            (Some(state), Some(Caller::Known(known))) => {
                if !state.is_confirmed() {
                    return Err(Error::Unconfirmed);
                }
                let mut known = known.clone();
                known.renew(&state.snapshot())?;
                Ok(Caller::Known(known))
            }
            (Some(_), _) => Err(Error::TokenMissing),
        }
    }

    /// Refuses a caller without a right on a topic that the call needs.
    pub fn permit_topic(&self, caller: &Caller, topic: &TopicName) -> Result<(), Error> {
        let Caller::Known(known) = caller else { return Ok(()) };
        match known.rule {
            Rule::Topic(operations) => known.permit_any(operations, topic),
            Rule::TopicName(operations) => {
                known.permit_any(operations, topic).map_err(|error| match error {
                    Error::TopicHidden { topic } => known.not_granted(operations, topic.as_str()),
                    other => other,
                })
            }
            // The call needs more than a right on a topic.
            _ => Err(known.not_granted(&[Operation::Admin], "*")),
        }
    }

    /// Refuses a caller that may not publish to a topic to which its subscription is to move messages. The refusal
    /// does not tell whether the topic exists.
    pub fn permit_dead_letters(&self, caller: &Caller, topic: &TopicName) -> Result<(), Error> {
        match caller {
            Caller::Known(known) if !known.may(&[Operation::Publish], topic) => {
                Err(known.not_granted(&[Operation::Publish], topic.as_str()))
            }
            _ => Ok(()),
        }
    }

    /// Whether a topic may exist for the caller.
    pub fn knows_topic(&self, caller: &Caller, topic: &TopicName) -> bool {
        match caller {
            Caller::Everyone => true,
            Caller::Known(known) => known.rights().know(topic.as_str()),
        }
    }

    /// Refuses a caller that is not the owner of a registration, unless the call is permitted for
    /// everyone's. A registration that does not exist is refused as well, so that the call cannot act
    /// on one that somebody else makes meanwhile.
    pub async fn permit_registration(
        &self,
        caller: &Caller,
        key: impl FnOnce() -> RegistrationKey,
    ) -> Result<(), Error> {
        match (caller, &self.state) {
            (Caller::Known(known), Some(state)) => {
                let key = key();
                match known.check_registration(state, &key).await? {
                    true => Ok(()),
                    false => Err(Error::NotRegistered(key)),
                }
            }
            _ => Ok(()),
        }
    }

    /// As [`Self::permit_registration`]. Returns whose registration the caller may remove: anyone's, or
    /// only its own, as it may be another's by the time it is removed.
    pub async fn permit_removal(
        &self,
        caller: &Caller,
        key: &RegistrationKey,
    ) -> Result<Option<Principal>, Error> {
        self.permit_registration(caller, || key.clone()).await?;
        let Caller::Known(known) = caller else { return Ok(None) };
        match known.rule {
            Rule::Registration { any, .. } if known.may(any, &key.topic) => Ok(None),
            _ => Ok(Some(known.principal.clone())),
        }
    }

    /// Whose registrations of a topic the caller may list: those of a principal, or everyone's.
    pub fn listed_owner(
        &self,
        caller: &Caller,
        topic: &TopicName,
    ) -> Result<Option<Principal>, Error> {
        let Caller::Known(known) = caller else { return Ok(None) };
        let Rule::Description { own, any } = known.rule else {
            return Err(known.not_granted(&[Operation::Admin], "*"));
        };
        if known.may(any, topic) {
            return Ok(None);
        }
        known.permit_any(own, topic)?;
        Ok(Some(known.principal.clone()))
    }

    /// The owner of a registration that the caller is about to make. Refuses an id that is registered
    /// and is not the caller's.
    pub async fn claim(
        &self,
        caller: &Caller,
        key: &RegistrationKey,
    ) -> Result<Option<Claimant>, Error> {
        let Caller::Known(known) = caller else { return Ok(None) };
        self.permit_topic(caller, &key.topic)?;
        // Not a copy: an id that is registered anew may have had another owner.
        match self.storage.find_owner(key).await.map_err(Error::of_read)? {
            Owned::By(owner) if owner != known.principal => Err(Error::NotOwner(key.clone())),
            Owned::ByNobody => Err(Error::NoOwner(key.clone())),
            // Its messages would bear the name of a role, which then could not publish any more, or pass for
            // dead letters.
            Owned::NotRegistered if key.id.is_reserved() => Err(Error::NotOwner(key.clone())),
            Owned::By(_) | Owned::NotRegistered => {
                Ok(self.claimant(caller, Limit::of_registration(&key.id)))
            }
        }
    }

    /// The topics that exist for the caller; `None` if all do.
    pub fn known_topics(&self, caller: &Caller) -> Option<TopicFilter> {
        match caller {
            Caller::Everyone => None,
            Caller::Known(known) => known.rights().known_topics(),
        }
    }

    /// Watches whether the caller of a stream is permitted to go on.
    pub fn guard(&self, caller: &Caller) -> Guard {
        match (caller, &self.state) {
            (Caller::Known(known), Some(state)) if known.rule != Rule::Open => {
                Guard::new(state.clone(), known.clone())
            }
            _ => Guard::of_everyone(),
        }
    }

    /// Forgets the owner of a registration that this broker has removed.
    pub fn unregistered(&self, key: &RegistrationKey) {
        if let Some(state) = &self.state {
            state.owners.forget(key);
        }
    }

    /// Forgets the owners on a topic that this broker has deleted.
    pub fn topic_deleted(&self, topic: &TopicName) {
        if let Some(state) = &self.state {
            state.owners.forget_topic(topic);
        }
    }
}

/// What a token of the identity provider proves.
fn prove_by_jwt(verified: Result<Verified, Refusal>) -> Result<(Principal, Proof), Error> {
    let Verified { principal, expires_at } = verified.map_err(Error::of_jwt)?;
    let principal = Principal::parse(&principal)
        .map_err(|invalid| Error::JwtPrincipal { problem: invalid.problem })?;
    let left = expires_at.duration_since(SystemTime::now()).unwrap_or_default();
    // Tokens expire before the year 10000, and instants reach further.
    let valid_until = Instant::now().checked_add(left).ok_or(Error::TokenExpired)?;
    Ok((principal, Proof::Jwt { valid_until, expires_at }))
}
