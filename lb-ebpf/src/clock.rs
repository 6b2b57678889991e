//! The kernel's clocks.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use lb_common::pipeline::Clock;

/// Nanoseconds of a clock; `tick_ns` are those of a tick of the jiffies.
#[inline(always)]
pub(crate) fn now(clock: Clock, tick_ns: u32) -> u64 {
    match clock {
        // The verifier makes a load of this call. It also knows the factor.
        // SAFETY: the helper takes nothing and cannot fail.
        Clock::Jiffies => unsafe { bpf_jiffies64() }.wrapping_mul(u64::from(tick_ns)),
        // SAFETY: as above.
        Clock::Coarse => unsafe { bpf_ktime_get_coarse_ns() },
        // SAFETY: as above.
        Clock::Exact => unsafe { bpf_ktime_get_ns() },
    }
}
