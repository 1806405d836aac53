//! What the protos under `proto/` compile to: messages, clients and servers.

#[allow(missing_docs, clippy::all)]
mod generated {
    tonic::include_proto!("trunkline.v1");
}

pub use generated::*;

/// The same services with the hot calls' fields as the bytes they are on the wire, for who reads or
/// writes them by itself: the names and headers in a publish request, the messages that a consumer
/// gets.
pub mod raw {
    #[allow(missing_docs, clippy::all)]
    mod generated {
        include!(concat!(env!("OUT_DIR"), "/raw/trunkline.v1.rs"));
    }

    pub use generated::*;
}

/// The compiled protos with their comments, as reflection serves them.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/trunkline.protoset"));

/// The most bytes that a message's payload, key and headers may hold together.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// The most messages that one publish request may hold.
pub const MAX_REQUEST_MESSAGES: usize = 10_000;

/// The most headers that a message may have.
pub const MAX_HEADERS: usize = 64;

/// The most bytes that a message's headers may hold together, names and values.
pub const MAX_HEADERS_BYTES: usize = 16 * 1024;

/// The most bytes that a header's name may have.
pub const MAX_HEADER_NAME_BYTES: usize = 255;
