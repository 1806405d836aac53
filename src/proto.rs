//! The messages, clients and servers that are generated from the protos under `proto/`.

mod bounded;

#[allow(missing_docs, clippy::all)]
mod generated {
    tonic::include_proto!("trunkline.v1");
}

pub use bounded::{Bounded, Elements};
pub use generated::*;

/// The same services, where some fields of the busiest calls stay encoded, so that the broker and the
/// client library can decode or encode them themselves: the names and headers in a publish request,
/// and the messages for a consumer.
pub mod raw {
    #[allow(missing_docs, clippy::all)]
    mod generated {
        include!(concat!(env!("OUT_DIR"), "/raw/trunkline.v1.rs"));
    }

    pub use generated::*;
}

/// The field numbers of messages that the broker and the client library encode and decode
/// themselves, in a module for each message.
pub mod field_numbers {
    #[allow(missing_docs)]
    mod generated {
        include!(concat!(env!("OUT_DIR"), "/field_numbers.rs"));
    }

    pub use generated::*;
}

/// The compiled protos with their comments, as reflection serves them.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/trunkline.protoset"));

/// The most bytes of a message's payload, key and headers together.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// The most messages in one publish request.
pub const MAX_REQUEST_MESSAGES: usize = 10_000;

/// The most headers of a message.
pub const MAX_HEADERS: usize = 64;

/// The most bytes of a message's headers together, names and values.
pub const MAX_HEADERS_BYTES: usize = 16 * 1024;

/// The most bytes of a header's name.
pub const MAX_HEADER_NAME_BYTES: usize = 255;

/// The header that holds when a message is to be delivered, in RFC 3339. It is what
/// [`NewMessage::deliver_at`] becomes.
pub const DELIVER_AT_HEADER: &str = "trunkline-deliver-at";

/// How far ahead a message may be to be delivered.
pub const MAX_DELIVERY_DELAY: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3_600);

impl Elements for raw::PublishRequest {
    const FIELD: u32 = field_numbers::publish_request::MESSAGES;
    const MOST: usize = MAX_REQUEST_MESSAGES;
}

impl Elements for raw::UnboundedMessage {
    const FIELD: u32 = field_numbers::new_message::HEADERS;
    const MOST: usize = MAX_HEADERS;
}

impl Elements for CreateTopicRequest {
    const FIELD: u32 = field_numbers::create_topic_request::LABELS;
    const MOST: usize = MAX_HEADERS;
}

impl Elements for UpdateTopicRequest {
    const FIELD: u32 = field_numbers::update_topic_request::LABELS;
    const MOST: usize = MAX_HEADERS;
}
