//! Entry point of `linnet-acme`. All code is in the library, so that tests can use it.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    linnet_platform::crash::withhold_data();
    linnet_platform::memory::use_small_pages();
    linnet_acme::cli::main()
}
