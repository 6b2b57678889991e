//! What `ipvsadm-save` wrote.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lb_fuzz::targets::ipvsadm(bytes).expect("a law"));
