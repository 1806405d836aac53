//! Property tests of leases: the queue, the waiters, the state, and every place where a wake-up
//! could be missed.

mod queue;
mod state;
mod waiters;
mod wake_ups;
