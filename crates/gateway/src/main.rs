//! Entry point of `linnet-gateway`. All code is in the library, so that tests can start a gateway.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    linnet_platform::memory::use_small_pages();
    linnet_gateway::cli::main()
}
