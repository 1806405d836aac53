//! The `trunkline` command.
