//! Keeps a process's resident memory close to what it uses.

/// Disables huge pages for this process. Call it first in `main`, before large allocations.
///
/// mimalloc requests huge pages, and the first byte written to a 2 MiB block makes the whole block resident: 30 MiB for a
/// process that uses 4. If the kernel refuses, the process only uses more memory, so no error is returned.
pub fn use_small_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_disabled() {
        use_small_pages();
        assert!(rustix::thread::transparent_huge_pages_are_disabled().unwrap());
    }
}
