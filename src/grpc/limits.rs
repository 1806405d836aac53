//! How large a call may be.

/// The largest request that is decoded, in bytes. It must exceed the largest message, and leaves room
/// for a thousand messages of several kilobytes.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// The most metadata that a call may have: the bytes of all names and values, and 32 for each entry,
/// as HTTP/2 counts.
pub const MAX_METADATA_BYTES: usize = 64 * 1024;
