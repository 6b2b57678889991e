//! `lb-bench`: the measuring harness.

fn main() -> std::process::ExitCode {
    lb_tests::bench::main()
}
