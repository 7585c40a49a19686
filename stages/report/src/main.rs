//! The program `sluice-report`.

fn main() -> std::process::ExitCode {
    sluice_harness::main::<sluice_report::Args>()
}
