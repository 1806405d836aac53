//! Administration: topics, producers and consumers, created, listed, described, changed and
//! deleted.

pub(crate) mod consumers;
pub(crate) mod producers;
pub(crate) mod topics;

mod pages;

/// What a call asked to exist.
#[derive(Clone, Debug)]
pub struct Ensured<T> {
    /// It, as it is now.
    pub entry: T,
    /// Whether it existed before the call, which changed nothing then.
    pub existed: bool,
}

impl<T> Ensured<T> {
    /// The call created it.
    pub(crate) fn new(entry: T) -> Self {
        Self { entry, existed: false }
    }

    /// It existed before the call.
    pub(crate) fn existing(entry: T) -> Self {
        Self { entry, existed: true }
    }
}
