//! The server's program. All code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    linnet_host::cli::main()
}
