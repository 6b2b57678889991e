//! Sequences of packets through the decapsulator.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lb_fuzz::targets::decapsulation(bytes).expect("a law"));
