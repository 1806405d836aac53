//! Property tests of what a subscription remembers, compared with plain sets.

mod settled;
mod state;
