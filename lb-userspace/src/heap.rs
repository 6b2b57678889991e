//! What the C library's allocator is told (`mallopt(3)`, `malloc_trim(3)`): the third place of the daemon with `unsafe`.
//!
//! Each thread would get an arena of its own, up to eight for every CPU, and keep what was freed in it. The daemon's threads
//! allocate little at the same time, and a start or a reload much more than what stays: one arena for all, and what is free
//! goes back. With a hundred thousand backends that is a third of the memory.

/// Lets all threads that begin from here on allocate from one arena.
pub(crate) fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes two numbers; it says whether it took them, and if it did not, everything is as before.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives memory back that is not in use.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the allocator gives back what nobody holds, under its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
