//! How much callers may do and have: quotas are set, listed and applied.

use std::sync::Arc;

use crate::{
    access::{
        administration::permit_administrator,
        caller::{Caller, Known},
        error::Error,
        gate::Access,
        rate::UsedUp,
        state::State,
        usage::{OpenStream, Pace},
    },
    model::{Claimant, Limit, Quota, QuotaHolder, QuotaKey},
    storage::{AccessChange, MAX_QUOTAS},
};

impl Access {
    /// Sets how much of something a principal may do or have.
    pub async fn set_quota(
        &self,
        caller: &Caller,
        key: &QuotaKey,
        value: u64,
    ) -> Result<Quota, Error> {
        permit_administrator(caller)?;
        let set = self.storage.set_quota(key, value, caller.name()).await;
        match set.map_err(Error::of_write)? {
            AccessChange::Done(quota) => {
                self.changed().await;
                Ok(quota)
            }
            _ => Err(Error::TooManyQuotas { limit: MAX_QUOTAS }),
        }
    }

    /// Removes a quota.
    pub async fn remove_quota(&self, caller: &Caller, key: &QuotaKey) -> Result<(), Error> {
        permit_administrator(caller)?;
        match self.storage.remove_quota(key).await.map_err(Error::of_write)? {
            true => {
                self.changed().await;
                Ok(())
            }
            false => Err(Error::QuotaNotFound(key.clone())),
        }
    }

    /// The quotas that the caller may see, of one holder or of all, after a quota.
    pub async fn list_quotas(
        &self,
        caller: &Caller,
        holder: Option<&QuotaHolder>,
        after: Option<&QuotaKey>,
        limit: usize,
    ) -> Result<Vec<Quota>, Error> {
        let own;
        let holder = match (caller.is_administrator(), caller.principal()) {
            (true, _) => holder,
            (false, Some(principal)) => {
                own = QuotaHolder::Of(principal.clone());
                if holder.is_some_and(|asked| *asked != own) {
                    return Ok(Vec::new());
                }
                Some(&own)
            }
            (false, None) => return Ok(Vec::new()),
        };
        self.storage.list_quotas(holder, after, limit).await.map_err(Error::of_read)
    }

    /// Who creates or registers something, and how many of the kind they may have; `None` if the
    /// broker does not authenticate.
    pub fn claimant(&self, caller: &Caller, limit: Limit) -> Option<Claimant> {
        let Caller::Known(known) = caller else { return None };
        let limit = known.snapshot.allowance(&known.principal).count(limit);
        Some(Claimant { principal: known.principal.clone(), limit })
    }

    /// Counts a stream of the caller's until it is dropped; `None` if the broker does not
    /// authenticate.
    pub fn open_stream(&self, caller: &Caller) -> Result<Option<OpenStream>, Error> {
        let Some((state, known)) = self.limited(caller) else { return Ok(None) };
        let Known { principal, snapshot, .. } = known;
        let limit = snapshot.allowance(principal).count(Limit::Streams);
        let opened = state.usage(principal).open_stream(limit);
        let too_many = || Error::TooManyStreams { principal: principal.clone(), limit };
        opened.ok_or_else(too_many).map(Some)
    }

    /// The rates that a publish stream of the caller's is held to; `None` if the broker does not
    /// authenticate.
    pub fn pace(&self, caller: Option<&Caller>) -> Option<Pace> {
        let (state, Known { principal, .. }) = self.limited(caller?)?;
        Some(Pace::new(state.usage(principal)))
    }

    /// Takes what a call publishes from its caller's rates, or refuses it.
    pub fn take(&self, caller: &Caller, messages: usize, bytes: usize) -> Result<(), Error> {
        let Some((state, Known { principal, snapshot, .. })) = self.limited(caller) else {
            return Ok(());
        };
        let allowance = snapshot.allowance(principal);
        let is_limited = |limit| allowance.get(limit).is_some();
        if !is_limited(Limit::MessagesPerSecond) && !is_limited(Limit::BytesPerSecond) {
            return Ok(());
        }
        let taken = state.usage(principal).take(messages, bytes);
        taken.map_err(|UsedUp { limit, value, wait }| {
            let principal = principal.clone();
            Error::RateExceeded { principal, limit, value, wait }
        })
    }

    fn limited<'a>(&'a self, caller: &'a Caller) -> Option<(&'a Arc<State>, &'a Known)> {
        match (&self.state, caller) {
            (Some(state), Caller::Known(known)) => Some((state, known)),
            _ => None,
        }
    }
}
