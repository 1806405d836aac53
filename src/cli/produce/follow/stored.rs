//! What the journal stores, as bytes.

use std::path::PathBuf;

use prost::Message as _;

use super::{
    super::identity::Inode,
    content::{Content, Life},
    place::Place,
};

/// A content, without its beginning.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredContent {
    #[prost(string, tag = "1")]
    pub(super) topic: String,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) path: String,
    #[prost(uint64, tag = "4")]
    pub(super) device: u64,
    #[prost(uint64, tag = "5")]
    pub(super) inode: u64,
    #[prost(message, optional, tag = "6")]
    place: Option<StoredPlace>,
    #[prost(bool, tag = "7")]
    pub(super) is_gzip: bool,
    #[prost(bool, tag = "8")]
    pub(super) is_gone: bool,
    #[prost(uint64, tag = "9")]
    pub(super) packed_end: u64,
    /// When the file was last written to, as far as that was seen; seconds and nanoseconds.
    #[prost(int64, repeated, tag = "10")]
    modified: Vec<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredPlace {
    #[prost(uint64, tag = "1")]
    offset: u64,
    #[prost(uint64, tag = "2")]
    lines: u64,
    #[prost(bytes = "vec", tag = "3")]
    tail: Vec<u8>,
}

/// Which part of a content consecutive messages are.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredPortion {
    #[prost(uint64, tag = "1")]
    pub(super) content: u64,
    #[prost(message, optional, tag = "2")]
    start: Option<StoredPlace>,
    /// For each message, how many bytes lie between its end and that of the one before.
    #[prost(uint64, repeated, tag = "3")]
    pub(super) lengths: Vec<u64>,
}

impl StoredContent {
    pub(super) fn of(content: &Content) -> Self {
        Self {
            topic: content.topic.clone(),
            name: content.name.clone(),
            path: content.path.to_string_lossy().into_owned(),
            device: content.inode.device,
            inode: content.inode.inode,
            place: Some(StoredPlace::of(&content.place)),
            is_gzip: content.is_gzip,
            is_gone: content.life == Life::Gone,
            packed_end: content.packed_end,
            modified: vec![content.seen.modified.0, content.seen.modified.1],
        }
    }

    pub(super) fn place(&self) -> Place {
        self.place.clone().unwrap_or_default().into()
    }

    pub(super) fn modified(&self) -> (i64, i64) {
        match self.modified[..] {
            [seconds, nanoseconds] => (seconds, nanoseconds),
            _ => (0, 0),
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(&self.path)
    }

    pub(super) fn inode(&self) -> Inode {
        Inode { device: self.device, inode: self.inode }
    }
}

impl StoredPortion {
    pub(super) fn new(content: u64, start: &Place, lengths: Vec<u64>) -> Self {
        Self { content, start: Some(StoredPlace::of(start)), lengths }
    }

    /// Where the portion begins.
    pub(super) fn start(&self) -> Place {
        self.start.clone().unwrap_or_default().into()
    }

    /// The offset after a number of its messages.
    pub(super) fn end_of(&self, messages: usize) -> u64 {
        let start = self.start.as_ref().map_or(0, |start| start.offset);
        start + self.lengths.iter().take(messages).sum::<u64>()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

impl StoredPlace {
    fn of(place: &Place) -> Self {
        let Place { offset, lines, tail } = place.clone();
        Self { offset, lines, tail }
    }
}

impl From<StoredPlace> for Place {
    fn from(stored: StoredPlace) -> Self {
        let StoredPlace { offset, lines, mut tail } = stored;
        // A damaged state must not lead before the file's beginning.
        tail.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
        Self { offset, lines, tail }
    }
}
