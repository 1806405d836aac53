//! Property tests of leases: the queue for one, its state, and every place where a wake-up could be
//! missed.

mod queue;
mod state;
mod waiters;
mod wake_ups;
