//! The options of clients, producers and consumers, and how each is opened.

mod client;
mod consumer;
mod producer;

pub use client::ClientBuilder;
pub use consumer::ConsumerBuilder;
pub use producer::ProducerBuilder;
