//! The shortener's program. All code is in the library, so that tests can use it.

use std::process::ExitCode;

#[cfg(not(feature = "heap-profiling"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "heap-profiling")]
#[global_allocator]
static ALLOCATOR: linnet_profiling::HeapAllocator = linnet_profiling::HeapAllocator;

fn main() -> ExitCode {
    linnet_platform::crash::withhold_data();
    linnet_platform::memory::use_small_pages();
    #[cfg(feature = "profiling")]
    let _recording = linnet_profiling::start();
    linnet_shortener::cli::main()
}
