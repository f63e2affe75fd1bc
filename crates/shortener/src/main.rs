//! The shortener's program; everything is in the library, so that tests can build it.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    linnet_platform::memory::use_small_pages();
    linnet_shortener::cli::main()
}
