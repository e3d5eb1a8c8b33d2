//! Memory that is given back to the system.

/// Gives the memory behind `bytes` back; what they hold is lost.
pub(crate) fn forget_pages(bytes: &mut [u8]) {
    const PAGE: usize = 64 * 1024; // A multiple of the page size of every Linux system.
    let skip = bytes.as_ptr().align_offset(PAGE);
    let Some(inner) = bytes.get_mut(skip..) else {
        return;
    };
    let len = inner.len() / PAGE * PAGE;
    // SAFETY: the range is a whole number of pages inside memory that is borrowed for writing and that came from the
    // allocator; after the call it reads as zeroes (private memory), which are valid bytes.
    unsafe {
        // Advice: an error changes nothing.
        libc::madvise(inner.as_mut_ptr().cast(), len, libc::MADV_DONTNEED);
    }
}

/// See [`crate::return_free_memory`].
pub(crate) fn return_free_memory() {
    // glibc keeps what was freed for later, for ever if something is in use behind it. musl does not.
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the locks that it needs, and touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
