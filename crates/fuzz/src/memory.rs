//! Measures the memory that a reader allocates for an input.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Runs `read`, and panics if it allocates more than `fixed` bytes and `factor` times the length of its input.
pub(crate) fn bounded<T>(input: &[u8], fixed: usize, factor: usize, read: impl FnOnce() -> T) -> T {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let value = read();
    let used = ALLOCATOR.peak_usage().saturating_sub(before);
    let limit = fixed + factor * input.len();
    assert!(used <= limit, "{used} bytes for {} bytes of input, more than {limit}", input.len());
    value
}
