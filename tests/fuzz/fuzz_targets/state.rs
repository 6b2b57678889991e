//! Files of the state directory.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lb_fuzz::targets::state(bytes).expect("a law"));
