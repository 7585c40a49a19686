//! The program `sluice-export`.

fn main() -> std::process::ExitCode {
    sluice_harness::main::<sluice_export::Args>()
}
