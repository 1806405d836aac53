//! The client's side: connections to a broker and its streams.
