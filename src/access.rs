//! Who may do what.

pub mod jwt;
