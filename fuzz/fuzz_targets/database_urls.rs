//! Database URLs.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| drop(trunkline::storage::check_url(text)));
