//! Refuses calls that name a registration which does not exist.
//!
//! Such a call is refused before the broker acts on it: somebody else may register the name
//! meanwhile. The refusal is the very one that the broker gives, so that it tells nothing more.

use crate::{
    access,
    broker::{Broker, Error},
    grpc::status::Refused,
    model::{RegistrationId, RegistrationKey},
};

/// Why the access layer refuses a call. If what the call names is missing, the topic comes first.
pub(super) async fn refusal(broker: &Broker, error: access::Error) -> Refused {
    if let access::Error::NotRegistered(key) = &error
        && let Err(error) = broker.topics.get(&key.topic).await
    {
        return error.into();
    }
    error.into()
}

/// As [`refusal`], for a publish: a producer that is missing has no right to publish.
pub(super) async fn refusal_of_publish(broker: &Broker, error: access::Error) -> Refused {
    let access::Error::NotRegistered(RegistrationKey {
        topic,
        id: RegistrationId::Producer(producer),
    }) = error
    else {
        return error.into();
    };
    // Boxed, so that a publish that is permitted does not carry it.
    match Box::pin(broker.topics.get(&topic)).await {
        Ok(_) => Error::ProducerNotRegistered { topic, producer }.into(),
        Err(error) => error.into(),
    }
}
