//! The command's configuration file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| trunkline::cli::fuzzing::configuration(text));
