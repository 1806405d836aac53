//! The servers' side of the protos with the hot calls' fields as they are on the wire; see
//! `build.rs`.

#[allow(missing_docs, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/raw/trunkline.v1.rs"));
}

pub use generated::*;
