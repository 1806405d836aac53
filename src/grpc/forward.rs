//! Forwards what workers ask to the broker that owns their subscription.
//!
//! A broker cannot own a subscription while another one does. It has the call made there, and passes the
//! answer on. Who calls and what they may do has been checked by then. The owner takes such calls on a port
//! of its own ([`service`]): encrypted with a certificate that others know from the database, and with a
//! secret that the database holds. So whoever can read the database's tables can make them, and nobody else.
//!
//! A call that finds no owner, as the last one has just ended, is tried here and there in turn until one of
//! them answers.

mod identity;
mod peer;
pub(super) mod secret;
mod service;
pub(super) mod worker;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{self, Instant};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    broker::Error,
    grpc::status::{Refused, refuse},
    model::{ConsumerId, Endpoint, TopicName},
};

pub use identity::ForwardIdentity;
pub(super) use peer::{Client, Peer};
pub(super) use service::routes;

/// How long a call looks for the owner.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long it waits before it looks again.
const PAUSE: Duration = Duration::from_millis(100);

/// How many subscriptions it remembers the owners of. Beyond that, it forgets them all, and finds them again
/// in the database.
const MAX_KNOWN: usize = 10_000;

/// A subscription, by its names.
pub(super) type Names = (TopicName, ConsumerId);

/// Knows which broker owns a subscription, if this one does not.
#[derive(Default)]
pub struct Forwarder(Mutex<Known>);

#[derive(Default)]
struct Known {
    owners: HashMap<Names, Arc<Peer>>,
    /// By their numbers.
    peers: HashMap<i64, Weak<Peer>>,
}

/// What a call may do if the connection to the owner is lost while it is under way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenLost {
    /// It is made once more.
    Repeat,
    /// It may have been done, so that its caller has to decide.
    Refuse,
}

/// Why the owner did not answer.
enum Failure {
    /// It is not the owner any more, or was not reached.
    NotOwner,
    /// The connection was lost while the call was under way.
    Lost,
    /// It refused the call.
    Refused(Status),
}

impl Forwarder {
    /// Has a call made where its subscription is owned: here, or by another broker.
    pub(super) async fn route<T, Here, There>(
        &self,
        names: &Names,
        when_lost: WhenLost,
        here: impl Fn() -> Here,
        there: impl Fn(Client) -> There,
    ) -> Result<T, Refused>
    where
        Here: Future<Output = Result<T, Error>>,
        There: Future<Output = Result<T, Status>>,
    {
        let give_up_at = Instant::now() + TIMEOUT;
        loop {
            if let Some(peer) = self.owner(names) {
                match ask(&peer, &there).await {
                    Ok(answer) => return Ok(answer),
                    Err(Failure::Refused(status)) => return Err(Refused::Forwarded(status)),
                    Err(Failure::Lost) if when_lost == WhenLost::Refuse => {
                        self.forget(names, &peer);
                        return Err(Error::outcome_unknown().into());
                    }
                    Err(Failure::Lost | Failure::NotOwner) => {
                        self.forget(names, &peer);
                        time::sleep(PAUSE).await;
                    }
                }
            }
            match here().await {
                Err(Error::SubscriptionElsewhere { endpoint: Some(endpoint), .. })
                    if Instant::now() < give_up_at =>
                {
                    self.remember(names, &endpoint);
                }
                answered => return answered.map_err(Refused::from),
            }
        }
    }

    /// Makes a call at another broker; `None` if it is not reached.
    pub(super) async fn client(&self, endpoint: Endpoint) -> Option<Client> {
        let peer = self.0.lock().peer(&Arc::new(endpoint));
        peer.client().await.ok()
    }

    /// Forgets the owner of a subscription, as it has gone.
    pub(super) fn forget(&self, names: &Names, peer: &Arc<Peer>) {
        peer.leave_connections();
        let mut known = self.0.lock();
        if known.owners.get(names).is_some_and(|owner| Arc::ptr_eq(owner, peer)) {
            known.owners.remove(names);
        }
    }

    fn owner(&self, names: &Names) -> Option<Arc<Peer>> {
        self.0.lock().owners.get(names).cloned()
    }

    fn remember(&self, names: &Names, endpoint: &Arc<Endpoint>) {
        let mut known = self.0.lock();
        if known.owners.len() >= MAX_KNOWN {
            *known = Known::default();
        }
        let peer = known.peer(endpoint);
        known.owners.insert(names.clone(), peer);
    }
}

impl Known {
    /// A broker, which is remembered while it owns a subscription that workers of this one ask for.
    fn peer(&mut self, endpoint: &Arc<Endpoint>) -> Arc<Peer> {
        let known = self.peers.get(&endpoint.broker).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            self.peers.retain(|_, peer| peer.strong_count() > 0);
            let peer = Peer::new(endpoint.clone());
            self.peers.insert(endpoint.broker, Arc::downgrade(&peer));
            peer
        })
    }
}

/// Makes a call at another broker.
async fn ask<T, There>(peer: &Arc<Peer>, there: impl Fn(Client) -> There) -> Result<T, Failure>
where
    There: Future<Output = Result<T, Status>>,
{
    let client = match peer.client().await {
        Ok(client) => client,
        Err(error) => {
            let endpoint = peer.endpoint();
            tracing::debug!(?endpoint, %error, "reach the owner of a subscription");
            return Err(Failure::NotOwner);
        }
    };
    there(client).await.map_err(Failure::of)
}

impl Failure {
    fn of(status: Status) -> Self {
        if is_of_connection(&status) {
            return Self::Lost;
        }
        let info = status.get_details_error_info();
        let reason = info.as_ref().map_or("", |info| info.reason.as_str());
        // Another broker may have taken the address: it does not know the secret.
        let is_other = status.code() == Code::Unauthenticated;
        match reason {
            "SUBSCRIPTION_ELSEWHERE" | "DRAINING" => Self::NotOwner,
            _ if is_other => Self::NotOwner,
            _ => Self::Refused(passed_on(status)),
        }
    }
}

/// Whether a status says that the connection failed, and not what the other broker answered.
fn is_of_connection(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// What another broker answered, without the metadata of its answer.
fn passed_on(status: Status) -> Status {
    let details = status.details().to_vec().into();
    Status::with_details(status.code(), status.message(), details)
}

/// How a stream ends whose connection to the owner has ended with an error.
fn ended(status: Status) -> Status {
    match is_of_connection(&status) {
        true => refuse(Error::outcome_unknown()),
        false => passed_on(status),
    }
}
