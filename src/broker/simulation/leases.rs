//! Who may ask for a lease, and what is known of one that is held.

mod progress;
mod seats;
mod turns;
