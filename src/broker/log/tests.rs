//! Property tests of shared logs: what readers get, what is cached, and every place where a wake-up
//! could be missed.

mod cache;
mod cursor;
mod reads;
mod topics;
mod wake_ups;
