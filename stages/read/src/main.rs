//! The program `sluice-read`.

fn main() -> std::process::ExitCode {
    sluice_harness::main::<sluice_read::Args>()
}
