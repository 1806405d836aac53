//! Property tests of leases: the queue for one, its state, and every place where a wake-up could be
//! missed.

mod progress;
mod seats;
mod turns;
mod wake_ups;
