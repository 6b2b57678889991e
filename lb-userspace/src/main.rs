//! The command `lb`; everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    lb_userspace::cli::main()
}
