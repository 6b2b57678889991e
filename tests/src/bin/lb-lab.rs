//! `lb-lab`: the demonstration, and a lab to play in.

fn main() -> std::process::ExitCode {
    lb_tests::cli::main()
}
