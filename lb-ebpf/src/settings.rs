//! What the loader of a program fixes in it, and the counters of reasons, which each of its interfaces has for itself.

use core::arch::asm;
use core::ptr::from_ref;

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use lb_common::layout::MAX_INTERFACES;
use lb_common::verdict::REASON_COUNTERS;

#[btf_map]
static REASONS: PerCpuArray<u64, { MAX_INTERFACES * REASON_COUNTERS as usize }> = PerCpuArray::new();

/// Read-only data as it is in the loaded program: the loader replaces the zeros that the compiler sees.
#[inline(always)]
pub(crate) fn loaded<T>(settings: &'static T) -> &'static T {
    let address: *const T;
    // SAFETY: a move, which hides the address from the optimiser, which else folds the zeros. It is an instruction of its
    // own: debug information about none would coincide with its neighbour's, which the kernel refuses.
    unsafe {
        asm!("{0} = {1}", out(reg) address, in(reg) from_ref(settings), options(pure, readonly, nostack, preserves_flags));
    }
    // SAFETY: still the address of a static, which is never written after the program was loaded.
    unsafe { &*address }
}

/// The row of an interface among those that the loader listed; unknown ones share the first row.
///
/// The verifier knows the list and removes what follows the first vacant place.
#[inline(always)]
pub(crate) fn row_of(interfaces: &[u32; MAX_INTERFACES], ingress: u32) -> u32 {
    for (row, &interface) in interfaces.iter().enumerate().skip(1) {
        if interface == 0 {
            break;
        }
        if interface == ingress {
            return row as u32;
        }
    }
    0
}

/// Counts one packet of an interface.
#[inline(always)]
pub(crate) fn count_reason(interfaces: &[u32; MAX_INTERFACES], ingress: u32, counter: u32) {
    if let Some(count) = REASONS.get_ptr_mut(row_of(interfaces, ingress) * REASON_COUNTERS + counter) {
        // SAFETY: the row is this CPU's own, and a program is not interrupted by itself on its CPU.
        unsafe { *count += 1 };
    }
}
