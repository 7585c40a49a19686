//! The program `sluice-aesthetic`.

fn main() -> std::process::ExitCode {
    sluice_harness::main::<sluice_aesthetic::Args>()
}
