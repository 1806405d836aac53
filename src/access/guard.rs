//! Watches whether an open stream may go on.
//!
//! A guard is woken when tokens, grants or owners change, and when its token expires. It costs
//! nothing in between.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    access::{
        caller::Known,
        error::Error,
        snapshot::Snapshot,
        state::{State, View},
    },
    model::RegistrationKey,
};

/// How soon a check is repeated that the database did not answer.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Watches whether an open stream may go on.
pub struct Guard(Option<Watch>);

struct Watch {
    state: Arc<State>,
    view: watch::Receiver<View>,
    caller: Known,
    /// The registration that the stream uses now.
    registration: Option<RegistrationKey>,
    /// The snapshot by which the stream may go on as the owner of that registration.
    checked: Option<Arc<Snapshot>>,
}

impl Guard {
    /// Never ends a stream.
    pub(crate) fn of_everyone() -> Self {
        Self(None)
    }

    pub(crate) fn new(state: Arc<State>, caller: Known) -> Self {
        let view = state.watch();
        Self(Some(Watch { state, view, caller, registration: None, checked: None }))
    }

    /// Whether it never ends a stream.
    pub fn is_of_everyone(&self) -> bool {
        self.0.is_none()
    }

    /// Refuses a stream that uses a registration, if its caller may not, or if there is none. The
    /// stream may go on with another one if the error does not concern the caller as such.
    pub async fn permit(&mut self, key: impl FnOnce() -> RegistrationKey) -> Result<(), Error> {
        let Some(watch) = &mut self.0 else { return Ok(()) };
        watch.permit(key()).await
    }

    /// Waits until the stream may not go on, and says why. Loses nothing if it is dropped.
    pub async fn ended(&mut self) -> Error {
        match &mut self.0 {
            Some(watch) => watch.ended().await,
            None => std::future::pending().await,
        }
    }
}

impl Watch {
    async fn permit(&mut self, key: RegistrationKey) -> Result<(), Error> {
        let (snapshot, lapsed) = {
            let view = self.view.borrow();
            (view.snapshot.clone(), view.lapsed)
        };
        let is_as_before = self.registration.as_ref() == Some(&key)
            && self.checked.as_ref().is_some_and(|checked| Arc::ptr_eq(checked, &snapshot));
        if is_as_before && !lapsed {
            return self.caller.proof.check();
        }
        self.renew(&snapshot, lapsed)?;
        if !self.caller.check_registration(&self.state, &key).await? {
            return Err(Error::NotRegistered(key));
        }
        (self.registration, self.checked) = (Some(key), Some(snapshot));
        Ok(())
    }

    async fn ended(&mut self) -> Error {
        loop {
            let (snapshot, lapsed) = {
                let view = self.view.borrow_and_update();
                (view.snapshot.clone(), view.lapsed)
            };
            let is_checked =
                self.checked.as_ref().is_some_and(|checked| Arc::ptr_eq(checked, &snapshot));
            if let Err(error) = self.renew(&snapshot, lapsed) {
                return error;
            }
            let mut retry = None;
            if !is_checked {
                match self.check().await {
                    Ok(true) => self.checked = Some(snapshot),
                    // Somebody else may register it next, which changes no snapshot.
                    Ok(false) => retry = Some(RETRY_INTERVAL),
                    // Until the database answers, the last answer counts.
                    Err(Error::Read(error)) => {
                        tracing::debug!(%error, "check the owner of a stream");
                        retry = Some(RETRY_INTERVAL);
                    }
                    Err(error) => return error,
                }
            }
            let expiry = self.caller.proof.valid_until();
            tokio::select! {
                // Cannot fail: the sender is in `state`.
                _ = self.view.changed() => {}
                () = until(expiry) => {}
                () = after(retry) => {}
            }
        }
    }

    /// Continues with a newer snapshot, if the caller is still the same by it.
    fn renew(&mut self, snapshot: &Arc<Snapshot>, lapsed: bool) -> Result<(), Error> {
        if lapsed {
            return Err(Error::Unconfirmed);
        }
        self.caller.renew(snapshot)
    }

    async fn check(&self) -> Result<bool, Error> {
        match &self.registration {
            Some(key) => self.caller.check_registration(&self.state, key).await,
            None => Ok(true),
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn after(pause: Option<Duration>) {
    match pause {
        Some(pause) => sleep(pause).await,
        None => std::future::pending().await,
    }
}
