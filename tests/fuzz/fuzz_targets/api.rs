//! Bodies of requests.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lb_fuzz::targets::api(bytes).expect("a law"));
