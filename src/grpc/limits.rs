//! How large calls may be, and how long their answers wait.

use std::time::Duration;

/// The largest publish request that is decoded, in bytes. Larger than the largest message, and enough
/// for a thousand messages of several kilobytes each.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// The largest request of any other call. Labels, a description and names take at most 20 KiB.
pub const MAX_CALL_BYTES: usize = 128 * 1024;

/// The most metadata that a call may have: the bytes of all names and values, plus 32 for each
/// entry, as HTTP/2 counts it.
pub const MAX_METADATA_BYTES: usize = 64 * 1024;

/// The most entries that the metadata of a call may have. Each takes more memory than it takes on its
/// way, where HTTP/2 can repeat one by a single byte.
pub const MAX_METADATA_ENTRIES: usize = 512;

/// How many bytes a client may send on a stream before they are read. The default of 64 KiB is
/// less than one request of many messages.
pub const STREAM_WINDOW: u32 = 2 * 1024 * 1024;

/// The same for all streams of a connection together.
pub const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// The path of the most frequent call.
pub(super) const PUBLISH: &str = "/trunkline.v1.ProducerService/Publish";

/// The path of the stream of a worker, whose client sends any number of requests and may pause between
/// them.
pub(super) const SUBSCRIBE: &str = "/trunkline.v1.SubscriptionService/Subscribe";

/// How long an answer may wait for its client.
pub(super) const UNREAD_LIMIT: Duration = Duration::from_secs(60);
