//! Property tests of what a subscription remembers, compared with plain sets.

mod exactly_once;
mod settled;
mod state;
