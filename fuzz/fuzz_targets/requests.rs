//! Requests: what is decoded of a call's body, and what is checked then.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| trunkline::grpc::fuzzing::request(data));
