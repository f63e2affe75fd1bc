//! The program `linnet-backup`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    linnet_backup::run(&arguments)
}
