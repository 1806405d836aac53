//! The schema: its migrations, and the privileges that a broker's role needs on it.

mod migrate;
mod privileges;

pub(super) use migrate::run;
pub(super) use privileges::of_connection;
