//! What the protos under `proto/` compile to: messages, clients and servers.

#[allow(missing_docs, clippy::all)]
mod generated {
    tonic::include_proto!("trunkline.v1");
}

pub use generated::*;

/// The compiled protos with their comments, as reflection serves them.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/trunkline.protoset"));
