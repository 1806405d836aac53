//! Administration: topics, producers and consumers, created, listed, described, changed and
//! deleted.

pub(crate) mod consumers;
pub(crate) mod producers;
pub(crate) mod topics;

mod pages;
