//! The value of the `authorization` header.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| trunkline::access::fuzzing::authorization(data));
