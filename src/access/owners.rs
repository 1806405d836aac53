//! A copy of the owners of the registrations in use.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::{
    model::{Principal, RegistrationId, RegistrationKey, TopicName},
    storage::{self, Owned, OwnersVersion, Storage},
};

/// The most owners that are remembered. Beyond that, an arbitrary one is forgotten.
const MAX_OWNERS: usize = 65_536;

/// How many owners one statement reads again.
const READ_AT_ONCE: usize = 8_192;

/// The owners of registrations, each with the version of owners at which it was read. Only
/// registrations that belong to a principal are remembered: a new registration of an id can follow
/// those of nobody without a change of the version.
#[derive(Default)]
pub(crate) struct Owners(Mutex<HashMap<RegistrationKey, Owner>>);

struct Owner {
    principal: Principal,
    /// The version that was current, or older, when it was read.
    version: OwnersVersion,
}

impl Owners {
    /// Whom a registration belongs to; `version` is the current one of owners.
    pub(crate) async fn find(
        &self,
        storage: &Storage,
        key: &RegistrationKey,
        version: OwnersVersion,
    ) -> Result<Owned, storage::Error> {
        if let Some(owner) = self.0.lock().get(key)
            && owner.version == version
        {
            return Ok(Owned::By(owner.principal.clone()));
        }
        // Boxed, so that a call whose owner is remembered does not carry it.
        let found = Box::pin(storage.find_owner(key)).await?;
        if let Owned::By(principal) = &found {
            self.remember(key.clone(), Owner { principal: principal.clone(), version });
        }
        Ok(found)
    }

    /// Forgets a registration's owner, which may have changed.
    pub(crate) fn forget(&self, key: &RegistrationKey) {
        self.0.lock().remove(key);
    }

    /// Forgets the owners of a topic's registrations.
    pub(crate) fn forget_topic(&self, topic: &TopicName) {
        self.0.lock().retain(|key, _| key.topic != *topic);
    }

    /// Reads all owners again that are remembered, as of a new version.
    pub(crate) async fn read_again(
        &self,
        storage: &Storage,
        version: OwnersVersion,
    ) -> Result<(), storage::Error> {
        let keys: Vec<RegistrationKey> = self.0.lock().keys().cloned().collect();
        let is_producer = |key: &&RegistrationKey| matches!(key.id, RegistrationId::Producer(_));
        let (producers, consumers): (Vec<_>, Vec<_>) = keys.iter().partition(is_producer);
        for part in producers.chunks(READ_AT_ONCE).chain(consumers.chunks(READ_AT_ONCE)) {
            let found = storage.find_owners(part).await?;
            let mut owners = self.0.lock();
            for key in part {
                owners.remove(*key);
            }
            let found = found.into_iter();
            let found = found.filter_map(|(place, principal)| Some((*part.get(place)?, principal)));
            owners
                .extend(found.map(|(key, principal)| (key.clone(), Owner { principal, version })));
        }
        // What was added meanwhile is read again when it is needed.
        self.0.lock().retain(|_, owner| owner.version == version);
        Ok(())
    }

    fn remember(&self, key: RegistrationKey, owner: Owner) {
        let mut owners = self.0.lock();
        if owners.len() >= MAX_OWNERS
            && !owners.contains_key(&key)
            && let Some(any) = owners.keys().next().cloned()
        {
            owners.remove(&any);
        }
        owners.insert(key, owner);
    }
}
