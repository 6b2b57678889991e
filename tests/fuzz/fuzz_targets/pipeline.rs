//! Sequences of packets through the pipeline.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lb_fuzz::targets::pipeline(bytes).expect("a law"));
