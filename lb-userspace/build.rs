//! Compiles the eBPF programs and leaves them where the library embeds them.

use std::process::ExitCode;

fn main() -> ExitCode {
    lb_ebpf_build::for_build_script()
}
