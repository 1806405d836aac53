//! Binds the broker to a port and a database, and takes it down in good order.

pub mod options;
