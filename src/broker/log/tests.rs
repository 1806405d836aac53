//! Property tests of shared logs: what readers get, what is kept, and every place where a wake-up
//! could be missed.

mod alone;
mod delivery;
mod feeds;
mod recent;
mod wake_ups;
