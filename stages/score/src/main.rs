//! The program `sluice-score`.

fn main() -> std::process::ExitCode {
    sluice_harness::main::<sluice_score::Args>()
}
