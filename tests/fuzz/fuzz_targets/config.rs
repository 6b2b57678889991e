//! Configurations.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lb_fuzz::targets::config(bytes).expect("a law"));
