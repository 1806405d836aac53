//! Page tokens, which clients can forge.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| trunkline::grpc::fuzzing::page_token(text));
