//! How news of a topic reaches those who read it, here and at other brokers.

mod alone;
mod feeds;
mod hints;
mod recent;
