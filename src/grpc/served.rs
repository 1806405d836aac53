//! The calls that the broker serves, as the descriptors of its services name them.

use prost::{DecodeError, Message as _};
use prost_types::FileDescriptorSet;

use crate::proto;

/// A call that the broker serves.
pub struct ServedCall {
    /// `/package.Service/Method`.
    pub path: String,
    /// Whether it is answered by a stream.
    pub is_answered_by_stream: bool,
}

/// All calls that the broker serves.
pub fn served_calls() -> Result<Vec<ServedCall>, DecodeError> {
    let sets = [
        proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let mut calls = Vec::new();
    for set in sets {
        let set = FileDescriptorSet::decode(set)?;
        for file in &set.file {
            for service in &file.service {
                calls.extend(service.method.iter().map(|method| ServedCall {
                    path: format!("/{}.{}/{}", file.package(), service.name(), method.name()),
                    is_answered_by_stream: method.server_streaming(),
                }));
            }
        }
    }
    Ok(calls)
}
