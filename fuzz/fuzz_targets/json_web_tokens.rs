//! JSON Web Tokens, their claims, and key sets.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| trunkline::access::jwt::fuzzing::token(data));
