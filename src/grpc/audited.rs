//! What the audit is told of calls: who makes them, what they did, and why they were denied.

use std::sync::Arc;

use tonic::{Request, Status};

use crate::{
    access::{self, Caller, PeerIdentity},
    audit::{Audit, Denial},
    broker::{Ensured, counted_address},
    grpc::{
        connection,
        status::{self, Refused, refuse},
    },
    model::{AuditEntry, Origin, Outcome, RegistrationKey},
};

/// The longest name of a certificate in the audit.
const LONGEST_NAME: usize = 128;

/// Who makes a request, and from which address and port.
pub(super) fn origin<T>(request: &Request<T>) -> Origin {
    let address = connection::client(request.extensions());
    let address = address.map(|it| std::net::SocketAddr::new(it.ip().to_canonical(), it.port()));
    origin_of(
        request.extensions().get::<Caller>(),
        address.map(|address| address.to_string().as_str().into()),
    )
}

/// An act of a request. If its client has a certificate and is no principal, the certificate's first
/// name is recorded.
pub(super) fn entry<T>(act: crate::model::Act, request: &Request<T>) -> AuditEntry {
    let entry = AuditEntry::new(act, origin(request));
    let certificate = connection::identity(request.extensions());
    match certificate.and_then(|PeerIdentity(names)| names.first()) {
        Some(name) if entry.origin.principal.is_none() => {
            entry.with("certificate", printable(name))
        }
        _ => entry,
    }
}

/// Records what a call did, which `complete` adds to once it is known, and turns the outcome into what
/// the call answers.
pub(super) async fn settle<T, E: Into<Refused>>(
    audit: &Audit,
    entry: AuditEntry,
    outcome: Result<T, E>,
    complete: impl FnOnce(&T, AuditEntry) -> AuditEntry,
) -> Result<T, Status> {
    match outcome.map_err(Into::into) {
        Ok(done) => {
            audit.record(complete(&done, entry)).await;
            Ok(done)
        }
        Err(refused) => {
            if refused.has_unknown_outcome() {
                audit.record_later(AuditEntry { outcome: Outcome::Unknown, ..entry });
            }
            Err(refuse(refused))
        }
    }
}

/// As [`settle`], for a call that asked for something to exist. What existed before is not recorded:
/// the call did nothing.
pub(super) async fn settle_ensured<T, E: Into<Refused>>(
    audit: &Audit,
    entry: AuditEntry,
    outcome: Result<Ensured<T>, E>,
    complete: impl FnOnce(&T, AuditEntry) -> AuditEntry,
) -> Result<Ensured<T>, Status> {
    match outcome {
        Ok(ensured) if ensured.existed => Ok(ensured),
        outcome => {
            settle(audit, entry, outcome, |ensured, entry| complete(&ensured.entry, entry)).await
        }
    }
}

/// Who makes the calls that may be denied, and which call it is.
#[derive(Clone)]
pub struct Denials {
    audit: Arc<Audit>,
    origin: Origin,
    is_proven: bool,
    method: &'static str,
}

impl Denials {
    /// Those of a call by a known caller; `None` if none can be denied.
    pub(super) fn of<T>(
        audit: &Arc<Audit>,
        request: &Request<T>,
        method: &'static str,
    ) -> Option<Self> {
        let caller = request.extensions().get::<Caller>()?;
        let address = connection::address(request.extensions());
        Some(Self::new(audit.clone(), Some(caller), address, method))
    }

    /// Those of a call by a known caller, or by somebody unknown, from an address.
    pub fn new(
        audit: Arc<Audit>,
        caller: Option<&Caller>,
        address: Option<std::net::IpAddr>,
        method: &'static str,
    ) -> Self {
        // The network of strangers, who have all of its addresses.
        let address = address.map(|address| match caller {
            Some(_) => address.to_canonical(),
            None => counted_address(address),
        });
        let address = address.map(|address| address.to_string().as_str().into());
        Self { audit, origin: origin_of(caller, address), is_proven: caller.is_some(), method }
    }

    /// Adds what a token was that is no longer valid. It proves nothing.
    pub fn with_token(mut self, token: Option<(crate::model::Principal, Arc<str>)>) -> Self {
        if let Some((principal, id)) = token {
            (self.origin.principal, self.origin.token_id) = (Some(principal), Some(id));
        }
        self
    }

    /// Counts a call if it was denied: because of who made it, and not for want of a database.
    pub fn count(&self, error: &access::Error) {
        let Some(reason) = status::denial(error) else { return };
        let (topic, subject) = about(error);
        let Self { origin, is_proven, method, .. } = self.clone();
        self.audit.deny(Denial { origin, is_proven, method, reason, topic, subject });
    }
}

/// The topic that a denied call was about, and what else.
fn about(error: &access::Error) -> (Option<String>, Option<String>) {
    use access::Error::*;
    let of = |RegistrationKey { topic, id }: &RegistrationKey| {
        (Some(topic.as_str().to_owned()), Some(format!("{} {}", id.kind(), id.as_str())))
    };
    match error {
        NotGranted { topic, .. } => (Some(topic.clone()), None),
        TopicHidden { topic } => (Some(topic.as_str().to_owned()), None),
        RegistrationHidden(key) | NotOwner(key) | NoOwner(key) => of(key),
        NotPresented { id } | TokenHidden { id } => (None, Some(format!("token {id}"))),
        _ => (None, None),
    }
}

fn origin_of(caller: Option<&Caller>, address: Option<Arc<str>>) -> Origin {
    Origin {
        principal: caller.and_then(Caller::principal).cloned(),
        token_id: caller.and_then(Caller::token_id).map(Into::into),
        address,
    }
}

/// The beginning of a text that a client chose: up to some printable characters, which every database
/// can store.
fn printable(text: &str) -> String {
    text.chars().filter(|char| matches!(char, ' '..='~')).take(LONGEST_NAME).collect()
}
