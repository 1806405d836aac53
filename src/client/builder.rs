//! The options of clients, producers, consumers and workers, and how each is opened.

mod client;
mod consumer;
mod producer;
mod worker;

pub use client::ClientBuilder;
pub use consumer::ConsumerBuilder;
pub use producer::ProducerBuilder;
pub use worker::WorkerBuilder;
